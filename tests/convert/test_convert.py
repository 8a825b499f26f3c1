"""ratplus-convert, run as a user runs it, on well and badly formed checkpoints.

Usage: test_convert.py CONVERTER CHECKPOINT
"""
import collections
import contextlib
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import zipfile

import numpy as np

from torch_writer import Tensor, Writer

CONVERTER, GOLDEN = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
sys.path.insert(0, os.path.dirname(CONVERTER))
sys.dont_write_bytecode = True

from ratplus_convert.model_folder import put_folder  # noqa: E402
from ratplus_convert.torch_zip import Checkpoint  # noqa: E402

D, VOCABULARY, LAYERS = 64, 256, 3


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    types = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    tensors, end = {}, 0
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        assert first == end, f"a hole before {name}"
        end = last
        raw = data[8 + size + first : 8 + size + last]
        tensors[name] = np.frombuffer(raw, types[entry["dtype"]]).reshape(entry["shape"])
    assert 8 + size + end == len(data), "bytes after the last tensor"
    return tensors


def golden_state():
    checkpoint = Checkpoint(GOLDEN)
    state = {k: checkpoint.array(t).copy() for k, t in checkpoint.content["task"].items()}
    checkpoint.close()
    return state


class Convert(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.state = golden_state()
        cls.work = tempfile.TemporaryDirectory()
        folder = os.path.join(cls.work.name, "golden")
        subprocess.run([CONVERTER, GOLDEN, folder, "--heads", "4", "--quiet"], check=True)
        cls.golden = read_safetensors(os.path.join(folder, "model.safetensors"))

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(dir=self.work.name)
        self.input = os.path.join(self.folder.name, "in.pth")
        self.output = os.path.join(self.folder.name, "model")

    def tearDown(self):
        self.folder.cleanup()

    def run_converter(self, *options, heads=("--heads", "4")):
        return subprocess.run([CONVERTER, self.input, self.output, *heads, *options],
                              capture_output=True, text=True, timeout=60)

    def accept(self, *options, **more):
        done = self.run_converter(*options, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.folder.name)), ["in.pth", "model"])
        return read_safetensors(os.path.join(self.output, "model.safetensors"))

    def refuse(self, *parts, options=(), heads=("--heads", "4")):
        done = self.run_converter(*options, heads=heads)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertEqual(os.listdir(self.folder.name), ["in.pth"], "something was left behind")

    def save(self, state, wrap=lambda tensors: {"task": tensors}, kind="FloatStorage", **options):
        writer = Writer()
        tensors = collections.OrderedDict((k, writer.tensor(v, kind)) for k, v in state.items())
        writer.save(self.input, wrap(tensors), **options)

    def config(self):
        with open(os.path.join(self.output, "config.json"), encoding="utf-8") as file:
            return json.load(file)

    def same_as_golden(self, tensors):
        self.assertEqual(list(tensors), list(self.golden))
        for name, values in self.golden.items():
            np.testing.assert_array_equal(tensors[name], values, name)


class KeyForms(Convert):
    def test_golden_tensors(self):
        s, g = self.state, self.golden
        np.testing.assert_array_equal(g["embedding.weight"], s["embedding.wte.weight"])
        np.testing.assert_array_equal(g["norm.weight"], s["backbone.ln.weight"])
        for i in range(LAYERS):
            seq, hidden = (f"backbone.layers.{i}.{n}_layer." for n in ("seq", "hidden"))
            for ours, theirs in {"attention_norm": seq + "input_norm", "in_proj": seq + "in_proj",
                                 "out_proj": seq + "out_proj", "ffn_norm": hidden + "ln",
                                 "fc1": hidden + "fc1", "fc2": hidden + "fc2"}.items():
                np.testing.assert_array_equal(g[f"layers.{i}.{ours}.weight"], s[theirs + ".weight"])
        self.assertEqual(len(g), 2 + 6 * LAYERS)

    def test_task(self):
        self.save(self.state)
        self.same_as_golden(self.accept())
        self.assertEqual(self.config(), {
            "architecture": "ratplus", "layers": 3, "d_model": 64, "heads": 4, "kv_heads": 4,
            "head_size": 16, "feed_forward": 256, "vocabulary": 256, "context": 4096,
            "norm_eps": 1e-6, "rope": {"style": "half", "theta": 10000.0}, "block": "gelu",
            "tie_embedding": True, "tokenizer": "bytes"})

    def test_bare_state_dict(self):
        self.save(self.state, wrap=lambda tensors: tensors)
        self.same_as_golden(self.accept())

    def test_compiled(self):
        self.save({"_orig_mod." + k: v for k, v in self.state.items()})
        self.same_as_golden(self.accept())

    def test_compiled_inside(self):
        self.save({k.replace("layers.", "layers._orig_mod.") if "layers." not in k else
                   k.replace("seq_layer.", "_orig_mod.seq_layer."): v for k, v in self.state.items()},
                  wrap=lambda tensors: tensors)
        self.same_as_golden(self.accept())

    def test_older_gate_apart(self):
        state = {}
        for key, value in self.state.items():
            if key.endswith("in_proj.weight"):
                state[key.replace("in_proj", "fgate_proj")] = value[4 * D :]
                value = value[: 4 * D]
            state[key] = value
        self.save(state)
        self.same_as_golden(self.accept())

    def test_head_left_out(self):
        self.save({k: v for k, v in self.state.items() if not k.startswith("head.")})
        self.same_as_golden(self.accept())
        self.assertTrue(self.config()["tie_embedding"])

    def test_head_of_its_own(self):
        head = self.state["embedding.wte.weight"] + np.float32(1)
        self.save({**self.state, "head.lm_head.weight": head})
        tensors = self.accept()
        np.testing.assert_array_equal(tensors.pop("head.weight"), head)
        self.same_as_golden(tensors)
        self.assertFalse(self.config()["tie_embedding"])

    def test_things_beside_the_task(self):
        self.save(self.state, wrap=lambda tensors: {"task": tensors, "step": 7})
        self.same_as_golden(self.accept())

    def test_views(self):
        """Tensors may share a storage, and be transposed in it."""
        writer = Writer()
        tensors = {k: writer.tensor(v) for k, v in self.state.items()}
        key = "backbone.layers.1.seq_layer.out_proj.weight"
        values = np.ascontiguousarray(self.state[key].T).tobytes()
        storage = writer.storage("FloatStorage", b"\0" * 40 + values)
        tensors[key] = Tensor(storage, 10, (D, D), (1, D))
        writer.save(self.input, {"task": tensors})
        self.same_as_golden(self.accept())


class Types(Convert):
    def test_to_float16(self):
        self.save(self.state)
        for name, values in self.accept("--dtype", "float16").items():
            np.testing.assert_array_equal(values, self.golden[name].astype("<f2"))

    def test_to_bfloat16_rounds_to_even(self):
        bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808001], "<u4")
        wanted = np.array([0x3F80, 0x3F82, 0x3F81, 0x3F80, 0xBF81], "<u2")
        state = dict(self.state)
        norm = state["backbone.ln.weight"].copy()
        norm[: len(bits)] = bits.view("<f4")
        self.save({**state, "backbone.ln.weight": norm})
        tensors = self.accept("--dtype", "bfloat16")
        np.testing.assert_array_equal(tensors["norm.weight"][: len(bits)], wanted)

    def test_bfloat16_kept_and_widened(self):
        bits = {k: (v.view("<u4") >> 16).astype("<u2") for k, v in self.state.items()}
        self.save(bits, kind="BFloat16Storage")
        kept = self.accept()
        np.testing.assert_array_equal(kept["norm.weight"], bits["backbone.ln.weight"])
        wide = self.accept("--dtype", "float32", "--force")
        np.testing.assert_array_equal(wide["norm.weight"].view("<u4"),
                                      bits["backbone.ln.weight"].astype("<u4") << 16)

    def test_float64_needs_a_choice(self):
        self.save({k: v.astype("<f8") for k, v in self.state.items()}, kind="DoubleStorage")
        self.refuse("float64", "--dtype")
        self.same_as_golden(self.accept("--dtype", "float32"))

    def test_float16_overflow(self):
        self.save({**self.state, "backbone.ln.weight": np.full(D, 1e6, "<f4")})
        self.refuse("norm.weight", "beyond the range of float16", options=("--dtype", "float16"))

    def test_not_a_number(self):
        norm = self.state["backbone.ln.weight"].copy()
        norm[3] = np.nan
        self.save({**self.state, "backbone.ln.weight": norm})
        self.refuse("norm.weight holds NaN or Inf")


class Settings(Convert):
    def test_head_size(self):
        self.save(self.state)
        self.accept(heads=("--head-size", "32"))
        self.assertEqual((self.config()["heads"], self.config()["head_size"]), (2, 32))

    def test_head_size_does_not_fit(self):
        self.save(self.state)
        self.refuse("default head size, 128", "8, 16, 32, 64", heads=())
        self.refuse("--head-size 24", "8, 16, 32, 64", heads=("--head-size", "24"))
        self.refuse("--heads 5", "8, 16, 32, 64", heads=("--heads", "5"))
        self.refuse("--heads 4 times --head-size 8", heads=("--heads", "4", "--head-size", "8"))
        self.refuse("--heads 0", heads=("--heads", "0"))

    def test_numbers(self):
        self.save(self.state)
        self.accept("--context", "128", "--rope-theta", "5e5", "--norm-eps", "1e-5")
        c = self.config()
        self.assertEqual((c["context"], c["rope"]["theta"], c["norm_eps"]), (128, 5e5, 1e-5))
        self.output += "-2"
        self.assertNotEqual(self.run_converter("--context", "0").returncode, 0)

    def test_tokenizer(self):
        self.save(self.state)
        path = os.path.join(self.work.name, "tokenizer.model")
        piece = b"\x0a\x03\x0a\x01a"  # field 1, holding a piece "a"
        with open(path, "wb") as file:
            file.write(piece * VOCABULARY + b"\x12\x02\x18\x01")
        self.accept("--tokenizer", path)
        self.assertEqual(self.config()["tokenizer"], "sentencepiece")
        with open(os.path.join(self.output, "tokenizer.model"), "rb") as file:
            self.assertEqual(file.read(), piece * VOCABULARY + b"\x12\x02\x18\x01")
        self.output += "-2"
        with open(path, "ab") as file:
            file.write(piece)
        self.assertIn("257 pieces", self.run_converter("--tokenizer", path).stderr)
        with open(path, "wb") as file:
            file.write(b"not a tokenizer")
        self.assertIn("not a SentencePiece model", self.run_converter("--tokenizer", path).stderr)

    def test_words_need_a_tokenizer(self):
        wider = np.concatenate([self.state["embedding.wte.weight"]] * 2)
        self.save({**self.state, "embedding.wte.weight": wider, "head.lm_head.weight": wider})
        self.refuse("512 tokens", "--tokenizer")

    def test_existing_folder(self):
        self.save(self.state)
        self.accept()
        done = self.run_converter()
        self.assertIn("--force", done.stderr)
        self.assertNotEqual(done.returncode, 0)
        self.accept("--force")
        link = self.output + "-link"
        os.symlink(self.output, link)
        folder, self.output = self.output, link
        self.assertEqual(self.run_converter("--force").returncode, 0)
        self.assertTrue(os.path.islink(link))
        self.output = os.path.join(self.folder.name, "n" * 255)
        self.assertEqual(self.run_converter().returncode, 0)
        self.output = folder
        os.remove(os.path.join(self.output, "config.json"))
        self.assertIn("not a model folder", self.run_converter("--force").stderr)


    def test_what_is_kept_of_a_folder(self):
        """The permissions, and the owner where that is allowed; a new one is as the user's mask says."""
        self.save(self.state)
        old = os.umask(0o027)
        try:
            self.accept()
            self.assertEqual(stat.S_IMODE(os.stat(self.output).st_mode), 0o750)
            weights = os.path.join(self.output, "model.safetensors")
            self.assertEqual(stat.S_IMODE(os.stat(weights).st_mode), 0o640)
            os.chmod(self.output, 0o705)
            os.chmod(weights, 0o604)
            owner = os.getuid(), os.getgid()
            if os.geteuid() == 0:
                with contextlib.suppress(OSError):  # the system has no other users
                    os.chown(self.output, 12345, 23456)
                    os.chown(weights, 12345, 23456)
                    owner = 12345, 23456
            self.accept("--force")
        finally:
            os.umask(old)
        for path, mode in ((self.output, 0o705), (weights, 0o604)):
            info = os.stat(path)
            self.assertEqual((info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)), (*owner, mode))

    def test_folder_that_cannot_be_put(self):
        """What was there is there again, whatever ends the program in between."""
        self.save(self.state)
        self.accept()
        work = os.path.join(self.folder.name, "work")
        for failure in (OSError, SystemExit):
            os.mkdir(work)
            real = os.rename

            def rename(source, target):
                if source == work:
                    raise failure
                real(source, target)

            with unittest.mock.patch("os.rename", rename), self.assertRaises(failure):
                put_folder(work, self.output, True)
            os.rmdir(work)
            self.assertEqual(sorted(os.listdir(self.folder.name)), ["in.pth", "model"])
            self.assertEqual(self.config()["layers"], LAYERS)


class Keys(Convert):
    def test_everything_wrong_at_once(self):
        state = dict(self.state)
        del state["backbone.layers.1.seq_layer.out_proj.weight"]
        del state["backbone.ln.weight"]
        state["backbone.layers.0.seq_layer.in_proj.bias"] = np.zeros(D, "<f4")
        key = "backbone.layers.2.hidden_layer.fc2.weight"
        state[key] = np.ascontiguousarray(state[key].T)
        self.save(state)
        self.refuse("missing: backbone.layers.1.seq_layer.out_proj.weight [64, 64]",
                    "missing: backbone.ln.weight [64]",
                    "superfluous: backbone.layers.0.seq_layer.in_proj.bias",
                    f"wrong shape: {key} has [256, 64], not [64, 256]")

    def test_missing_layer(self):
        self.save({k: v for k, v in self.state.items() if ".layers.1." not in k})
        self.refuse("missing: backbone.layers.1.seq_layer.in_proj.weight",
                    "missing: backbone.layers.1.hidden_layer.ln.weight")

    def test_older_without_gate(self):
        key = "backbone.layers.0.seq_layer.in_proj.weight"
        self.save({**self.state, key: self.state[key][: 4 * D]})
        self.refuse(f"wrong shape: {key} has [256, 64], not [320, 64]")

    def test_head_of_another_shape(self):
        self.save({**self.state, "head.lm_head.weight": np.zeros((255, D), "<f4")})
        self.refuse("wrong shape: head.lm_head.weight has [255, 64], not [256, 64]")

    def test_integers(self):
        writer = Writer()
        tensors = {k: writer.tensor(v) for k, v in self.state.items()}
        tensors["backbone.ln.weight"] = writer.tensor(np.zeros(D, "<i8"), "LongStorage")
        writer.save(self.input, tensors)
        self.refuse("wrong type: backbone.ln.weight has int64")

    def test_key_twice(self):
        self.save({**self.state, "_orig_mod.backbone.ln.weight": self.state["backbone.ln.weight"]})
        self.refuse("backbone.ln.weight twice")

    def test_no_tensors(self):
        Writer().save(self.input, {"epoch": 1})
        self.refuse("no tensors, but: epoch")
        Writer().save(self.input, [1, 2])
        self.refuse("neither")


class Call:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Damage(Convert):
    def test_pickle_that_runs_code(self):
        trap = os.path.join(self.work.name, "trap")
        Writer().save(self.input, {"task": Call(f"touch {trap}")})
        self.refuse(f"{os.system.__module__}.system", "nothing of it was run")
        self.assertFalse(os.path.exists(trap))

    def test_cut_short(self):
        with open(GOLDEN, "rb") as file:
            data = file.read()
        for size in (0, 10, 1000, len(data) // 2, len(data) - 1):
            with open(self.input, "wb") as file:
                file.write(data[:size])
            self.refuse("not a whole zip file")

    def test_flipped_bit(self):
        with open(GOLDEN, "rb") as file:
            data = bytearray(file.read())
        with zipfile.ZipFile(GOLDEN) as archive:
            at = next(i for i in archive.infolist() if i.filename.endswith("data/5")).header_offset
        data[at + 2000] ^= 4
        with open(self.input, "wb") as file:
            file.write(data)
        self.refuse("checksum")

    def test_other_zip(self):
        with zipfile.ZipFile(self.input, "w") as archive:
            archive.writestr("hello.txt", "hello")
        self.refuse("not a torch checkpoint")

    def test_compressed(self):
        self.save(self.state, compression=zipfile.ZIP_DEFLATED)
        self.refuse("compressed")

    def test_big_endian(self):
        self.save(self.state, byte_order="big")
        self.refuse("big-endian")

    def test_storage_left_out(self):
        self.save(self.state, leave_out=("4",))
        self.refuse("lacks archive/data/4")

    def test_tensor_past_its_storage(self):
        writer = Writer()
        storage = writer.storage("FloatStorage", b"\0" * 64)
        writer.save(self.input, {"embedding.wte.weight": Tensor(storage, 1, (4, 4), (4, 1))})
        self.refuse("reaches item 16", "holds 16")
        writer.save(self.input, {"embedding.wte.weight": Tensor(storage, -1, (4, 4), (4, 1))})
        self.refuse("negative size")

    def test_malformed_pickle(self):
        with zipfile.ZipFile(self.input, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00(X\x04")
        self.refuse("malformed")

    def test_no_such_file(self):
        done = self.run_converter()
        self.assertEqual(done.returncode, 1)
        self.assertIn("No such file", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
