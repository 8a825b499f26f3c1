"""Reads the zip form of a torch checkpoint without torch.

The file's pickle can only name the few things that a dictionary of tensors
is made of. Whatever else it names is refused before anything is called, so a
checkpoint from a stranger cannot run code.
"""
import collections
import io
import mmap
import pickle
import struct
import zipfile
import zlib
from typing import NamedTuple

import numpy as np


class Refused(Exception):
    """The input cannot be converted; the text says why."""


class StorageType(NamedTuple):
    name: str
    item_size: int


STORAGE_TYPES = {
    "FloatStorage": StorageType("float32", 4),
    "HalfStorage": StorageType("float16", 2),
    "BFloat16Storage": StorageType("bfloat16", 2),
    "DoubleStorage": StorageType("float64", 8),
    "LongStorage": StorageType("int64", 8),
    "IntStorage": StorageType("int32", 4),
    "BoolStorage": StorageType("bool", 1),
}

# numpy has no bfloat16: its bits travel as uint16.
NUMPY_TYPES = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "bool": np.dtype("u1"),
}


class Storage(NamedTuple):
    record: str
    type: StorageType
    items: int


class Tensor(NamedTuple):
    """A view of a storage; nothing is read until `Checkpoint.array`."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    @property
    def dtype(self):
        return self.storage.type.name

    @property
    def last_item(self):
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        return self.offset + reach


def rebuild_tensor(storage, offset, shape, strides, *_):
    """Stands in for torch._utils._rebuild_tensor_v2."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise Refused("the checkpoint describes a tensor with a foreign storage or a negative size")
    tensor = Tensor(storage, offset, tuple(shape), tuple(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise Refused("the checkpoint describes a tensor with more sizes than strides")
    if 0 not in tensor.shape and tensor.last_item >= storage.items:
        raise Refused(f"the checkpoint describes a tensor that reaches item {tensor.last_item} of "
                      f"storage {storage.record}, which holds {storage.items}")
    return tensor


def rebuild_parameter(tensor, *_):
    """Stands in for torch._utils._rebuild_parameter."""
    return tensor


class TensorsOnly(pickle.Unpickler):
    ALLOWED = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        **{("torch", name): kind for name, kind in STORAGE_TYPES.items()},
    }

    def find_class(self, module, name):
        found = self.ALLOWED.get((module, name))
        if found is None:
            raise Refused(f"the checkpoint's pickle names {module}.{name}, which is no part of a "
                          "dictionary of tensors; nothing of it was run")
        return found

    def persistent_load(self, pid):
        well_formed = (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
                       and isinstance(pid[1], StorageType) and isinstance(pid[2], str)
                       and type(pid[4]) is int and pid[4] >= 0)
        if not well_formed:
            raise Refused(f"the checkpoint's pickle refers to {pid!r}, which is not a tensor storage")
        return Storage(pid[2], pid[1], pid[4])


class Checkpoint:
    """An open checkpoint: `content` is what was saved, with Tensors in it."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = open(path, "rb")
        except OSError as e:
            raise Refused(f"cannot open {path}: {e.strerror}") from None
        try:
            self.zip = zipfile.ZipFile(self.file)
        except zipfile.BadZipFile:
            raise Refused(f"{path} is not a whole zip file: it is cut short, or was saved by a torch "
                          "older than 1.6 (load it there and torch.save it again)") from None
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        self.prefix = self.find_prefix()
        self.checked = set()
        self.check_byte_order()
        self.content = self.unpickle()

    def close(self):
        self.zip.close()
        try:
            self.map.close()
        except BufferError:
            pass  # an array still looks at it; it goes when that does
        self.file.close()

    def find_prefix(self):
        pickles = [n for n in self.zip.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"{self.path} is a zip file, but not a torch checkpoint: it holds "
                          f"{len(pickles)} files named data.pkl instead of one")
        return pickles[0][: -len("data.pkl")]

    def check_byte_order(self):
        name = self.prefix + "byteorder"
        if name in self.zip.namelist():
            order = bytes(self.record(name)).decode("ascii", "replace").strip()
            if order != "little":
                raise Refused(f"{self.path} holds {order}-endian data; only little-endian is read")

    def record(self, name):
        """The bytes of one zip member, in place."""
        try:
            info = self.zip.getinfo(name)
        except KeyError:
            raise Refused(f"{self.path} lacks {name}, which its tensors refer to") from None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused(f"{name} is compressed or encrypted; torch.save stores it as it is")
        # The local header may be longer than the central one: torch pads it.
        local = self.map[info.header_offset : info.header_offset + 30]
        if len(local) != 30 or local[:4] != b"PK\3\4":
            raise Refused(f"{self.path} is damaged at {name}")
        name_size, extra_size = struct.unpack("<HH", local[26:30])
        start = info.header_offset + 30 + name_size + extra_size
        if start + info.file_size > len(self.map):
            raise Refused(f"{self.path} is cut short in {name}")
        data = memoryview(self.map)[start : start + info.file_size]
        if name not in self.checked:
            if zlib.crc32(data) != info.CRC:
                raise Refused(f"{self.path} is damaged: {name} does not match its checksum")
            self.checked.add(name)
        return data

    def unpickle(self):
        data = self.record(self.prefix + "data.pkl")
        try:
            return TensorsOnly(io.BytesIO(bytes(data))).load()
        except Refused:
            raise
        except Exception as e:  # a damaged pickle can fail in any way
            raise Refused(f"the pickle in {self.path} is malformed: {e}") from None

    def array(self, tensor):
        """A tensor's items as a numpy view of the mapped file."""
        storage = tensor.storage
        data = self.record(f"{self.prefix}data/{storage.record}")
        if len(data) != storage.items * storage.type.item_size:
            raise Refused(f"storage {storage.record} of {self.path} has {len(data)} bytes, but "
                          f"{storage.items} items of {storage.type.name} were announced")
        items = np.frombuffer(data, NUMPY_TYPES[storage.type.name])
        strides = tuple(s * items.itemsize for s in tensor.strides)
        return np.lib.stride_tricks.as_strided(items[tensor.offset :], tensor.shape, strides,
                                               writeable=False)
