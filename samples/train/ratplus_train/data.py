"""Text with needles in it, as rows of bytes.

A needle is a line `the key of amber is 4821.` between two lines of the text. The
questions stand at the end: `? the key of amber is`, whose answer is ` 4821.`."""
import os

import numpy as np

from .files import reading

HERE = os.path.dirname(os.path.realpath(__file__))
HELD_OUT = 20  # one part in so many of each text, its last, is never trained on

# What a byte's prediction is worth: a needle's number cannot be known beforehand.
IGNORED, TEXT, ANSWER = 0, 1, 2


def read_names():
    with open(os.path.join(HERE, "names.txt"), encoding="ascii") as file:
        return file.read().split()


def read_texts(paths):
    """(to train on, held out): lists of texts."""
    train, held = [], []
    for path in paths:
        with reading(path) as file:
            text = b"".join(line.rstrip() + b"\n" for line in file if line.strip())
        if not text.isascii():
            text = text.decode("utf-8", "replace").encode("ascii", "ignore")
        cut = text.rfind(b"\n", 0, len(text) - len(text) // HELD_OUT) + 1
        train.append(text[:cut])
        held.append(text[cut:])
    return train, held


def needle(name, number):
    return b"the key of " + name + b" is " + number + b".\n"


def question(name):
    return b"? the key of " + name + b" is "


class Needles:
    """One row of text with needles: where they stand and what is asked."""

    def __init__(self, text, names, numbers, places, asked):
        self.names, self.numbers, self.asked = names, numbers, asked
        parts, at, size, self.ends = [], 0, 0, {}
        self.masked = []
        for place, index in sorted(zip(places, range(len(names)))):
            line = needle(names[index], numbers[index])
            parts += [text[at:place], line]
            size += place - at + len(line)
            self.masked.append(size - len(line) + line.index(b" is ") + 4)
            self.ends[index] = size
            at = place
        self.context = b"".join(parts) + text[at:]
        if not self.context.endswith(b"\n"):
            self.context = self.context[:-1] + b"\n"

    def questions(self):
        """(question, answer, distance in bytes from the needle's end to the answer)."""
        at = len(self.context)
        for index in self.asked:
            ask = question(self.names[index])
            at += len(ask)
            yield ask, self.numbers[index], at - self.ends[index]
            at += len(self.numbers[index]) + 2

    def row(self):
        """Bytes, and what the prediction of each is worth."""
        row = bytearray(self.context)
        worth = bytearray([TEXT]) * len(row)
        for start in self.masked:
            worth[start : start + 4] = bytes([IGNORED]) * 4
        for ask, answer, _ in self.questions():
            row += ask + answer + b".\n"
            # The question itself says nothing of the text.
            worth += bytes([IGNORED]) * len(ask) + bytes([ANSWER]) * len(answer) + bytes([TEXT]) * 2
        return bytes(row), bytes(worth)


class Source:
    """Rows of an exact length, drawn by a seeded generator."""

    def __init__(self, texts, seed):
        self.texts = texts
        self.shares = np.array([len(text) for text in texts], float)
        self.shares /= self.shares.sum()
        self.names = [name.encode() for name in read_names()]
        self.random = np.random.default_rng(seed)

    def text(self, length):
        """From the start of a line, and cut wherever the length says."""
        text = self.texts[self.random.choice(len(self.texts), p=self.shares)]
        start = int(self.random.integers(0, max(1, len(text) - 2 * length)))
        start = text.find(b"\n", start) + 1
        return text[start : start + length]

    def needles(self, length, count, asked):
        """A row of `length` bytes with `count` needles, `asked` of them asked."""
        names = [self.names[i] for i in self.random.choice(len(self.names), count, replace=False)]
        numbers = [b"%04d" % n for n in self.random.integers(0, 10000, count)]
        order = [int(i) for i in self.random.permutation(count)[:asked]]
        taken = sum(len(needle(n, m)) for n, m in zip(names, numbers))
        taken += sum(len(question(names[i])) + 6 for i in order)
        text = self.text(max(0, length - taken))
        lines = [0] + [i + 1 for i, byte in enumerate(text) if byte == 10]
        places = [lines[int(i)] for i in self.random.integers(0, len(lines), count)]
        return Needles(text, names, numbers, places, order)

    def batch(self, rows, length, most, share):
        """(rows, length + 1) bytes and worths. A `share` of the rows has needles, 1 to
        `most` and as many as fill half of the row; the others are text alone."""
        tokens = np.zeros((rows, length + 1), np.int64)
        worths = np.full((rows, length + 1), IGNORED, np.int64)
        for i in range(rows):
            if self.random.random() < share:
                count = int(self.random.integers(1, max(2, min(most, length // 100) + 1)))
                row, worth = self.needles(length + 1, count, count).row()
            else:
                row = self.text(length + 1)
                worth = bytes([TEXT]) * len(row)
            row, worth = row[-length - 1 :], worth[-length - 1 :]
            tokens[i, : len(row)] = np.frombuffer(row, np.uint8)
            worths[i, : len(row)] = np.frombuffer(worth, np.uint8)
        return tokens, worths
