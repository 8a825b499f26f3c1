"""Files are written as the converter writes them: regular ones, whole or not at all."""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "convert")]

from ratplus_convert.output import append_text, replacing  # noqa: E402, F401
