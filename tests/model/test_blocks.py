"""Every kind of model through ratplus-run, against the formulas in numpy: GELU and
Llama blocks, with memory and without, in every type that weights may have.

Usage: test_blocks.py RUNNER vulkan|reference
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

from numpy_model import VOCABULARY, logits_of, weights_of, worst_row, write_model

RUNNER, DEVICE = sys.argv[1:]
TOKENS = 70
BOUND = 1e-3


def run(work, *arguments):
    options = ["--validate"] if DEVICE == "vulkan" else ["--device", DEVICE]
    path = os.path.join(work, "logits.bin")
    result = subprocess.run(
        [RUNNER, work, "--tokens-file", os.path.join(work, "tokens.bin"), "--tokens", "0",
         "--cache-dtype", "f32", "--logits", path, *options, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode:
        return None, result.stderr.decode()
    return np.fromfile(path, "<f4").reshape(TOKENS, VOCABULARY), ""


def main():
    random = np.random.default_rng(5)
    tokens = random.integers(0, VOCABULARY, TOKENS)
    good = True
    with tempfile.TemporaryDirectory() as work:
        tokens.astype("<i4").tofile(os.path.join(work, "tokens.bin"))
        for block, memory, feed_forward, dtype in (
                ("gelu", True, 64, "F32"), ("gelu", False, 80, "F16"), ("llama", True, 48, "F32"),
                ("llama", True, 88, "BF16"), ("llama", False, 56, "F16"),
                ("gelu", True, 24, "BF16")):
            weights = weights_of(random, block, memory, feed_forward)
            write_model(work, weights, block, memory, feed_forward, dtype)
            for dilation, name, prompt in ((1, "dense", TOKENS), (4, "d4", 61)):
                found, errors = run(work, "--variant", name, "--prompt-tokens", str(prompt))
                if found is None:
                    sys.exit(errors)
                wanted = logits_of(weights, tokens, block, memory, dilation)
                worst = worst_row(found, wanted)
                print(f"{block}, {'memory' if memory else 'plain'}, {dtype}, {name}: relative error of the "
                      f"worst row {worst:.1e}")
                good = good and worst <= BOUND
        # The weights say otherwise than config.json: refused, by name.
        weights = weights_of(random, "llama", False, 56)
        write_model(work, weights, "llama", True, 56)
        found, errors = run(work)
        good = good and found is None and '"layers.0.in_proj.weight" has the shape' in errors
        write_model(work, weights, "gelu", False, 56)
        found, errors = run(work)
        good = good and found is None and '"layers.0.fc1.weight" is missing' in errors
    return 0 if good else 1


sys.exit(main())
