"""Reads a model folder: config.json, and model.safetensors in place."""
import json
import os
import struct

import numpy as np

from .torch_zip import Refused

# numpy has no bfloat16: its bits travel as uint16.
TYPES = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def read_config(folder):
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except ValueError as e:
        raise Refused(f"{path} is not JSON: {e}") from None
    if not isinstance(config, dict) or config.get("architecture") != "ratplus":
        raise Refused(f'{path} is not of a RAT+ model ("architecture": "ratplus")')
    return config


class Weights:
    """The tensors of a model.safetensors by name."""

    def __init__(self, path):
        self.path = path
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise Refused(f"{path} is no safetensors file, or cut short")
            try:
                self.header = json.loads(file.read(length))
            except ValueError as e:
                raise Refused(f"{path}: the header is not JSON: {e}") from None
        self.data = np.memmap(path, mode="r", offset=8 + length) if size > 8 + length else b""
        self.header.pop("__metadata__", None)
        self.left = set(self.header)

    def take(self, name, *shape):
        """(type, items) of a tensor that must have this shape."""
        entry = self.header.get(name)
        if entry is None:
            raise Refused(f"{self.path} lacks {name}")
        if tuple(entry["shape"]) != shape or entry["dtype"] not in TYPES:
            raise Refused(f"{self.path}: {name} is {entry['dtype']} {entry['shape']}, not a "
                          f"float32, float16 or bfloat16 of {list(shape)}")
        kind, dtype = TYPES[entry["dtype"]]
        first, last = entry["data_offsets"]
        wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if not 0 <= first <= last <= len(self.data) or last - first != wanted:
            raise Refused(f"{self.path}: {name} lies outside of the file")
        self.left.discard(name)
        return kind, self.data[first:last].view(dtype).reshape(shape)
