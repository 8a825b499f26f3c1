"""The model: RAT+ or plain attention, with the authors' or Llama's feed-forward."""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Variant, attend, rope_table, rotate
from .memory import memory


@dataclasses.dataclass
class Shape:
    """What config.json says of a model."""

    layers: int = 4
    d_model: int = 128
    heads: int = 4
    feed_forward: int = 512
    context: int = 1024
    vocabulary: int = 256
    block: str = "gelu"
    memory: bool = True
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    @property
    def head_size(self):
        return self.d_model // self.heads


def default_feed_forward(block, d_model, with_memory):
    """As many parameters for every kind of model: a plain one lacks the rows of both
    gates, 2 d_model^2, and SwiGLU has three matrices where GELU has two."""
    matrices = 3 if block == "llama" else 2
    units = (8 if with_memory else 10) * d_model // matrices
    return (units + 15) // 16 * 16


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, ff = shape.d_model, shape.feed_forward
        self.shape = shape
        self.attention_norm = Norm(d, shape.norm_eps)
        self.in_proj = nn.Linear(d, (5 if shape.memory else 3) * d, bias=False)
        self.out_proj = nn.Linear(d, d, bias=False)
        self.ffn_norm = Norm(d, shape.norm_eps)
        if shape.block == "llama":
            self.gate_proj = nn.Linear(d, ff, bias=False)
            self.up_proj = nn.Linear(d, ff, bias=False)
            self.down_proj = nn.Linear(ff, d, bias=False)
        else:
            self.fc1 = nn.Linear(d, ff, bias=False)
            self.fc2 = nn.Linear(ff, d, bias=False)

    def attention(self, x, parts, table):
        """parts: (rows of the batch, variant) in order. The memory, which every
        variant shares, runs once over all of them."""
        batch, tokens, d = x.shape
        heads, size = self.shape.heads, self.shape.head_size
        rows = self.in_proj(x)
        if self.shape.memory:
            o, q, kv, f = rows.split((d, d, 2 * d, d), -1)
            gate = torch.sigmoid(f.float()).unsqueeze(2)
            kv = memory(gate, kv.float().view(batch, tokens, 2, d)).to(x.dtype)
        else:
            q, kv = rows.split((d, 2 * d), -1)
            kv = kv.view(batch, tokens, 2, d)
        q = rotate(q.view(batch, tokens, heads, size).transpose(1, 2), table)
        k, v = kv.view(batch, tokens, 2, heads, size).permute(2, 0, 3, 1, 4)
        k = rotate(k, table)
        done, results = 0, []
        for count, variant in parts:
            part = slice(done, done + count)
            results.append(attend(q[part], k[part], v[part], variant))
            done += count
        y = torch.cat(results).transpose(1, 2).reshape(batch, tokens, d)
        return self.out_proj(y * torch.sigmoid(o) if self.shape.memory else y)

    def feed_forward(self, x):
        if self.shape.block == "llama":
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.fc2(F.gelu(self.fc1(x)))

    def forward(self, x, parts, table):
        x = x + self.attention(self.attention_norm(x), parts, table)
        return x + self.feed_forward(self.ffn_norm(x))


class Model(nn.Module):
    """The tensors' names are those of the model folder."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.d_model)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.d_model, shape.norm_eps)
        residual = (2 * shape.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("out_proj.weight", "fc2.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=shape.d_model ** -0.5 * (residual if last else 1) * 0.7)
        nn.init.normal_(self.embedding.weight, std=shape.d_model ** -0.5)

    def hidden(self, tokens, parts, after=None):
        """What the head reads, (B, T, d_model). A list `after` gets the output of each layer."""
        table = rope_table(tokens.shape[1], self.shape.head_size, self.shape.rope_theta,
                           tokens.device)
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, parts, table)
            if after is not None:
                after.append(x)
        return self.norm(x)

    def forward(self, tokens, parts=None, after=None):
        """Logits (B, T, vocabulary) of tokens (B, T). parts: how many rows of the batch
        attend what, (rows, variant) in order; None: all of them everything."""
        if parts is None:
            parts = [(tokens.shape[0], Variant())]
        return self.hidden(tokens, parts, after) @ self.embedding.weight.T

    def count(self):
        return sum(weight.numel() for weight in self.parameters())
