"""The authors' model, converted, through ratplus-run: its logits against those
that the authors' code gave in float64, in every mode of the golden file.

Usage: test_model.py RUNNER CONVERTER CHECKPOINT GOLDEN vulkan|reference
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


class Model:
    """The checkpoint converted to one type, and its logits on one device."""

    def __init__(self, work, meta, tokens, dtype):
        self.work, self.meta = work, meta
        self.folder = self.path("model-" + dtype)
        subprocess.run([CONVERTER, CHECKPOINT, self.folder, "--heads", str(meta["heads"]),
                        "--dtype", dtype, "--quiet"], check=True)
        tokens.astype("<i4").tofile(self.path("tokens.bin"))

    def path(self, name):
        return os.path.join(self.work, name)

    def logits(self, mode, device, retention, chunk):
        with open(self.path("policy.json"), "w") as file:
            json.dump(policy(mode, self.meta["layers"]), file)
        code, _, errors = run(
            self.folder, "--tokens-file", self.path("tokens.bin"), "--tokens", "0",
            "--prompt-tokens", str(self.meta["prompt"]), "--policy", self.path("policy.json"),
            "--cache-dtype", "f32", "--retention", retention, "--chunk", str(chunk),
            "--logits", self.path("logits.bin"),
            *(["--validate"] if device == "vulkan" else ["--device", device]))
        if code:
            raise RuntimeError(errors.strip())
        return np.fromfile(self.path("logits.bin"), "<f4")


def judge(name, logits, wanted):
    """The error of every row, within the bound; whether it is."""
    shape = (-1, 256)
    wanted = wanted.astype(np.float64).reshape(shape)
    errors = (np.linalg.norm(logits.astype(np.float64).reshape(shape) - wanted, axis=1) /
              np.linalg.norm(wanted, axis=1))
    print(f"{name}: relative error of the worst row {errors.max():.1e}")
    return bool(errors.max() <= BOUND)


def main():
    tensors, meta = read_safetensors(GOLDEN)
    good = True
    with tempfile.TemporaryDirectory() as work:
        model = Model(work, meta, tensors["tokens"], "keep")
        for mode in meta["modes"]:
            for retention, chunk in (("needed", 512), ("full", 33)):
                logits = model.logits(mode, DEVICE, retention, chunk)
                name = f"{mode['name']}, {retention}, chunks of {chunk}"
                good = judge(name, logits, tensors["logits." + mode["name"]]) and good
        # Rounded weights have no golden logits, but every engine must read them alike.
        for dtype in ("float16", "bfloat16") if DEVICE == "vulkan" else ():
            model = Model(work, meta, tensors["tokens"], dtype)
            mode = meta["modes"][2]
            both = [model.logits(mode, device, "needed", 33) for device in (DEVICE, "reference")]
            good = judge(f"weights of {dtype}, against the reference", *both) and good
    return 0 if good else 1


sys.exit(main())
