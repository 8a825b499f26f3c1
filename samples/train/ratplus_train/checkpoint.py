"""Checkpoints, to resume from, and model folders, to run."""
import dataclasses
import os
import sys

import torch

from .files import reading, replacing
from .model import Model, Shape

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "convert")]

from ratplus_convert.model_folder import write_folder  # noqa: E402


@dataclasses.dataclass
class _Part:
    values: object
    dtype: str = "float32"

    @property
    def shape(self):
        return self.values.shape


@dataclasses.dataclass
class _Tensor:
    name: str
    parts: list

    @property
    def shape(self):
        return self.parts[0].shape


class _Arrays:
    """What the writer of model folders reads a checkpoint through."""

    @staticmethod
    def array(part):
        return part.values


def save(path, state):
    """Whole or not at all."""
    with replacing(path) as out:
        torch.save(state, out)


def load(path):
    options = {"weights_only": True} if torch.__version__ >= "2" else {}
    with reading(path) as file:
        return torch.load(file, map_location="cpu", **options)


def load_model(path):
    state = load(path)
    model = Model(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model, state


def config_of(shape):
    config = {
        "architecture": "ratplus",
        "layers": shape.layers,
        "d_model": shape.d_model,
        "heads": shape.heads,
        "kv_heads": shape.heads,
        "head_size": shape.head_size,
        "feed_forward": shape.feed_forward,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "norm_eps": shape.norm_eps,
        "rope": {"style": "half", "theta": shape.rope_theta},
        "block": shape.block,
        "tie_embedding": True,
        "tokenizer": "bytes",
    }
    if not shape.memory:
        config["memory"] = False
    return config


def export(model, folder, dtype, quiet=False):
    """Returns the bytes of the weights."""
    tensors = [_Tensor(name, [_Part(weight.detach().float().cpu().numpy())])
               for name, weight in model.state_dict().items()]
    return write_folder(folder, config_of(model.shape), _Arrays, tensors, dtype, None, True, quiet)
