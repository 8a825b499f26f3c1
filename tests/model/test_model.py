"""The authors' model, converted, through ratplus-run: its logits against those
that the authors' code gave in float64, in every mode of the golden file.

Usage: test_model.py RUNNER CONVERTER CHECKPOINT GOLDEN DEVICE
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

RUNNER, CONVERTER, CHECKPOINT, GOLDEN, DEVICE = sys.argv[1:]
BOUND = 2e-4
SKIPPED = 77


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    types = {"F32": "<f4", "I32": "<i4"}
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[8 + size + first : 8 + size + last]
        tensors[name] = np.frombuffer(raw, types[entry["dtype"]]).reshape(entry["shape"])
    return tensors, json.loads(metadata["meta"])


def variant(dilation, window, sinks):
    if dilation == 1:
        return {"kind": "dense"}
    if dilation < 0:
        return {"kind": "streaming", "window": window, "sinks": sinks}
    return {"kind": "dilated", "dilation": dilation, "window": window, "sinks": sinks}


def policy(mode, layers):
    """A mode's numbers are one for all layers, or a list with one a layer."""
    parts = [mode[name] for name in ("dilation", "window", "sinks")]
    rows = [[part[i] if isinstance(part, list) else part for part in parts] for i in range(layers)]
    return {"rules": [{"layers": i, "variant": variant(*row)} for i, row in enumerate(rows)]}


def run(*arguments):
    result = subprocess.run([RUNNER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def main():
    tensors, meta = read_safetensors(GOLDEN)
    tokens = tensors["tokens"].reshape(-1)
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, "model")
        subprocess.run([CONVERTER, CHECKPOINT, model, "--heads", str(meta["heads"]), "--quiet"],
                       check=True)
        tokens_file = os.path.join(work, "tokens.bin")
        policy_file = os.path.join(work, "policy.json")
        logits_file = os.path.join(work, "logits.bin")
        tokens.astype("<i4").tofile(tokens_file)
        common = [model, "--tokens-file", tokens_file, "--tokens", "0", "--device", DEVICE,
                  "--cache-dtype", "f32", "--policy", policy_file, "--logits", logits_file]
        if DEVICE != "reference":
            # The engine must not stand in for a device that is not there.
            code, _, errors = run(*common[:5], "--device", DEVICE)
            if code and "there is no Vulkan" in errors:
                print(errors)
                return SKIPPED
            common.append("--validate")
        cases = [(mode, retention, chunk) for mode in meta["modes"]
                 for retention, chunk in (("needed", "512"), ("full", "33"))]
        for mode, retention, chunk in cases:
            with open(policy_file, "w") as file:
                json.dump(policy(mode, meta["layers"]), file)
            code, _, errors = run(*common, "--prompt-tokens", str(meta["prompt"]),
                                  "--retention", retention, "--chunk", chunk)
            name = f"{mode['name']}, {retention}, chunks of {chunk}"
            if code:
                print(f"{name}: {errors.strip()}")
                failed += 1
                continue
            logits = np.fromfile(logits_file, "<f4").astype(np.float64)
            golden = tensors["logits." + mode["name"]].astype(np.float64).reshape(-1)
            error = np.linalg.norm(logits - golden) / np.linalg.norm(golden)
            worst = max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in
                        zip(logits.reshape(len(tokens), -1), golden.reshape(len(tokens), -1)))
            print(f"{name}: relative error {error:.2e}, of the worst row {worst:.2e}")
            if not worst <= BOUND:
                failed += 1
    return 1 if failed else 0


sys.exit(main())
