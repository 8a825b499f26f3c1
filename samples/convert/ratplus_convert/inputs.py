"""What is read from outside: regular files of bounded size, and JSON whose every field has a
type and a range. Whatever does not fit is refused with a sentence, in which a stranger's text
is short and printable."""
import errno
import json
import os
import stat

MAX_CONFIG = 1 << 20
MAX_INDEX = 16 << 20
MAX_TOKENIZER = 64 << 20
SHOWN = 60


class Refused(Exception):
    """The input cannot be converted; the text says why."""


def shown(value):
    """A value of JSON or of a pickle for a message: never long, and never walked through."""
    if isinstance(value, str):
        cut = "..." if len(value) > SHOWN else ""
        return json.dumps(value[:SHOWN] + cut)
    if value is None or isinstance(value, (bool, float)):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else "a number of more than 64 bits"
    kinds = {dict: "an object", list: "a list", tuple: "a tuple"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)),
                "of another type")


def plain(text):
    """A name for a message, without quotes."""
    return shown(text)[1:-1]


def check_regular(path, info):
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a regular file; folders, pipes and devices are not read",
                      path)


def open_regular(path):
    """A handle to read the file where the path leads. What is no regular file is not opened: that
    alone may wait, or do something. OSError with the path."""
    try:
        check_regular(path, os.stat(path))
        # Something else may have come there since: a pipe without a writer would have this wait.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a zero byte, or half a character
        raise OSError(errno.EINVAL, "no file can have this name", path) from None
    try:
        check_regular(path, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


class InputFile:
    """A regular file that is open for reading. It is never mapped: a file that somebody cuts
    short would end the process."""

    def __init__(self, path):
        self.path = path
        try:
            self.handle = open_regular(path)
        except OSError as e:
            raise Refused(f"{path}: {e.strerror}") from None
        self.size = os.fstat(self.handle).st_size

    def close(self):
        os.close(self.handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read_into(self, offset, buffer):
        """Fills `buffer`, a writable view of bytes, or refuses."""
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self.handle, [buffer[done:]], offset + done)
            except OSError as e:
                raise Refused(f"{self.path}: cannot be read: {e.strerror}") from None
            if got == 0:
                raise Refused(f"{self.path}: cut short: it ends at byte {offset + done}")
            done += got

    def read(self, offset, size):
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return data


def read_file(path, limit):
    with InputFile(path) as file:
        if file.size > limit:
            raise Refused(f"{path}: has {file.size} bytes; at most {limit} are read here")
        return bytes(file.read(0, file.size))


def parse_json(path, data):
    def unique(pairs):
        result = dict(pairs)
        if len(result) < len(pairs):
            seen = set()
            twice = next(k for k, _ in pairs if k in seen or seen.add(k))
            raise Refused(f"{path}: the key {shown(twice)} is there twice")
        return result

    def whole(text):
        if len(text) > 20:
            raise ValueError("a number of more than 20 digits")
        return int(text)

    def constant(text):
        raise ValueError(f"{text} is no number")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_int=whole,
                          parse_constant=constant)
    except ValueError as e:
        raise Refused(f"{path}: not JSON: {e}") from None
    except RecursionError:
        raise Refused(f"{path}: not JSON that can be read: it is nested too deeply") from None


class Fields:
    """The fields of a JSON object, each read by its type and range."""

    def __init__(self, path, item, name="", wanted="a JSON object"):
        if not isinstance(item, dict):
            what = f'"{plain(name)}" is {shown(item)}; it must be' if name else "not"
            raise Refused(f"{path}: {what} {wanted}")
        self.path, self.item, self.name = path, item, name

    def find(self, name):
        return self.item.get(name)

    def refuse(self, name, why):
        full = f"{self.name}.{name}" if self.name else name
        value = self.shown(name) if name in self.item else "missing"
        raise Refused(f'{self.path}: "{plain(full)}" is {value}; {why}')

    def shown(self, name):
        """The beginning of a field as JSON, which is a tree no larger than its file."""
        value = self.item[name]
        if not isinstance(value, (dict, list)):
            return shown(value)
        try:
            text = json.dumps(value, separators=(",", ":"))
        except RecursionError:
            return shown(value)
        return text[:SHOWN] + ("..." if len(text) > SHOWN else "")

    def whole(self, name, low, high):
        value = self.find(name)
        number = type(value) is int or (type(value) is float and value.is_integer())
        if not number or not low <= value <= high:
            self.refuse(name, f"it must be a whole number from {low} to {high}")
        return int(value)

    def number(self, name, low, high):
        value = self.find(name)
        if type(value) not in (int, float) or not low <= value <= high:
            self.refuse(name, f"it must be a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name):
        if type(self.find(name)) is not bool:
            self.refuse(name, "it must be true or false")
        return self.item[name]

    def choice(self, name, choices, why=""):
        if self.find(name) not in choices:
            self.refuse(name, "it must be " + " or ".join(f'"{c}"' for c in choices) + why)
        return self.item[name]

    def wholes(self, name, low, high, limit):
        """A list of `low` to `high` whole numbers from 0 to `limit`."""
        value = self.find(name)
        if (not isinstance(value, list) or not low <= len(value) <= high
                or not all(type(i) is int and 0 <= i <= limit for i in value)):
            self.refuse(name, f"it must be a list of {low} to {high} whole numbers from 0 to {limit}")
        return value

    def fields(self, name, wanted):
        return Fields(self.path, self.find(name), name, wanted)

    def only(self, *known):
        for name in self.item:
            if not name.startswith("_") and not any(name in names for names in known):
                self.refuse(name, "this program does not know the key, and it may change what the "
                            "model computes; remove it if it does not")
