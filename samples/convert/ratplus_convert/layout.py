"""From the authors' key names to the model folder's, with every shape checked."""
import re
from typing import NamedTuple

import numpy as np

from .inputs import Refused, plain, shown
from .pickle_reader import Tensor

EMBEDDING = "embedding.wte.weight"
HEAD = "head.lm_head.weight"
LAYER_KEY = re.compile(r"backbone\.layers\.([0-9]{1,9})\.(.+)")
FLOATS = ("float32", "float16", "bfloat16", "float64")
MAX_LAYERS = 4096
MAX_HEAD_SIZE = 256
MAX_PROBLEMS = 40  # that are listed


class ModelTensor(NamedTuple):
    """One tensor of the model folder: the rows of `parts`, one after another."""

    name: str
    shape: tuple
    parts: tuple


class Model(NamedTuple):
    layers: int
    d_model: int
    vocabulary: int
    feed_forward: int
    tied: bool
    tensors: list


def shown_key(key):
    return plain(key) if isinstance(key, str) else shown(key)


def state_dict(content):
    """The dictionary of tensors in what torch.save was given, and the names
    of what lay beside it."""
    beside = []
    if isinstance(content, dict) and isinstance(content.get("task"), dict):
        beside = [shown_key(k) for k in content if k != "task"]
        content = content["task"]
    if not isinstance(content, dict) or not content:
        raise Refused('the checkpoint holds neither {"task": state_dict} nor a state_dict')
    if not any(isinstance(v, Tensor) for v in content.values()):
        names = ", ".join(shown_key(k) for k in list(content)[:8])
        raise Refused(f"the checkpoint's dictionary holds no tensors, but: {names}")
    return content, beside


def plain_keys(state):
    """Without what torch.compile puts into key names."""
    found = {}
    for key, value in state.items():
        name = (key if isinstance(key, str) else shown_key(key)).replace("_orig_mod.", "")
        if name in found:
            raise Refused(f"the checkpoint holds {plain(name)} twice, with and without _orig_mod.")
        found[name] = value
    return found


def two_sizes(state, key, meaning):
    tensor = state.get(key)
    if not isinstance(tensor, Tensor):
        raise Refused(f"the checkpoint lacks {key}, which tells {meaning}")
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise Refused(f"{key} has shape {list(tensor.shape)}; two sizes are needed")
    return tensor.shape


def layer_plan(state, i, d, ff):
    """(name, [(source key, shape), ...]) of each tensor of layer i."""
    source, target = f"backbone.layers.{i}.", f"layers.{i}."
    in_proj = [(source + "seq_layer.in_proj.weight", (5 * d, d))]
    gate = source + "seq_layer.fgate_proj.weight"
    # Older files: the rows of o, q, k, v together, those of f apart.
    if gate in state:
        in_proj = [(in_proj[0][0], (4 * d, d)), (gate, (d, d))]
    return [
        (target + "attention_norm.weight", [(source + "seq_layer.input_norm.weight", (d,))]),
        (target + "in_proj.weight", in_proj),
        (target + "out_proj.weight", [(source + "seq_layer.out_proj.weight", (d, d))]),
        (target + "ffn_norm.weight", [(source + "hidden_layer.ln.weight", (d,))]),
        (target + "fc1.weight", [(source + "hidden_layer.fc1.weight", (ff, d))]),
        (target + "fc2.weight", [(source + "hidden_layer.fc2.weight", (d, ff))]),
    ]


def problems(state, plan, optional):
    """Everything that is wrong with the keys and shapes, a line each."""
    wanted = {key: shape for _, sources in plan for key, shape in sources}
    missing = [k for k in wanted if k not in state]
    superfluous = [k for k in state if k not in wanted and k not in optional]
    found = [f"missing: {k} {list(wanted[k])}" for k in missing]
    found += [f"superfluous: {plain(k)}" for k in superfluous]
    for key, shape in {**wanted, **optional}.items():
        if key not in state:
            continue
        tensor = state[key]
        if not isinstance(tensor, Tensor):
            found.append(f"not a tensor: {key}")
        elif tensor.shape != shape:
            found.append(f"wrong shape: {key} has {list(tensor.shape)}, not {list(shape)}")
        elif tensor.dtype not in FLOATS:
            found.append(f"wrong type: {key} has {tensor.dtype}, not one of {', '.join(FLOATS)}")
    return found


def same_values(checkpoint, a, b):
    if a == b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = checkpoint.array(a), checkpoint.array(b)
    rows = max(1, (1 << 22) // left.shape[1])
    return all(np.array_equal(left[i : i + rows], right[i : i + rows])
               for i in range(0, left.shape[0], rows))


def read_model(checkpoint):
    """The model that a checkpoint holds, and the names of what it ignores."""
    state, beside = state_dict(checkpoint.content)
    state = plain_keys(state)
    vocabulary, d = two_sizes(state, EMBEDDING, "the vocabulary and d_model")
    indices = {int(m.group(1)) for m in map(LAYER_KEY.fullmatch, state) if m}
    if not indices:
        raise Refused("the checkpoint holds no key of the form backbone.layers.0....")
    layers = max(indices) + 1
    if layers > MAX_LAYERS:
        raise Refused(f"the checkpoint names layer {layers - 1}; at most {MAX_LAYERS} layers are read")
    ff, _ = two_sizes(state, "backbone.layers.0.hidden_layer.fc1.weight", "the feed-forward size")

    plan = [("embedding.weight", [(EMBEDDING, (vocabulary, d))])]
    for i in range(layers):
        plan += layer_plan(state, i, d, ff)
    plan.append(("norm.weight", [("backbone.ln.weight", (d,))]))
    found = problems(state, plan, {HEAD: (vocabulary, d)})
    if found:
        if len(found) > MAX_PROBLEMS:
            found[MAX_PROBLEMS:] = [f"and {len(found) - MAX_PROBLEMS} more"]
        raise Refused(f"the checkpoint is not a RAT+ model of {layers} layers with d_model {d}:\n  "
                      + "\n  ".join(found))

    tied = HEAD not in state or same_values(checkpoint, state[EMBEDDING], state[HEAD])
    if not tied:
        plan.append(("head.weight", [(HEAD, (vocabulary, d))]))
    tensors = []
    for name, sources in plan:
        parts = tuple(state[key] for key, _ in sources)
        shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
        tensors.append(ModelTensor(name, shape, parts))
    return Model(layers, d, vocabulary, ff, tied, tensors), beside


def head_sizes(d_model):
    return [n for n in range(8, MAX_HEAD_SIZE + 1, 8) if d_model % n == 0]


def split_heads(d_model, heads, head_size):
    """(heads, head size): the checkpoint does not hold them."""
    choices = ", ".join(map(str, head_sizes(d_model))) or "none"
    if heads is not None and head_size is not None and heads * head_size != d_model:
        raise Refused(f"--heads {heads} times --head-size {head_size} is not d_model, {d_model}")
    if heads is not None and heads > 0 and d_model % heads == 0:
        head_size = d_model // heads
    elif heads is not None:
        raise Refused(f"--heads {heads} does not divide d_model, {d_model}; "
                      f"head sizes that do: {choices}")
    size = 128 if head_size is None else head_size
    if size not in head_sizes(d_model):
        given = f"--head-size {size}" if head_size is not None else f"the default head size, {size},"
        raise Refused(f"{given} does not fit d_model {d_model}: head sizes are multiples of 8 up to "
                      f"{MAX_HEAD_SIZE} that divide it. Give --head-size or --heads; "
                      f"head sizes that fit: {choices}")
    return d_model // size, size
