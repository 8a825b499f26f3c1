"""The README shows samples/embed/embed.c as it is. Usage: readme.py README EMBED"""
import sys
from pathlib import Path

readme, embed = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])
if "```c\n" + embed + "```" not in readme:
    sys.exit("README.md does not contain samples/embed/embed.c word for word in a ```c block")
