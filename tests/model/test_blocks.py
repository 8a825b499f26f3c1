"""Every kind of model through ratplus-run, against the formulas in numpy: GELU and
Llama blocks, with memory and without, in every type that weights may have.

Usage: test_blocks.py RUNNER vulkan|reference
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

RUNNER, DEVICE = sys.argv[1:]
LAYERS, D, HEADS, VOCABULARY, EPS, THETA = 2, 32, 2, 256, 1e-6, 10000.0
SIZE = D // HEADS
TOKENS = 70
BOUND = 1e-3


def weights_of(random, block, memory, feed_forward):
    shapes = {"embedding": (VOCABULARY, D), "norm": (D,)}
    for i in range(LAYERS):
        parts = {"attention_norm": (D,), "in_proj": ((5 if memory else 3) * D, D),
                 "out_proj": (D, D), "ffn_norm": (D,)}
        if block == "llama":
            parts.update(gate_proj=(feed_forward, D), up_proj=(feed_forward, D),
                         down_proj=(D, feed_forward))
        else:
            parts.update(fc1=(feed_forward, D), fc2=(D, feed_forward))
        shapes.update({f"layers.{i}.{name}": shape for name, shape in parts.items()})
    return {name + ".weight": random.normal(0.0 if len(shape) == 2 else 1.0, 0.3, shape)
            .astype("<f4") for name, shape in shapes.items()}


def as_bfloat16(values):
    """The upper halves of float32; the lower ones are cut off, which is a rounding too."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def rounded(values, dtype):
    """The bytes that a file holds, and the numbers that they stand for."""
    if dtype == "F16":
        stored = values.astype("<f2")
        return stored.tobytes(), stored.astype("<f4")
    if dtype == "BF16":
        stored = as_bfloat16(values)
        return stored.tobytes(), (stored.astype("<u4") << 16).view("<f4")
    return values.astype("<f4").tobytes(), values


def write_model(folder, weights, block, memory, feed_forward, dtype="F32"):
    config = {"architecture": "ratplus", "layers": LAYERS, "d_model": D, "heads": HEADS,
              "kv_heads": HEADS, "head_size": SIZE, "feed_forward": feed_forward,
              "vocabulary": VOCABULARY, "context": 128, "norm_eps": EPS,
              "rope": {"style": "half", "theta": THETA}, "block": block, "tie_embedding": True,
              "tokenizer": "bytes"}
    if not memory:
        config["memory"] = False
    header, data = {}, b""
    for name, values in weights.items():
        stored, weights[name] = rounded(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def rotate(x):
    angle = np.arange(len(x))[:, None] * THETA ** (-np.arange(0, SIZE, 2) / SIZE)
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def attention(rows, memory, dilation):
    parts = np.split(rows, 5 if memory else 3, axis=1)
    o, (q, k, v) = (parts[0], parts[1:4]) if memory else (None, parts)
    if memory:
        gate, k, v = sigmoid(parts[4]), k.copy(), v.copy()
        for x in (k, v):
            x[0] *= 1 - gate[0]
            for t in range(1, len(x)):
                x[t] = gate[t] * x[t - 1] + (1 - gate[t]) * x[t]
    t = np.arange(len(q))
    seen = (t <= t[:, None]) & (((t + 1) % dilation == 0) | (t == t[:, None]))
    outs = []
    for head in range(HEADS):
        part = slice(head * SIZE, (head + 1) * SIZE)
        scores = rotate(q[:, part]) @ rotate(k[:, part]).T / math.sqrt(SIZE)
        scores = np.where(seen, scores, -np.inf)
        share = np.exp(scores - scores.max(1, keepdims=True))
        outs.append(share @ v[:, part] / share.sum(1, keepdims=True))
    out = np.concatenate(outs, 1)
    return out * sigmoid(o) if memory else out


def logits_of(weights, tokens, block, memory, dilation):
    w = {name[:-len(".weight")]: values.astype(np.float64) for name, values in weights.items()}
    erf = np.vectorize(math.erf)
    x = w["embedding"][tokens]
    for i in range(LAYERS):
        layer = {name.split(".")[2]: v for name, v in w.items() if name.startswith(f"layers.{i}.")}
        rows = norm(x, layer["attention_norm"]) @ layer["in_proj"].T
        x = x + attention(rows, memory, dilation) @ layer["out_proj"].T
        y = norm(x, layer["ffn_norm"])
        if block == "llama":
            gate = y @ layer["gate_proj"].T
            x = x + (gate * sigmoid(gate) * (y @ layer["up_proj"].T)) @ layer["down_proj"].T
        else:
            up = y @ layer["fc1"].T
            x = x + (up * (1 + erf(up / math.sqrt(2))) / 2) @ layer["fc2"].T
    return norm(x, w["norm"]) @ w["embedding"].T


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
                worst = (np.linalg.norm(found - wanted, axis=1) /
                         np.linalg.norm(wanted, axis=1)).max()
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
