"""ratplus-convert --gguf: what it writes computes what the model computes.

Usage: test_packed.py CONVERTER MODEL, a model folder with Llama's blocks.
"""
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import numpy as np

CONVERTER, MODEL = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
sys.path.insert(0, os.path.dirname(CONVERTER))
sys.dont_write_bytecode = True

from ratplus_convert.output import append_text, replacing  # noqa: E402
from ratplus_convert.safetensors import Weights  # noqa: E402

NUMBERS = {4: "<I", 5: "<i", 6: "<f", 7: "<?"}
TYPES = {0: "<f4", 1: "<f2", 30: "<u2"}


class Gguf:
    """Reads a GGUF file: `.values` by key, `.tensors` by name."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 4
        version, tensors, values = self.number("<I"), self.number("<Q"), self.number("<Q")
        assert self.data[:4] == b"GGUF" and version == 3
        self.values = {self.text(): self.value(self.number("<I")) for _ in range(values)}
        infos = []
        for _ in range(tensors):
            name, dims = self.text(), self.number("<I")
            shape = [self.number("<Q") for _ in range(dims)][::-1]
            infos.append((name, shape, TYPES[self.number("<I")], self.number("<Q")))
        start = self.at + -self.at % 32
        self.tensors = {}
        for name, shape, dtype, offset in infos:
            assert offset % 32 == 0
            count = int(np.prod(shape))
            array = np.frombuffer(self.data, dtype, count, start + offset)
            self.tensors[name] = array.reshape(shape)

    def number(self, form):
        self.at += struct.calcsize(form)
        return struct.unpack_from(form, self.data, self.at - struct.calcsize(form))[0]

    def text(self):
        size = self.number("<Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind, count = self.number("<I"), self.number("<Q")
            return [self.value(kind) for _ in range(count)]
        return self.number(NUMBERS[kind])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def turn(x, theta, interleaved, back=False):
    """x is [tokens][heads][size]; at the positions 0, 1, ..."""
    tokens, _, size = x.shape
    angle = np.arange(tokens)[:, None] * theta ** (-2 * np.arange(size // 2) / size)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None] * (-1 if back else 1)
    first = slice(0, None, 2) if interleaved else slice(0, size // 2)
    second = slice(1, None, 2) if interleaved else slice(size // 2, None)
    y = np.empty_like(x)
    y[..., first] = x[..., first] * c - x[..., second] * s
    y[..., second] = x[..., first] * s + x[..., second] * c
    return y


def remember(x, gate):
    out, state = np.empty_like(x), 0
    for t in range(len(x)):
        state = out[t] = gate[t] * state + (1 - gate[t]) * x[t]
    return out


def attend(q, k, v, scale):
    logits = np.einsum("ihc,jhc->hij", q, k) * scale
    logits[:, np.triu(np.ones(logits.shape[1:], bool), 1)] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("hij,jhc->ihc", weights / weights.sum(-1, keepdims=True), v)


class Packed(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.folder = os.path.join(self.work.name, "model")
        self.output = os.path.join(self.work.name, "model.gguf")
        shutil.copytree(MODEL, self.folder)

    def tearDown(self):
        self.work.cleanup()

    def config(self, **changes):
        path = os.path.join(self.folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config.update(changes)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return config

    def run_converter(self, *options):
        return subprocess.run([CONVERTER, self.folder, "--gguf", self.output, *options],
                              capture_output=True, text=True, timeout=60)

    def accept(self, *options):
        done = self.run_converter(*options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.work.name)), ["model", "model.gguf"])
        return Gguf(self.output)

    def refuse(self, *parts, options=()):
        done = self.run_converter(*options)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertEqual(os.listdir(self.work.name), ["model"], "something was left behind")

    def layer_both_ways(self, style):
        """The last layer's attention, as the model defines it, and as the host and the
        backend run the packed one."""
        config = self.config(rope={"style": style, "theta": 500.0})
        file = self.accept("--dtype", "float32", "--force")
        heads, size, width = config["heads"], config["head_size"], config["d_model"]
        i, x = config["layers"] - 1, np.random.default_rng(3).standard_normal((40, width))
        weights = Weights(self.folder)
        _, in_proj = weights.take(f"layers.{i}.in_proj.weight", 5 * width, width)
        _, out_proj = weights.take(f"layers.{i}.out_proj.weight", width, width)
        rows = (x @ in_proj.astype("f8").T).reshape(-1, 5, heads, size)
        o, q, k, v, f = (rows[:, n] for n in range(5))
        plain = style == "interleaved"
        k, v = remember(k, sigmoid(f)), remember(v, sigmoid(f))
        y = attend(turn(q, 500.0, plain), turn(k, 500.0, plain), v, size**-0.5) * sigmoid(o)
        wanted = y.reshape(-1, width) @ out_proj.astype("f8").T

        def project(name):
            out = x @ file.tensors[f"blk.{i}.attn_{name}.weight"].astype("f8").T
            bias = file.tensors.get(f"blk.{i}.attn_{name}.bias")
            return (out if bias is None else out + bias).reshape(-1, heads, 2 * size)

        base = file.values["llama.rope.freq_base"]
        q, k, v = turn(project("q"), base, True), turn(project("k"), base, True), project("v")
        k = turn(k, base, True, back=True)
        gate, o = sigmoid(k[..., size:]), v[..., size:]
        k, v = remember(k[..., :size], gate), remember(v[..., :size], gate)
        y = attend(q[..., :size], turn(k, 500.0, True), v, (2 * size) ** -0.5) * sigmoid(o)
        y = np.concatenate([y, np.zeros_like(y)], -1).reshape(-1, 2 * width)
        found = y @ file.tensors[f"blk.{i}.attn_output.weight"].astype("f8").T
        self.assertGreater(np.abs(wanted).max(), 0.1)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        # Without the backend the queries ask for something else.
        marker = file.tensors[f"blk.{i}.attn_q.bias"].reshape(heads, 2, size)
        self.assertFalse(marker[:, 0].any())
        np.testing.assert_array_equal(marker[:, 1, 0::2], file.values["ratplus.marker"])

    def test_layer_of_halves(self):
        self.layer_both_ways("half")

    def test_layer_of_pairs(self):
        self.layer_both_ways("interleaved")

    def test_values(self):
        values = self.accept().values
        wanted = {"general.architecture": "llama", "ratplus.packed": True, "ratplus.head_size": 32,
                  "ratplus.rope_theta": 10000.0, "llama.rope.freq_base": 1e8,
                  "llama.attention.key_length": 64, "llama.attention.value_length": 64,
                  "llama.rope.dimension_count": 64, "llama.attention.head_count": 4,
                  "llama.attention.head_count_kv": 4, "llama.block_count": 4,
                  "llama.embedding_length": 128, "llama.feed_forward_length": 352,
                  "llama.context_length": 1024, "tokenizer.ggml.add_bos_token": False}
        for key, value in wanted.items():
            self.assertEqual(values[key], value, key)
        self.assertIn("NEEDS the ratplus backend", values["general.name"])
        self.assertIn("NOT A WORKING MODEL", values["general.description"])
        self.assertIn('"memory": {"packed": true, "theta": 10000}', values["general.description"])
        tokens = values["tokenizer.ggml.tokens"]
        self.assertEqual((len(tokens), tokens[0x41], tokens[0x20]), (256, "<0x41>", "\u2581"))

    def test_tensors(self):
        tensors = self.accept().tensors
        weights = Weights(self.folder)
        for ours, theirs, shape in (("token_embd", "embedding", (256, 128)),
                                    ("blk.2.ffn_gate", "layers.2.gate_proj", (352, 128)),
                                    ("blk.2.ffn_up", "layers.2.up_proj", (352, 128)),
                                    ("blk.2.ffn_down", "layers.2.down_proj", (128, 352)),
                                    ("blk.2.attn_norm", "layers.2.attention_norm", (128,)),
                                    ("blk.2.ffn_norm", "layers.2.ffn_norm", (128,)),
                                    ("output_norm", "norm", (128,))):
            _, wanted = weights.take(theirs + ".weight", *shape)
            found = tensors[ours + ".weight"]
            np.testing.assert_array_equal(found, wanted)
            self.assertEqual(found.dtype, "f4" if len(shape) == 1 else "f2", "vectors are float32")
        self.assertNotIn("output.weight", tensors)
        self.assertEqual(len(tensors), 2 + 10 * 4)

    def test_other_models(self):
        self.config(block="gelu")
        self.refuse('"block" is "gelu"', "SwiGLU")
        self.config(block="llama", memory=False)
        self.refuse('"memory" is false', "no gates")
        self.config(memory=True, tokenizer="sentencepiece")
        self.refuse('"tokenizer" is "sentencepiece"')
        self.config(tokenizer="bytes", rope={"style": "none"})
        self.refuse('"rope.style" is "none"')
        self.config(rope={"style": "half", "theta": 1e4}, head_size=256, heads=1, d_model=256)
        self.refuse('"head_size" is 256', "to 128")

    def test_damaged_folders(self):
        config = self.config(layers=5)
        self.refuse("lacks layers.4.attention_norm.weight")
        self.config(layers=3)
        self.refuse("no place in this model", "layers.3.")
        self.config(layers=4, feed_forward=360)
        self.refuse("layers.0.gate_proj.weight is F16 [352, 128]", "[360, 128]")
        self.config(feed_forward=config["feed_forward"])
        path = os.path.join(self.folder, "model.safetensors")
        os.truncate(path, os.path.getsize(path) // 2)
        self.refuse("data_offsets")
        os.truncate(path, 100)
        self.refuse("no safetensors file, or cut short")
        os.remove(os.path.join(self.folder, "config.json"))
        self.refuse("config.json: No such file")

    def test_existing_file(self):
        self.accept()
        done = self.run_converter()
        self.assertIn("--force", done.stderr)
        self.assertNotEqual(done.returncode, 0)
        self.accept("--force")

    def test_what_is_replaced(self):
        """Only files are, where links lead, and with the permissions that they had."""
        self.accept()
        target, folder = self.output, os.path.join(self.work.name, "other")
        os.mkdir(folder)
        self.output = os.path.join(folder, "n" * 255)
        os.symlink(target, self.output)
        os.chmod(target, 0o640)
        self.assertEqual(self.run_converter("--force").returncode, 0)
        self.assertTrue(os.path.islink(self.output))
        self.assertEqual(stat.S_IMODE(os.lstat(target).st_mode), 0o640)
        os.remove(self.output)
        os.mkfifo(self.output)
        self.assertIn("this is a folder, a pipe or a device", self.run_converter("--force").stderr)
        self.assertTrue(stat.S_ISFIFO(os.lstat(self.output).st_mode))
        os.remove(self.output)
        self.assertEqual(self.run_converter().returncode, 0)
        self.assertEqual(os.listdir(folder), [os.path.basename(self.output)])

    def test_arguments(self):
        done = subprocess.run([CONVERTER, os.path.join(self.folder, "config.json"), "--gguf",
                               self.output], capture_output=True, text=True, timeout=60)
        self.assertIn("a model folder", done.stderr)
        for arguments in ([self.folder], [self.folder, self.output, "--gguf", self.output]):
            done = subprocess.run([CONVERTER, *arguments], capture_output=True, text=True,
                                  timeout=60)
            self.assertEqual(done.returncode, 2)
            self.assertIn("--gguf FILE", done.stderr)


class Replacing(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.folder, self.path = work.name, os.path.join(work.name, "file")

    def write(self, data, path=None):
        with replacing(path or self.path) as out:
            out.write(data)

    def check(self, data):
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), data)
        self.assertEqual(os.listdir(self.folder), ["file"], "something was left behind")

    @unittest.skipIf(os.geteuid(), "only root can give a file to somebody else")
    def test_owner(self):
        self.write(b"one")
        os.chmod(self.path, 0o664)
        try:
            os.chown(self.path, 12345, 23456)
        except OSError:
            self.skipTest("the system has no other users")
        self.write(b"two")
        info = os.stat(self.path)
        self.assertEqual((info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)), (12345, 23456, 0o664))
        self.check(b"two")
        os.chmod(self.folder, 0o777)
        os.setegid(34567)
        os.seteuid(34567)
        try:
            self.write(b"three")
        finally:
            os.seteuid(0)
            os.setegid(0)
        info = os.stat(self.path)
        self.assertEqual((info.st_uid, stat.S_IMODE(info.st_mode)), (34567, 0o604))
        self.check(b"three")

    def test_mask(self):
        """A new file is for those for whom the user's files are."""
        for mask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
            old = os.umask(mask)
            try:
                self.write(b"one")
            finally:
                os.umask(old)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), mode)
            os.remove(self.path)

    def test_synced(self):
        kinds, real = [], os.fsync

        def fsync(handle):
            kinds.append(stat.S_IFMT(os.fstat(handle).st_mode))
            real(handle)

        with unittest.mock.patch("os.fsync", fsync):
            self.write(b"one")
        self.assertEqual(kinds, [stat.S_IFREG, stat.S_IFDIR])

    def test_failures(self):
        self.write(b"one")
        with self.assertRaises(KeyError), replacing(self.path) as out:
            out.write(b"two")
            raise KeyError
        self.check(b"one")
        for path, message in ((self.folder, "a folder, a pipe"), (self.path + "x/", "of a folder"),
                              (self.path + "/x", "Not a directory"), ("/dev/null", "or a device"),
                              (self.folder + "/none/x", "No such file")):
            with self.assertRaisesRegex(OSError, message):
                self.write(b"two", path)
        self.check(b"one")

    def test_file_without_a_name(self):
        with open(self.path, "w+b") as file:
            os.remove(self.path)
            link = f"/proc/self/fd/{file.fileno()}"
            with self.assertRaisesRegex(OSError, "no folder has under that name"):
                self.write(b"two", link)
            self.assertEqual(os.listdir(self.folder), [])
        append_text(self.path, "one")
        self.check(b"one")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
