"""A model of the samples in numpy, and its folder: GELU and Llama blocks, with memory and
without, in every type that weights may have, by the formulas alone."""
import json
import math
import os
import struct

import numpy as np

LAYERS, D, HEADS, VOCABULARY, EPS, THETA = 2, 32, 2, 256, 1e-6, 10000.0
SIZE = D // HEADS


class Attention:
    """What a configuration may change of it. `frequencies` has one a pair of channels that
    turns; the factor is on queries and keys where they turn."""

    def __init__(self, frequencies=None, factor=1.0, scale=SIZE**-0.5, softcap=0.0, style="half"):
        plain = THETA ** (-np.arange(0, SIZE, 2) / SIZE)
        self.frequencies = plain if frequencies is None else frequencies
        self.factor, self.scale, self.softcap, self.style = factor, scale, softcap, style

    def rotate(self, x):
        size = 2 * len(self.frequencies)
        angle = np.arange(len(x))[:, None] * self.frequencies
        cos, sin = np.cos(angle) * self.factor, np.sin(angle) * self.factor
        half = self.style == "half"
        first = slice(0, size // 2) if half else slice(0, size, 2)
        second = slice(size // 2, size) if half else slice(1, size, 2)
        a, b, out = x[:, first], x[:, second], x.copy()
        out[:, first], out[:, second] = a * cos - b * sin, b * cos + a * sin
        return out

    def scores(self, q, k):
        scores = self.rotate(q) @ self.rotate(k).T * self.scale
        return self.softcap * np.tanh(scores / self.softcap) if self.softcap else scores


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


def config_of(block, memory, feed_forward, **more):
    config = {"architecture": "ratplus", "layers": LAYERS, "d_model": D, "heads": HEADS,
              "kv_heads": HEADS, "head_size": SIZE, "feed_forward": feed_forward,
              "vocabulary": VOCABULARY, "context": 128, "norm_eps": EPS,
              "rope": {"style": "half", "theta": THETA}, "block": block, "tie_embedding": True,
              "tokenizer": "bytes"}
    if not memory:
        config["memory"] = False
    return {**config, **more}


def write_config(folder, config):
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)


def write_tensors(path, weights, dtype="F32"):
    """`weights` become what the file holds."""
    header, data = {}, b""
    for name, values in weights.items():
        stored, weights[name] = rounded(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def write_model(folder, weights, block, memory, feed_forward, dtype="F32", **more):
    write_config(folder, config_of(block, memory, feed_forward, **more))
    write_tensors(os.path.join(folder, "model.safetensors"), weights, dtype)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def attention(rows, memory, dilation, how):
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
        scores = np.where(seen, how.scores(q[:, part], k[:, part]), -np.inf)
        share = np.exp(scores - scores.max(1, keepdims=True))
        outs.append(share @ v[:, part] / share.sum(1, keepdims=True))
    out = np.concatenate(outs, 1)
    return out * sigmoid(o) if memory else out


def logits_of(weights, tokens, block, memory, dilation, how=Attention()):
    w = {name[:-len(".weight")]: values.astype(np.float64) for name, values in weights.items()}
    erf = np.vectorize(math.erf)
    x = w["embedding"][tokens]
    for i in range(LAYERS):
        layer = {name.split(".")[2]: v for name, v in w.items() if name.startswith(f"layers.{i}.")}
        rows = norm(x, layer["attention_norm"]) @ layer["in_proj"].T
        x = x + attention(rows, memory, dilation, how) @ layer["out_proj"].T
        y = norm(x, layer["ffn_norm"])
        if block == "llama":
            gate = y @ layer["gate_proj"].T
            x = x + (gate * sigmoid(gate) * (y @ layer["up_proj"].T)) @ layer["down_proj"].T
        else:
            up = y @ layer["fc1"].T
            x = x + (up * (1 + erf(up / math.sqrt(2))) / 2) @ layer["fc2"].T
    return norm(x, w["norm"]) @ w["embedding"].T


def worst_row(found, wanted):
    return (np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max()
