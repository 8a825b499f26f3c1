"""Reads the zip form of a torch checkpoint without torch.

The file's pickle can only name the few things that a dictionary of tensors
is made of. Whatever else it names is refused before anything is called, so a
checkpoint from a stranger cannot run code.
"""
import struct
import zipfile
import zlib

import numpy as np

from .inputs import InputFile, Refused, plain
from .pickle_reader import MAX_PICKLE, PickleReader

MAX_DIRECTORY = 16 << 20
PIECE = 1 << 20

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


class DirectoryReader:
    """The file as zipfile reads it: only the directory at its end, which is bounded."""

    def __init__(self, file):
        self.file, self.at = file, 0

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.file.size)[whence]
        if self.at < 0:
            raise zipfile.BadZipFile
        return self.at

    def tell(self):
        return self.at

    def read(self, size=-1):
        rest = max(0, self.file.size - self.at)
        size = rest if size is None or size < 0 else min(size, rest)
        if size > MAX_DIRECTORY:
            raise Refused(f"{self.file.path}: the zip file's directory has {size} bytes; at most "
                          f"{MAX_DIRECTORY} are read here")
        self.at += size
        return bytes(self.file.read(self.at - size, size))

    def seekable(self):
        return True


class Checkpoint:
    """An open checkpoint: `content` is what was saved, with Tensors in it."""

    def __init__(self, path):
        self.path = path
        self.file = InputFile(path)
        try:
            self.members = self.read_directory()
            self.prefix = self.find_prefix()
            self.checked = set()
            self.check_byte_order()
            pickle = self.small_record("data.pkl", MAX_PICKLE)
            self.content = PickleReader(pickle, self.file.size).read()
        except BaseException:
            self.file.close()
            raise

    def close(self):
        self.file.close()

    def read_directory(self):
        try:
            with zipfile.ZipFile(DirectoryReader(self.file)) as archive:
                return {info.filename: info for info in archive.infolist()}
        except Refused:
            raise
        except Exception:  # zipfile meets a damaged directory with many kinds of errors
            raise Refused(f"{self.path} is not a whole zip file: it is cut short, or was saved by a "
                          "torch older than 1.6 (load it there and torch.save it again)") from None

    def find_prefix(self):
        pickles = [n for n in self.members if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"{self.path} is a zip file, but not a torch checkpoint: it holds "
                          f"{len(pickles)} files named data.pkl instead of one")
        return pickles[0][: -len("data.pkl")]

    def check_byte_order(self):
        if self.prefix + "byteorder" in self.members:
            order = self.small_record("byteorder", 64).decode("ascii", "replace").strip()
            if order != "little":
                raise Refused(f"{self.path} holds {plain(order)}-endian data; only little-endian is "
                              "read")

    def record(self, name):
        """Where one zip member lies in the file, and its size; its checksum is right."""
        info = self.members.get(name)
        shown_name = plain(name)
        if info is None:
            raise Refused(f"{self.path} lacks {shown_name}, which its tensors refer to")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused(f"{shown_name} is compressed or encrypted; torch.save stores it as it is")
        if not 0 <= info.header_offset <= self.file.size - 30:
            raise Refused(f"{self.path} is damaged at {shown_name}")
        # The local header may be longer than the central one: torch pads it.
        local = self.file.read(info.header_offset, 30)
        if local[:4] != b"PK\3\4":
            raise Refused(f"{self.path} is damaged at {shown_name}")
        name_size, extra_size = struct.unpack("<HH", local[26:30])
        start = info.header_offset + 30 + name_size + extra_size
        if info.file_size > self.file.size - start:
            raise Refused(f"{self.path} is cut short in {shown_name}")
        if name not in self.checked:
            self.check_sum(shown_name, start, info)
            self.checked.add(name)
        return start, info.file_size

    def check_sum(self, shown_name, start, info):
        found = 0
        for done in range(0, info.file_size, PIECE):
            found = zlib.crc32(self.file.read(start + done, min(PIECE, info.file_size - done)), found)
        if found != info.CRC:
            raise Refused(f"{self.path} is damaged: {shown_name} does not match its checksum")

    def small_record(self, name, limit):
        info = self.members[self.prefix + name]
        if info.file_size > limit:
            raise Refused(f"{self.path}: {name} has {info.file_size} bytes; at most {limit} are read "
                          "here")
        start, size = self.record(self.prefix + name)
        return bytes(self.file.read(start, size))

    def array(self, tensor):
        """A tensor's items, read from the file: those of its storage from its first to its last."""
        storage = tensor.storage
        start, size = self.record(f"{self.prefix}data/{storage.record}")
        if size != storage.items * storage.type.item_size:
            raise Refused(f"storage {plain(storage.record)} of {self.path} has {size} bytes, but "
                          f"{storage.items} items of {storage.type.name} were announced")
        if 0 in tensor.shape:
            return np.empty(tensor.shape, NUMPY_TYPES[storage.type.name])
        items = np.empty(tensor.last_item + 1 - tensor.offset, NUMPY_TYPES[storage.type.name])
        self.file.read_into(start + tensor.offset * items.itemsize, memoryview(items).cast("B"))
        # A size of 1 has no second item, so its stride may be any number.
        strides = tuple(s * items.itemsize if n > 1 else 0
                        for n, s in zip(tensor.shape, tensor.strides))
        return np.lib.stride_tricks.as_strided(items, tensor.shape, strides, writeable=False)
