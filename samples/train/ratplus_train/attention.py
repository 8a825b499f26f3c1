"""Rotation, and attention over the attended set of a variant."""
import dataclasses
import re

import torch
import torch.nn.functional as F

HIDDEN = float("-inf")


@dataclasses.dataclass(frozen=True)
class Variant:
    """The token j is attended at t when (j + 1) % dilation == 0, t - j <= window or j < sinks."""

    dilation: int = 1
    window: int = 0
    sinks: int = 0

    def __str__(self):
        if self.dilation == 1:
            return "dense"
        return f"d{self.dilation}" + (f"w{self.window}" if self.window else "") + (
            f"s{self.sinks}" if self.sinks else "")


def parse_variant(text):
    """dense, d16, d16w64, d16w64s4: as ratplus-run writes them."""
    if text == "dense":
        return Variant()
    found = re.fullmatch(r"d(\d+)(?:w(\d+))?(?:s(\d+))?", text)
    if not found or int(found[1]) < 1:
        raise ValueError(f"{text!r} is not a variant: dense, d16, d16w64 or d16w64s4 are")
    return Variant(int(found[1]), int(found[2] or 0), int(found[3] or 0))


def rope_table(tokens, size, theta, device):
    """cos and sin, (T, size / 2) each."""
    inverse = theta ** (-torch.arange(0, size, 2, dtype=torch.float64, device=device) / size)
    angle = torch.arange(tokens, dtype=torch.float64, device=device)[:, None] * inverse
    return angle.cos().float(), angle.sin().float()


def rotate(x, table):
    """Style "half" on (B, H, T, d)."""
    cos, sin = (part.to(x.dtype) for part in table)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def dense(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    tokens = q.shape[2]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu(1)
    return (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(later, HIDDEN).softmax(-1) @ v


def _blocks(x, size):
    """(B, H, T, d) as (B, H, blocks, size, d), the last block filled up with zeros."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % size))
    return x.view(*x.shape[:2], -1, size, x.shape[-1])


def _with_previous(blocks):
    """Each block behind the one before it: (B, H, blocks, 2 size, d)."""
    return torch.cat((F.pad(blocks, (0, 0, 0, 0, 1, 0))[:, :, :-1], blocks), 3)


def sparse(q, k, v, variant):
    """Only what the variant attends is multiplied: the far keys, one list for all
    queries, and the near ones, each block of queries with its own and the previous
    block of keys. One softmax runs over both."""
    batch, heads, tokens, size = q.shape
    t = torch.arange(tokens, device=q.device)
    far = t[((t + 1) % variant.dilation == 0) | (t < variant.sinks)]
    block = max(variant.window, 16)
    far_scores = q @ k[:, :, far].mT
    # A far key inside the window is counted there, once.
    far_scores = far_scores.masked_fill(t[:, None] - far <= variant.window, HIDDEN)
    near_keys, near_values = _with_previous(_blocks(k, block)), _with_previous(_blocks(v, block))
    near_scores = _blocks(q, block) @ near_keys.mT
    row = torch.arange(block, device=q.device)[:, None] + block
    column = torch.arange(2 * block, device=q.device)
    near = (column <= row) & (row - column <= variant.window)
    first = torch.arange(near_scores.shape[2], device=q.device)[:, None, None] == 0
    near_scores = near_scores.masked_fill(~near | (first & (column < block)), HIDDEN)
    near_scores = near_scores.reshape(batch, heads, -1, 2 * block)[:, :, :tokens]
    weights = (torch.cat((far_scores, near_scores), -1) * size ** -0.5).softmax(-1)
    far_weights, near_weights = weights.split((len(far), 2 * block), -1)
    result = _blocks(near_weights, block) @ near_values
    return far_weights @ v[:, :, far] + result.reshape(batch, heads, -1, size)[:, :, :tokens]


def attend(q, k, v, variant):
    """(B, H, T, d) each, q and k rotated."""
    return dense(q, k, v) if variant.dilation == 1 else sparse(q, k, v, variant)
