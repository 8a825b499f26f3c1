"""Writes a GGUF file, version 3: the little of that format that a model needs."""
import os
import struct

import numpy as np

from .inputs import Refused
from .output import replacing

ALIGNMENT = 32
# Numbers of ggml's types of tensors, and of GGUF's types of values.
TENSOR_TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
LISTED = {int: (INT32, "<i"), float: (FLOAT32, "<f")}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(item):
    """The type's number and the bytes of a bool, a whole number from 0, a float, a string, or of
    a list of strings, floats or whole numbers (these are signed in lists: the readers want it)."""
    if isinstance(item, bool):
        return BOOL, struct.pack("<?", item)
    if isinstance(item, int):
        return UINT32, struct.pack("<I", item)
    if isinstance(item, float):
        return FLOAT32, struct.pack("<f", item)
    if isinstance(item, str):
        return STRING, string(item)
    if isinstance(item[0], str):
        kind, data = STRING, b"".join(map(string, item))
    else:
        kind, form = LISTED[type(item[0])]
        data = b"".join(struct.pack(form, i) for i in item)
    return ARRAY, struct.pack("<IQ", kind, len(item)) + data


def header(metadata, tensors):
    """`tensors` are (name, type, array), an array of one or two dimensions; bfloat16 as uint16."""
    text = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, item in metadata.items():
        kind, data = value(item)
        text += string(key) + struct.pack("<I", kind) + data
    offset = 0
    for name, kind, array in tensors:
        # The fastest dimension first.
        text += string(name) + struct.pack(f"<I{array.ndim}QIQ", array.ndim, *array.shape[::-1],
                                           TENSOR_TYPES[kind], offset)
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    return text + b"\0" * (-len(text) % ALIGNMENT)


def write_gguf(path, metadata, tensors, force):
    """All or nothing: the file appears, under its name, when it is whole. Returns its bytes."""
    if os.path.lexists(path) and not force:
        raise Refused(f"{path} exists; give --force to replace it, or another name")
    with replacing(path) as out:
        out.write(header(metadata, tensors))
        for _, _, array in tensors:
            out.write(np.ascontiguousarray(array).data)
            out.write(b"\0" * (-array.nbytes % ALIGNMENT))
        size = out.tell()
    return size
