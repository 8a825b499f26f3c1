"""Reads the weights of a model folder: model.safetensors, or the files that
model.safetensors.index.json names."""
import os

import numpy as np

from .inputs import MAX_INDEX, Fields, InputFile, Refused, parse_json, plain, read_file, shown

# numpy has no bfloat16: its bits travel as uint16.
TYPES = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}
ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}
MAX_HEADER = 16 << 20
MAX_SIZES = 8
MAX_EXACT = 1 << 53
MAX_NAME = 255  # what file systems allow


class Entry:
    """A tensor in a file; `first` counts from the beginning of the file."""

    def __init__(self, file, start, fields):
        self.file = file
        self.type = fields.choice("dtype", tuple(ITEM_SIZES))
        self.shape = tuple(fields.wholes("shape", 0, MAX_SIZES, MAX_EXACT))
        first, last = fields.wholes("data_offsets", 2, 2, file.size - start)
        self.first, self.size = start + first, ITEM_SIZES[self.type]
        for n in self.shape:
            self.size *= n
        if last - first != self.size:
            fields.refuse("data_offsets", f"the tensor has {last - first} bytes of data, its shape "
                          f"needs {self.size}")


def read_header(file):
    """{name: Entry} of one file, which must keep the format's rules for a whole file: each byte
    of data belongs to one tensor."""
    start = file.read(0, 8) if file.size >= 8 else b""
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > file.size - 8:
        raise Refused(f"{file.path} is no safetensors file, or cut short")
    if length > MAX_HEADER:
        raise Refused(f"{file.path}: the header has {length} bytes; at most {MAX_HEADER} are read here")
    text = file.read(8, length)
    if text[:1] != b"{":
        raise Refused(f"{file.path}: the header is not a JSON object")
    header = Fields(file.path, parse_json(file.path, text)).item
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Refused(f"{file.path}: __metadata__ is not an object of strings")
    entries = {name: Entry(file, 8 + length, Fields(file.path, item, name, "an object with dtype, "
                                                    "shape and data_offsets"))
               for name, item in header.items()}
    end, before = 8 + length, ""
    for name, entry in sorted(entries.items(), key=lambda e: (e[1].first, e[1].size)):
        if entry.first < end:
            raise Refused(f"{file.path}: tensors {shown(before)} and {shown(name)} lie over the same "
                          "bytes")
        if entry.first > end:
            raise Refused(f"{file.path}: {entry.first - end} bytes before tensor {shown(name)} belong "
                          "to no tensor")
        end, before = entry.first + entry.size, name
    if end != file.size:
        raise Refused(f"{file.path}: {file.size - end} bytes after the last tensor belong to no tensor")
    return entries


def is_name(part):
    """Whether this can be a file of the same folder, with a name that a message may hold."""
    return (isinstance(part, str) and part.isprintable() and "/" not in part
            and len(part) <= MAX_NAME and part not in ("", ".", ".."))


class Weights:
    """The tensors of a model folder by name."""

    def __init__(self, folder):
        self.files, self.entries = [], {}
        self.path = os.path.join(folder, "model.safetensors")
        index = self.path + ".index.json"
        try:
            if os.path.exists(self.path) or not os.path.exists(index):
                self.entries = self.open(self.path)
            else:
                self.path = index
                self.open_index(folder)
        except BaseException:
            self.close()
            raise
        self.left = set(self.entries)

    def close(self):
        for file in self.files:
            file.close()

    def open(self, path):
        self.files.append(InputFile(path))
        return read_header(self.files[-1])

    def open_index(self, folder):
        root = Fields(self.path, parse_json(self.path, read_file(self.path, MAX_INDEX)))
        names = root.fields("weight_map", "an object of tensors and files").item
        parts = {}
        for name, part in names.items():
            if not is_name(part):
                raise Refused(f'{self.path}: "weight_map" does not name a file of the same folder for '
                              f"tensor {shown(name)}")
            if part not in parts:
                parts[part] = self.open(os.path.join(folder, part))
            if name not in parts[part]:
                raise Refused(f"{self.path}: tensor {shown(name)} is not in {plain(part)}, where the "
                              "index says it is")
            self.entries[name] = parts[part][name]
        for part, entries in parts.items():
            for name in entries:
                if names.get(name) != part:
                    raise Refused(f"{self.path}: {plain(part)} holds tensor {shown(name)}, which the "
                                  "index does not place there")

    def take(self, name, *shape):
        """(type, items) of a tensor that must have this shape."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refused(f"{self.path} lacks {name}")
        if entry.shape != shape or entry.type not in TYPES:
            raise Refused(f"{self.path}: {name} is {entry.type} {list(entry.shape)}, not a float32, "
                          f"float16 or bfloat16 of {list(shape)}")
        kind, dtype = TYPES[entry.type]
        items = np.empty(shape, dtype)
        entry.file.read_into(entry.first, memoryview(items).cast("B"))
        self.left.discard(name)
        return kind, items
