"""What a small model of tiny.py says under a policy, in NumPy, against what a host said
with the ggml backend: the text, and the statistics that the backend gives as JSON.

Usage: reference.py MODEL.gguf POLICY.json PROMPT UBATCH TOKENS TEXT LOG
TEXT is the host's output, in which no token of control was allowed, LOG its stderr with
the line of JSON. Policies may have what the tests use: names of dense, dilated,
streaming, quest and moba (with page or block), one for prompts before a colon, and rules
with a number or "a-b" for layers and heads. Ends with 1 when a token of the text is not the best, or the counts differ,
or dense attention would say the same."""

import json
import re
import sys

import gguf
import numpy as np

# Rounding of the cache moves logits by far less than a policy.
MOST_TRAIL = 0.1


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.w = {t.name: np.array(t.data, dtype=np.float64) for t in reader.tensors}

        def number(name):
            return int(reader.fields["llama." + name].parts[-1][0])

        self.layers = number("block_count")
        self.heads = number("attention.head_count")
        self.kv_heads = number("attention.head_count_kv")
        self.size = number("rope.dimension_count")
        width = (self.layers, self.kv_heads, 0, self.size)
        self.k, self.v = np.zeros(width), np.zeros(width)


def norm(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def turned(x, first):
    """Neighbouring channels are pairs: x is [tokens, heads, size]."""
    size = x.shape[-1]
    positions = first + np.arange(len(x))
    angle = positions[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def rounded(x):
    return x.astype(np.float32).astype(np.float16).astype(np.float64)


def numbers(name):
    """Of a variant that chooses: tokens of a block, and how many a query attends."""
    first, last = (int(n) for n in re.findall(r"\d+", name))
    return (last, first // last) if name.startswith("quest") else (first, last)


def chosen(name, q, k, first):
    """[queries, heads, keys]: the best blocks before a query's own, and its own."""
    block, most = numbers(name)
    blocks = k[: len(k) // block * block].reshape(-1, block, k.shape[-1])
    if name.startswith("quest"):
        ends = np.stack([blocks.min(1), blocks.max(1)])
        score = (q[:, :, None, None] * ends).max(-3).sum(-1)
    else:
        score = np.einsum("tgc,bc->tgb", q, blocks.mean(1))
    if name.endswith("g"):
        score = np.broadcast_to(score.sum(1, keepdims=True), score.shape)
    seen = np.zeros(q.shape[:2] + (len(k),), dtype=bool)
    for t in range(len(q)):
        own = (first + t) // block
        seen[t, :, own * block : first + t + 1] = True
        for head in range(q.shape[1]):
            for best in np.argsort(-score[t, head, :own], kind="stable")[: most - 1]:
                seen[t, head, best * block : (best + 1) * block] = True
    return seen


def bytes_chosen(name, seen, first, count, size):
    """What the backend counts: it does not know which keys, but how many at most."""
    block, most = numbers(name)
    total, choosers = first + count, count * (1 if name.endswith("g") else seen.shape[1])
    keys = min(total, choosers * (most - 1) * block + total - first // block * block)
    if seen.any((0, 1)).sum() > keys:
        raise SystemExit(f"{name}: queries attend more than {keys} keys")
    blocks = (total - 1) // block
    return (keys + blocks * (blocks >= most)) * 2 * 2 * size


def attended(name, first, count):
    """[queries, keys]: which keys the queries from position `first` on attend."""
    t, j = np.arange(first, first + count)[:, None], np.arange(first + count)[None]
    if name == "dense":
        return j <= t
    n = {k: int(v) for k, v in re.findall(r"([dws])(\d+)", name.replace("stream", ""))}
    seen = (t - j <= n.get("w", 0)) | (j < n.get("s", 0))
    if "d" in n:
        seen |= (j + 1) % n["d"] == 0
    return seen & (j <= t)


def inside(ranges, number):
    if ranges is None:
        return True
    first, _, last = str(ranges).partition("-")
    return int(first) <= number <= int(last or first)


def variant(policy, layer, head, prompt):
    name = policy.get("default", "dense")
    for rule in policy.get("rules", []):
        if inside(rule.get("layers"), layer) and inside(rule.get("heads"), head):
            name = rule["variant"]
    if prompt and name.startswith("quest"):
        return "dense"
    return name.partition(":")[0] if prompt else name.split(":")[-1]


def forward(m, policy, tokens, first, counts):
    """The last token's logits; counts get what the nodes should have been."""
    x = m.w["token_embd.weight"][tokens]
    group, keys, values = m.heads // m.kv_heads, [], []
    for layer in range(m.layers):
        block = f"blk.{layer}."

        def weight(name):
            return m.w[block + name + ".weight"].T

        h = norm(x)
        q = turned((h @ weight("attn_q")).reshape(len(x), m.heads, m.size), first)
        k = turned((h @ weight("attn_k")).reshape(len(x), m.kv_heads, m.size), first)
        v = (h @ weight("attn_v")).reshape(len(x), m.kv_heads, m.size)
        k = np.concatenate([m.k[layer], rounded(k).transpose(1, 0, 2)], 1)
        v = np.concatenate([m.v[layer], rounded(v).transpose(1, 0, 2)], 1)
        keys.append(k)
        values.append(v)
        y = np.empty_like(q)
        names = [variant(policy, layer, head, len(tokens) > 1) for head in range(m.kv_heads)]
        for head, name in enumerate(names):
            mine = slice(head * group, (head + 1) * group)
            chooses = name.startswith(("quest", "moba"))
            if chooses:
                seen = chosen(name, q[:, mine], k[head], first)
            else:
                seen = attended(name, first, len(tokens))[:, None]
            s = np.einsum("tgc,jc->tgj", q[:, mine], k[head]) / np.sqrt(m.size)
            s = np.where(seen, s, -np.inf)
            s = np.exp(s - s.max(-1, keepdims=True))
            y[:, mine] = np.einsum("tgj,jc->tgc", s / s.sum(-1, keepdims=True), v[head])
            count = counts.setdefault(name, {"nodes": 0, "bytes": 0})
            if chooses:
                count["bytes"] += bytes_chosen(name, seen, first, len(tokens), m.size)
            else:
                count["bytes"] += int(seen.any((0, 1)).sum()) * 2 * 2 * m.size
        for name in set(names):
            counts[name]["nodes"] += 1
        x = x + y.reshape(len(x), -1) @ weight("attn_output")
        h = norm(x)
        gate = h @ weight("ffn_gate")
        x = x + (gate / (1 + np.exp(-gate)) * (h @ weight("ffn_up"))) @ weight("ffn_down")
    m.k, m.v = np.array(keys), np.array(values)
    return norm(x[-1]) @ m.w["output.weight"].T


def follow(model, policy, prompt, ubatch, said):
    """Feeds what the host said: how far each token trailed the best, and the counts."""
    m = Model(model)
    tokens = [1] + [3 + byte for byte in prompt]
    counts, trails = {}, []
    for first in range(0, len(tokens), ubatch):
        logits = forward(m, policy, tokens[first : first + ubatch], first, counts)
    for i, byte in enumerate(said):
        trails.append(logits[3:].max() - logits[3 + byte])
        if i + 1 < len(said):
            logits = forward(m, policy, [3 + byte], len(tokens) + i, counts)
    return trails, counts


def main(model, policy, prompt, ubatch, count, text, log):
    prompt, wrong = prompt.encode(), []
    with open(policy, encoding="utf-8") as file:
        policy = json.load(file)
    with open(text, "rb") as file:
        said = file.read().removeprefix(prompt).removesuffix(b"\n\n")
    with open(log, "rb") as file:
        stats = [json.loads(line) for line in file if line.startswith(b'{"attention_nodes"')][-1]
    trails, counts = follow(model, policy, prompt, int(ubatch), said)
    other, _ = follow(model, {}, prompt, int(ubatch), said)
    print(f"{', '.join(counts)}: {len(trails)} tokens trail by at most {max(trails):.4f}; "
          f"in dense attention by {max(other):.4f}")
    if max(trails) > MOST_TRAIL:
        wrong.append(f"the text is another: its tokens trail by {np.round(trails, 3)}")
    if len(said) != int(count):
        wrong.append(f"the text has {len(said)} tokens and not {count}")
    if max(other) < 10 * MOST_TRAIL and list(counts) != ["dense"]:
        wrong.append("the text would do for dense attention too")
    if stats["attention"] != counts or stats["fallbacks"]:
        wrong.append(f"counted {stats['attention']} and {stats['fallbacks']}, should be {counts}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


sys.exit(main(*sys.argv[1:]))
