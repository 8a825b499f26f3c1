"""What ratplus-eval asks: rows of held-out text with needles, and held-out text."""
import json
import os

from .data import Source, read_texts
from .files import replacing

# Needles in a row, in turns.
COUNTS = (1, 2, 4, 8)


def row_object(row):
    questions, before = [], ""
    for ask, answer, distance in row.questions():
        questions.append({"ask": before + ask.decode("ascii"), "answer": answer.decode("ascii"),
                          "distance": distance})
        before = ".\n"
    return {"text": row.context.decode("ascii"), "needles": len(row.names), "questions": questions}


def write_questions(folder, paths, context, rows, text_bytes, seed):
    _, held_out = read_texts(paths)
    source = Source(held_out, seed)
    os.makedirs(folder, exist_ok=True)
    with replacing(os.path.join(folder, "questions.jsonl"), "w", encoding="ascii") as file:
        for i in range(rows):
            count = COUNTS[i % len(COUNTS)]
            file.write(json.dumps(row_object(source.needles(context, count, count))) + "\n")
    share = text_bytes // len(held_out)
    with replacing(os.path.join(folder, "held-out.txt")) as file:
        for text in held_out:
            file.write(text[: text.rfind(b"\n", 0, share) + 1])
