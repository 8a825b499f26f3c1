"""Writes the model folder: config.json, model.safetensors, tokenizer.model."""
import json
import os
import shutil
import struct
import sys

import numpy as np

from .inputs import MAX_TOKENIZER, Refused, read_file
from .output import make_beside, settle, syncing_folder

SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
CHUNK_ITEMS = 1 << 21


def to_float32(items, dtype):
    if dtype == "bfloat16":
        return (items.astype("<u4") << 16).view("<f4")
    return items.astype("<f4")


def from_float32(values, dtype):
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    if dtype == "bfloat16":
        bits = values.view("<u4")
        # To nearest, ties to even; the sum cannot overflow for finite values.
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return values


def is_finite(items, dtype):
    if dtype == "bfloat16":
        return bool(np.all((items & 0x7F80) != 0x7F80))
    return bool(np.all(np.isfinite(items)))


def converted(name, items, source, target):
    """A chunk of a tensor in its new type, packed."""
    if not is_finite(items, source):
        raise Refused(f"{name} holds NaN or Inf")
    if source == target:
        return np.ascontiguousarray(items)
    result = from_float32(to_float32(np.ascontiguousarray(items), source), target)
    if not is_finite(result, target):
        raise Refused(f"{name} holds values beyond the range of {target}; try another --dtype")
    return result


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, total, quiet):
        self.total = max(1, total)
        self.done = 0
        self.shown = None
        self.on = sys.stderr.isatty() and not quiet

    def add(self, count, name):
        self.done += count
        permille = self.done * 1000 // self.total
        if self.on and permille != self.shown:
            self.shown = permille
            bar = "#" * (permille * 32 // 1000)
            sys.stderr.write(f"\r\033[K[{bar:<32}] {permille / 10:5.1f}%  {name}")
            sys.stderr.flush()

    def finish(self):
        if self.on and self.shown is not None:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def target_type(tensor, dtype):
    types = {part.dtype for part in tensor.parts}
    if dtype != "keep":
        return dtype
    if len(types) > 1:
        raise Refused(f"the parts of {tensor.name} have several types, {', '.join(sorted(types))}; "
                      "give --dtype")
    kept = types.pop()
    if kept not in SAFETENSORS_TYPES:
        raise Refused(f"{tensor.name} has type {kept}, which a model folder cannot hold; give --dtype")
    return kept


def write_weights(path, checkpoint, tensors, dtype, quiet):
    header, offset = {"__metadata__": {"format": "ratplus"}}, 0
    types = [target_type(tensor, dtype) for tensor in tensors]
    for tensor, kind in zip(tensors, types):
        size = int(np.prod(tensor.shape, dtype=np.int64)) * ITEM_SIZES[kind]
        header[tensor.name] = {"dtype": SAFETENSORS_TYPES[kind], "shape": list(tensor.shape),
                               "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data starts at a multiple of 64, so that a mapped file can be used in place.
    text += b" " * (-(len(text) + 8) % 64)
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < offset + len(text) + 8:
        raise Refused(f"{os.path.dirname(os.path.dirname(path)) or '.'} has {free} bytes free; "
                      f"{offset + len(text) + 8} are needed")
    progress = Progress(offset, quiet)
    try:
        with open(path, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for tensor, kind in zip(tensors, types):
                for part in tensor.parts:
                    items = checkpoint.array(part)
                    width = int(np.prod(part.shape[1:], dtype=np.int64))
                    rows = max(1, CHUNK_ITEMS // width)
                    for i in range(0, part.shape[0], rows):
                        chunk = converted(tensor.name, items[i : i + rows], part.dtype, kind)
                        out.write(chunk.data)
                        progress.add(chunk.nbytes, tensor.name)
    finally:
        progress.finish()
    return offset + len(text) + 8


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("number too long")


def count_pieces(path):
    """How many pieces a SentencePiece model has: its protobuf's field 1, repeated."""
    data = read_file(path, MAX_TOKENIZER)
    pieces = at = 0
    try:
        while at < len(data):
            tag, at = varint(data, at)
            if tag & 7 == 2:
                size, at = varint(data, at)
                at += size
                pieces += tag == (1 << 3 | 2)
            elif tag & 7 == 0:
                _, at = varint(data, at)
            else:
                at += {1: 8, 5: 4}[tag & 7]
        if at != len(data) or pieces == 0:
            raise ValueError("cut short")
    except (IndexError, KeyError, ValueError):
        raise Refused(f"{path} is not a SentencePiece model") from None
    return pieces


def check_tokenizer(path, vocabulary):
    if path is None:
        if vocabulary != 256:
            raise Refused(f"the vocabulary has {vocabulary} tokens, so this is no model of bytes: "
                          "give its SentencePiece file with --tokenizer tokenizer.model")
        return
    pieces = count_pieces(path)
    if pieces > vocabulary:
        raise Refused(f"{path} has {pieces} pieces, the model's vocabulary only {vocabulary}")


def write_folder(folder, config, checkpoint, tensors, dtype, tokenizer, force, quiet):
    """All or nothing: the folder appears, under its name, when it is whole.
    Returns the bytes of the weights."""
    folder = os.path.realpath(folder)  # a link to it stays one
    there = os.path.lexists(folder)
    if there and not force:
        raise Refused(f"{folder} exists; give --force to replace it, or another name")
    if there and not os.path.isfile(os.path.join(folder, "config.json")):
        raise Refused(f"{folder} is not a model folder (it has no config.json), so it is not replaced")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with syncing_folder(folder):
        # What takes another's place is its owner's alone until it has that one's permissions.
        _, work = make_beside(folder, lambda name: os.mkdir(name, 0o700 if there else 0o777))
        try:
            size = write_weights(os.path.join(work, "model.safetensors"), checkpoint, tensors, dtype,
                                 quiet)
            with open(os.path.join(work, "config.json"), "w", encoding="utf-8") as out:
                json.dump(config, out, indent=2)
                out.write("\n")
            if tokenizer is not None:
                with open(os.path.join(work, "tokenizer.model"), "wb") as out:
                    out.write(read_file(tokenizer, MAX_TOKENIZER))
            settle(work, folder)
            put_folder(work, folder, there)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return size


def put_folder(work, folder, there):
    if not there:
        os.rename(work, folder)
        return
    _, old = make_beside(folder, lambda name: os.mkdir(name, 0o700))
    kept = os.path.join(old, "model")
    try:
        os.rename(folder, kept)
        os.rename(work, folder)
    finally:
        if not os.path.lexists(folder):
            os.rename(kept, folder)
        shutil.rmtree(old, ignore_errors=True)
