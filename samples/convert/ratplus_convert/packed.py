"""A RAT+ model with Llama's blocks as a GGUF of the Llama architecture, for llama.cpp
with the ratplus backend.

The architecture knows no gates, but a head of twice the size has room for them: keys are
[k | f], values [v | o], queries [q | marker], and the output projection reads the first
half alone. The host turns (rotates) whole heads, neighbours by neighbours: with the square
of the base, the first half turns as a head of the model's own size does; the second half
turns as well, and the backend turns f back.

The marker is a bias, (MARKER, 0) in each pair of channels. After its turn it tells the
backend that this is such a file, which position the host gave the token and that the base
is right. Without the backend it drowns what q and k say, so that nobody takes the text that
then comes out for the model's.
"""
import os

import numpy as np

from .config import read_config
from .gguf_file import write_gguf
from .model_folder import converted, is_finite, to_float32
from .inputs import Refused, plain
from .safetensors import Weights

MARKER = 64.0
# Packed heads are twice as large, and the file holds the square of the base as a float32.
MAX_HEAD_SIZE = 128
MAX_THETA = 1e18
# The backend keeps a token's position in the channels of all heads together.
LEAST_CHANNELS = 32
IN_PROJ = ("o", "q", "k", "v", "f")

DESCRIPTION = (
    "A RAT+ model in packed form: forget gates lie in the keys, output gates in the values. It "
    "needs llama.cpp with the ratplus backend (GGML_BACKEND_PATH=libggml-ratplus.so) and a policy "
    'file (RATPLUS_POLICY) that holds "memory": {{"packed": true, "theta": {theta:g}}}. '
    "WITHOUT THEM IT IS NOT A WORKING MODEL: any llama.cpp loads it, and writes nonsense.")


def byte_tokens():
    """Token i is byte i. llama.cpp writes a space as U+2581 before it looks for it."""
    texts = [f"<0x{byte:02X}>" for byte in range(256)]
    texts[0x20] = "\u2581"
    kinds = [6] * 256  # a byte
    kinds[0x20] = 1  # an ordinary piece
    return texts, kinds


def metadata(config, name):
    theta, size = config.theta, config.head_size
    texts, kinds = byte_tokens()
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": f"{name} (RAT+, packed: NEEDS the ratplus backend)",
        "general.description": DESCRIPTION.format(theta=theta),
        "ratplus.packed": True,
        "ratplus.head_size": size,
        "ratplus.rope_theta": theta,
        "ratplus.marker": MARKER,
        "llama.block_count": config.layers,
        "llama.context_length": config.context,
        "llama.embedding_length": config.d_model,
        "llama.feed_forward_length": config.feed_forward,
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.heads,
        "llama.attention.key_length": 2 * size,
        "llama.attention.value_length": 2 * size,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.rope.dimension_count": 2 * size,
        "llama.rope.freq_base": theta * theta,
        "llama.vocab_size": 256,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [0.0] * 256,
        "tokenizer.ggml.token_type": kinds,
        # Bytes that no text holds; the architecture wants numbers for these.
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def pairs(size, style):
    """Which channel of a head comes first, second, ... when a pair lies side by side."""
    if style == "interleaved":
        return np.arange(size)
    return np.arange(size).reshape(2, size // 2).T.reshape(-1)


def packed_layer(in_proj, out_proj, heads, size, order):
    """float32 [5 * heads * size][d_model] and [d_model][heads * size] to the weights of q, k, v
    and of the output, with heads of 2 * size, and the bias of q."""
    width = in_proj.shape[1]
    part = {name: rows.reshape(heads, size, width)[:, order]
            for name, rows in zip(IN_PROJ, np.split(in_proj, len(IN_PROJ)))}
    nothing = np.zeros_like(part["q"])

    def head_rows(first, second):
        return np.concatenate([first, second], axis=1).reshape(2 * heads * size, width)

    # The host divides by sqrt(2 * size), the model by sqrt(size).
    q = head_rows(part["q"] * np.float32(np.sqrt(2)), nothing)
    bias = np.zeros((heads, 2, size), np.float32)
    bias[:, 1, 0::2] = MARKER
    out = np.zeros((width, heads, 2, size), np.float32)
    out[:, :, 0] = out_proj.reshape(width, heads, size)[:, :, order]
    return (q, bias.reshape(-1), head_rows(part["k"], part["f"]), head_rows(part["v"], part["o"]),
            out.reshape(width, 2 * heads * size))


class Packer:
    """Collects the GGUF's tensors from a model folder's."""

    def __init__(self, config, weights, dtype):
        self.config, self.weights, self.dtype = config, weights, dtype
        self.tensors = []

    def put(self, name, source, items, kind, target):
        self.tensors.append((name, target, converted(source, items, kind, target)))

    def matrix(self, name, source, *shape):
        kind, items = self.weights.take(source, *shape)
        self.put(name, source, items, kind, kind if self.dtype == "keep" else self.dtype)

    # llama.cpp wants its vectors in float32.
    def vector(self, name, source, size):
        kind, items = self.weights.take(source, size)
        self.put(name, source, items, kind, "float32")

    def attention(self, block, layer):
        heads, size, width = self.config.heads, self.config.head_size, self.config.d_model
        parts = []
        for source, shape in (("in_proj", (len(IN_PROJ) * width, width)),
                              ("out_proj", (width, width))):
            kind, items = self.weights.take(f"{layer}{source}.weight", *shape)
            if not is_finite(items, kind):
                raise Refused(f"{layer}{source}.weight holds NaN or Inf")
            parts.append(to_float32(np.ascontiguousarray(items), kind))
        target = kind if self.dtype == "keep" else self.dtype
        order = pairs(size, self.config.style)
        q, bias, k, v, out = packed_layer(*parts, heads, size, order)
        for name, items in (("q", q), ("k", k), ("v", v), ("output", out)):
            name = f"{block}attn_{name}.weight"
            self.put(name, name, items, "float32", target)
        self.put(f"{block}attn_q.bias", "marker", bias, "float32", "float32")

    def run(self):
        c = self.config
        width, feed = c.d_model, c.feed_forward
        self.matrix("token_embd.weight", "embedding.weight", c.vocabulary, width)
        self.vector("output_norm.weight", "norm.weight", width)
        if not c.tie_embedding:
            self.matrix("output.weight", "head.weight", c.vocabulary, width)
        for i in range(c.layers):
            block, layer = f"blk.{i}.", f"layers.{i}."
            self.vector(block + "attn_norm.weight", layer + "attention_norm.weight", width)
            self.attention(block, layer)
            self.vector(block + "ffn_norm.weight", layer + "ffn_norm.weight", width)
            self.matrix(block + "ffn_gate.weight", layer + "gate_proj.weight", feed, width)
            self.matrix(block + "ffn_up.weight", layer + "up_proj.weight", feed, width)
            self.matrix(block + "ffn_down.weight", layer + "down_proj.weight", width, feed)
        if self.weights.left:
            raise Refused(f"{self.weights.path} holds tensors that have no place in this model: "
                          + ", ".join(map(plain, sorted(self.weights.left)[:8])))
        return self.tensors


def write_packed(folder, path, dtype, force):
    """Makes the GGUF `path` of the model in `folder`; returns its bytes."""
    config = read_config(folder, MAX_HEAD_SIZE, MAX_THETA)
    if config.d_model < LEAST_CHANNELS:
        raise Refused(f'{folder}: "d_model" is {config.d_model}; the backend needs at least '
                      f"{LEAST_CHANNELS} channels")
    name = os.fsencode(os.path.basename(os.path.abspath(folder))).decode("utf-8", "replace")
    weights = Weights(folder)
    try:
        tensors = Packer(config, weights, dtype).run()
    finally:
        weights.close()
    return write_gguf(path, metadata(config, name), tensors, force)
