"""Files are read and written as the converter does it: regular ones, and written whole or not at
all."""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "convert")]

from ratplus_convert.inputs import open_regular  # noqa: E402
from ratplus_convert.output import append_text, replacing  # noqa: E402, F401


def reading(path, mode="rb", **options):
    return os.fdopen(open_regular(path), mode, **options)


def save_figure(figure, path):
    """The end of the name says what kind of picture it is."""
    with replacing(path) as out:
        figure.savefig(out, format=os.path.splitext(path)[1][1:] or "png")
