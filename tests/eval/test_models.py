"""The model that comes with the sources knows what its card says, dense, dilated and with
few keys that each query chooses; the plain one does not with as few.

Usage: test_models.py EVALUATOR MODELS
"""
import json
import math
import os
import subprocess
import sys
import tempfile

EVALUATOR, MODELS = sys.argv[1:]


def main():
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "rows.txt")
        with open(path, "w") as file:
            file.write("rat dense\nrat d16\nrat moba8k2\nrat streamw64s4\nplain moba8k2\n")
        out = subprocess.run([EVALUATOR, MODELS, "--rows", path, "--question-rows", "8",
                              "--text-bytes", "2048", "--device", "reference", "--json", "-"],
                             stdout=subprocess.PIPE, check=True).stdout
    rows = json.loads(out)["rows"]
    for row in rows:
        print(f"{row['model']}, {row['variant']}: perplexity {math.exp(row['nats']):.3f}, "
              f"{row['right']} of {row['asked']} answers")
    shares = [row["right"] / row["asked"] for row in rows]
    good = all(row["nats"] < 1.4 for row in rows) and min(shares[:3]) > 0.8 and max(shares[3:]) < 0.3
    return 0 if good else 1


sys.exit(main())
