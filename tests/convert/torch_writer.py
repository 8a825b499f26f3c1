"""Writes zip checkpoints as torch.save does, without torch, well or badly formed."""
import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

ITEM_SIZES = {"FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "DoubleStorage": 8,
              "LongStorage": 8}

# The pickle must name torch's own things, so they are imitated by name.
torch = types.ModuleType("torch")
torch_utils = types.ModuleType("torch._utils")
torch._utils = torch_utils
for kind in ITEM_SIZES:
    setattr(torch, kind, type(kind, (), {"__module__": "torch"}))


def _rebuild_tensor_v2(*_):
    """Named in the pickle, never called here."""


_rebuild_tensor_v2.__module__ = "torch._utils"
_rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
torch_utils._rebuild_tensor_v2 = _rebuild_tensor_v2
sys.modules.setdefault("torch", torch)
sys.modules.setdefault("torch._utils", torch_utils)


class Storage:
    def __init__(self, kind, key, data):
        self.kind, self.key, self.data = kind, key, data


class Tensor:
    """`data` seen with a shape and strides, as torch would pickle it."""

    def __init__(self, storage, offset, shape, strides):
        self.parts = (storage, offset, tuple(shape), tuple(strides), False, collections.OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.parts


class CheckpointPickler(pickle._Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            count = len(obj.data) // ITEM_SIZES[obj.kind]
            return ("storage", getattr(torch, obj.kind), obj.key, "cpu", count)
        return None


class Writer:
    def __init__(self):
        self.storages = []

    def storage(self, kind, data):
        self.storages.append(Storage(kind, str(len(self.storages)), bytes(data)))
        return self.storages[-1]

    def tensor(self, array, kind="FloatStorage"):
        array = np.ascontiguousarray(array)
        strides = [s // array.itemsize for s in array.strides]
        return Tensor(self.storage(kind, array.tobytes()), 0, array.shape, strides)

    def save(self, path, content, byte_order="little", compression=zipfile.ZIP_STORED,
             leave_out=()):
        text = io.BytesIO()
        CheckpointPickler(text, protocol=2).dump(content)
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", text.getvalue())
            archive.writestr("archive/byteorder", byte_order)
            for storage in self.storages:
                if storage.key not in leave_out:
                    archive.writestr(f"archive/data/{storage.key}", storage.data)
            archive.writestr("archive/version", "3\n")
        return path
