#!/usr/bin/python3
"""Draws docs/patterns.svg, the picture in README.md: which keys a query attends.

Usage: patterns.py > patterns.svg
"""

TOKENS, CELL, GAP, TOP, LEFT = 32, 5, 26, 58, 20
PANEL = TOKENS * CELL
COLOURS = {"memory": "#e6e9ef", "dense": "#4c6a92", "dilated": "#d1772e", "window": "#4c6a92",
           "sinks": "#5a9e6f"}
WORDS = {"window": "attended: window, or all", "dilated": "attended: dilated",
         "sinks": "attended: sinks", "memory": "reached through the memory only"}


def dense():
    return lambda t, j: "dense"


def dilated(dilation, window=0, sinks=0):
    def kind(t, j):
        if j < sinks:
            return "sinks"
        if t - j <= window:
            return "window"
        return "dilated" if dilation and (j + 1) % dilation == 0 else "memory"
    return kind


def streaming(window, sinks):
    return dilated(0, window, sinks)


def matrix(x, y, cell, kind):
    """Rows are queries, columns are keys; neighbours of a kind make one rectangle."""
    shapes = {}
    for t in range(TOKENS):
        start = 0
        for j in range(1, t + 2):
            if j == t + 1 or kind(t, j) != kind(t, start):
                size = (j - start) * cell
                shapes.setdefault(kind(t, start), []).append(
                    f"M{x + start * cell:g} {y + t * cell:g}h{size:g}v{cell:g}h-{size:g}z")
                start = j
    side = TOKENS * cell
    paths = [f'<path fill="{COLOURS[k]}" d="{"".join(d)}"/>' for k, d in sorted(shapes.items())]
    return paths + [f'<rect x="{x}" y="{y}" width="{side:g}" height="{side:g}" class="f"/>']


def text(x, y, words, style=""):
    return f'<text x="{x:g}" y="{y:g}"{style}>{words}</text>'


def panel(index, title, detail, kind):
    x = LEFT + index * (PANEL + GAP)
    return [text(x, TOP - 26, title, ' class="h"'), text(x, TOP - 10, detail),
            *matrix(x, TOP, CELL, kind)]


def hybrid(index):
    """Four small matrices: each layer has its own variant."""
    x0, cell = LEFT + index * (PANEL + GAP), 2.25
    layers = [("0: dense", dense()), ("1: D=8", dilated(8)),
              ("2: D=8 W=4", dilated(8, 4, 2)), ("3: stream", streaming(6, 2))]
    out = [text(x0, TOP - 26, "hybrid layers", ' class="h"'), text(x0, TOP - 10, "a variant for each")]
    for n, (label, kind) in enumerate(layers):
        x, y = x0 + n % 2 * 92, TOP + n // 2 * 86
        out += matrix(x, y, cell, kind)
        out.append(text(x + TOKENS * cell, y + 10, label, ' class="s"'))
    return out


def picture():
    width = LEFT * 2 + 5 * PANEL + 4 * GAP + 10
    height = TOP + PANEL + 52
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'width="{width}" height="{height}" role="img" '
           'aria-label="Which keys each query attends, for five variants">',
           "<style>text{font:11px sans-serif;fill:#4a5160}.h{font-weight:bold;font-size:13px;"
           "fill:#20242c}.s{font-size:8px;text-anchor:end}"
           ".f{fill:none;stroke:#c3c8d2;stroke-width:.75}</style>",
           f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>']
    out += panel(0, "dense", "every key so far", dense())
    out += panel(1, "dilated", "D=8: every 8th key", dilated(8))
    out += panel(2, "dilated, window, sinks", "D=8, W=5, S=2", dilated(8, 5, 2))
    out += panel(3, "streaming", "W=9, S=2", streaming(9, 2))
    out += hybrid(4)
    x, y = LEFT, TOP + PANEL + 30
    for name, words in WORDS.items():
        out.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{COLOURS[name]}"/>')
        out.append(text(x + 16, y, words))
        x += 34 + 6 * len(words)
    out.append(text(width - LEFT - 10, y, "rows: queries, columns: keys", ' text-anchor="end"'))
    return "\n".join(out + ["</svg>"])


if __name__ == "__main__":
    print(picture())
