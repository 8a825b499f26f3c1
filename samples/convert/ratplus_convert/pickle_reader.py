"""Reads the pickle of a torch checkpoint, and nothing else that a pickle can be.

A pickle is a program. Python's own reader runs all of them, some of which ask for unbounded
memory or time with a few bytes. This one knows the operations that torch.save writes, and
the few names that a dictionary of tensors is made of; each operation takes as much time and
memory as its own bytes do, and their number is bounded.
"""
import collections
import struct
from typing import NamedTuple

from .inputs import Refused, plain, shown

MAX_PICKLE = 16 << 20
MAX_OPERATIONS = 2_000_000
MAX_STACK = 100_000
MAX_MARKS = 1000
MAX_NAME = 256
MAX_SIZES = 8
MAX_NUMBER = 1 << 62
MAX_KEY = 1 << 31


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


def make_tensor(storage, offset, shape, strides, *_):
    """Stands in for torch._utils._rebuild_tensor_v2."""
    for sizes in (shape, strides):
        if not isinstance(sizes, (tuple, list)) or len(sizes) > MAX_SIZES:
            raise Refused(f"the checkpoint describes a tensor with more than {MAX_SIZES} sizes")
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(
            type(n) is int and 0 <= n < MAX_NUMBER for n in numbers):
        raise Refused("the checkpoint describes a tensor with a foreign storage or a negative size")
    tensor = Tensor(storage, offset, tuple(shape), tuple(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise Refused("the checkpoint describes a tensor with more sizes than strides")
    count, room = 1, storage.type.item_size
    for n in tensor.shape:
        count *= n
        room *= max(n, 1)
    # No array can have such a shape, though it may have no items.
    if not count and room >= MAX_NUMBER:
        raise Refused("the checkpoint describes a tensor without items whose other sizes are beyond "
                      "any memory")
    if count and tensor.last_item >= storage.items:
        raise Refused(f"the checkpoint describes a tensor that reaches item {tensor.last_item} of "
                      f"storage {plain(storage.record)}, which holds {storage.items}")
    if count > storage.items:
        raise Refused(f"the checkpoint describes a tensor of {count} items over storage "
                      f"{plain(storage.record)}, which holds {storage.items}")
    return tensor


def make_parameter(tensor, *_):
    """Stands in for torch._utils._rebuild_parameter."""
    if not isinstance(tensor, Tensor):
        raise Refused("the checkpoint describes a parameter that is no tensor")
    return tensor


def make_dictionary(*items):
    if items:
        raise Refused("the checkpoint's pickle makes a dictionary of other things; torch.save fills "
                      "an empty one")
    return collections.OrderedDict()


CALLABLE = {
    ("collections", "OrderedDict"): make_dictionary,
    ("torch._utils", "_rebuild_tensor_v2"): make_tensor,
    ("torch._utils", "_rebuild_parameter"): make_parameter,
}
NAMED = {**CALLABLE, **{("torch", name): kind for name, kind in STORAGE_TYPES.items()}}

# What an operation of a fixed form pushes.
CONSTANTS = {b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False, b")": tuple,
             b"]": list, b"}": dict}
NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
# The form of the length before text or bytes.
TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q", b"U": "<B", b"T": "<I"}
BYTES = {b"C": "<B", b"B": "<I", b"\x8e": "<Q"}
TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
PUTS = {b"q": "<B", b"r": "<I"}
GETS = {b"h": "<B", b"j": "<I"}


class PickleReader:
    """`read()` returns what the pickle describes. `file_size` bounds what storages announce."""

    def __init__(self, data, file_size):
        self.data, self.file_size = data, file_size
        self.at = 0
        self.stack, self.marks, self.memo = [], [], {}

    def malformed(self, why):
        raise Refused(f"the checkpoint's pickle is malformed at byte {self.at}: {why}")

    def take(self, size):
        if size > len(self.data) - self.at:
            self.malformed("it is cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.data.find(b"\n", self.at, self.at + MAX_NAME)
        if end < 0:
            self.malformed("a name without an end")
        text = self.take(end - self.at).decode("utf-8", "replace")
        self.at += 1
        return text

    def push(self, item):
        if len(self.stack) == MAX_STACK:
            self.malformed(f"more than {MAX_STACK} things at once")
        self.stack.append(item)

    def pop(self):
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.malformed("it takes what is not there")
        return self.stack.pop()

    def pop_to_mark(self):
        if not self.marks:
            self.malformed("a list has no beginning")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def top(self, kind, name):
        if not self.stack or not isinstance(self.stack[-1], kind):
            self.malformed(f"there is no {name} to fill")
        return self.stack[-1]

    def append(self, items):
        self.top(list, "list").extend(items)

    def set_items(self, items):
        target = self.top(dict, "dictionary")
        if len(items) % 2:
            self.malformed("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            # Others can take exponential time to look up, or be made to fall into one place.
            number = isinstance(key, int) and abs(key) < MAX_KEY
            if not number and not isinstance(key, (str, bytes, type(None))):
                self.malformed("a dictionary's key is neither text nor a small whole number")
            target[key] = value

    def find(self, module, name):
        found = NAMED.get((module, name)) if isinstance(module, str) else None
        if found is None:
            raise Refused(f"the checkpoint's pickle names {plain(module)}.{plain(name)}, which is no "
                          "part of a dictionary of tensors; nothing of it was run")
        return found

    def call(self):
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or function not in CALLABLE.values():
            self.malformed("it calls what is no function of a dictionary of tensors")
        try:
            return function(*arguments)
        except TypeError:
            return self.malformed("a function lacks an argument")

    def storage(self):
        pid = self.pop()
        well_formed = (isinstance(pid, tuple) and len(pid) == 5 and isinstance(pid[0], str)
                       and pid[0] == "storage" and isinstance(pid[1], StorageType)
                       and isinstance(pid[2], str) and type(pid[4]) is int and pid[4] >= 0)
        if not well_formed:
            raise Refused(f"the checkpoint's pickle refers to what is {shown(pid)}, and not a tensor "
                          "storage")
        if pid[4] * pid[1].item_size > self.file_size:
            raise Refused(f"the checkpoint announces a storage of {shown(pid[4])} items of "
                          f"{pid[1].name}, more than the file's {self.file_size} bytes")
        return Storage(pid[2], pid[1], pid[4])

    def step(self, op):
        """One operation but the last."""
        if op in CONSTANTS:
            self.push(CONSTANTS[op]())
        elif op in NUMBERS:
            self.push(self.number(NUMBERS[op]))
        elif op in TEXTS:
            self.push(self.take(self.number(TEXTS[op])).decode("utf-8", "replace"))
        elif op in BYTES:
            self.push(self.take(self.number(BYTES[op])))
        elif op == b"\x8a":
            self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))
        elif op in PUTS or op == b"\x94":
            if not self.stack:
                self.malformed("it keeps what is not there")
            self.memo[self.number(PUTS[op]) if op in PUTS else len(self.memo)] = self.stack[-1]
        elif op in GETS:
            place = self.number(GETS[op])
            if place not in self.memo:
                self.malformed("it refers to what was not kept")
            self.push(self.memo[place])
        elif op == b"(":
            if len(self.marks) == MAX_MARKS:
                self.malformed(f"it is nested more than {MAX_MARKS} deep")
            self.marks.append(len(self.stack))
        elif op in TUPLES:
            self.push(tuple(reversed([self.pop() for _ in range(TUPLES[op])])))
        elif op == b"t":
            self.push(tuple(self.pop_to_mark()))
        elif op == b"a":
            self.append([self.pop()])
        elif op == b"e":
            self.append(self.pop_to_mark())
        elif op == b"s":
            self.set_items([self.pop(), self.pop()][::-1])
        elif op == b"u":
            self.set_items(self.pop_to_mark())
        elif op == b"c":
            self.push(self.find(self.line(), self.line()))
        elif op == b"\x93":
            name, module = self.pop(), self.pop()
            self.push(self.find(module, name) if isinstance(name, str) else self.find("?", "?"))
        elif op == b"R":
            self.push(self.call())
        elif op == b"Q":
            self.push(self.storage())
        elif op == b"b":
            # Attributes of a dictionary, such as a state_dict's versions of modules.
            self.pop()
            self.top(dict, "dictionary")
        elif op == b"\x80":
            self.take(1)
        elif op == b"\x95":
            self.take(8)
        else:
            self.malformed(f"operation {op.hex()} is none that torch.save writes")

    def read(self):
        for _ in range(MAX_OPERATIONS):
            op = self.take(1)
            if op == b".":
                return self.pop()
            self.step(op)
        return self.malformed(f"more than {MAX_OPERATIONS} operations")
