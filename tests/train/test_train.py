"""The trainer: its memory and attention against loops and masks, its rows, that a
stopped run goes on as if it had not stopped, and that ratplus-run gives the logits
of the models that it writes, and of those that come with the sources.

Usage: test_train.py TRAINER_FOLDER RUNNER MODELS
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

TRAINER, RUNNER, MODELS = sys.argv[1:]
try:
    import torch
except ImportError:
    print("PyTorch is missing; on Debian: apt install python3-torch")
    sys.exit(77)
sys.path[:0] = [TRAINER]

from ratplus_train.attention import Variant, attend, parse_variant  # noqa: E402
from ratplus_train.checkpoint import load  # noqa: E402
from ratplus_train.data import ANSWER, IGNORED, Source, read_texts  # noqa: E402
from ratplus_train.log import read_log  # noqa: E402
from ratplus_train.losses import dispersion, exact  # noqa: E402
from ratplus_train.memory import memory  # noqa: E402

TEXT = "".join(f"line {i} of a text that is long enough to be cut.\n" for i in range(400))


class Parts(unittest.TestCase):
    def test_memory(self):
        torch.manual_seed(1)
        for tokens in (1, 31, 32, 70, 97):
            gate = torch.rand(2, tokens, 1, 3, dtype=torch.float64)
            gate[:, ::5] = (gate[:, ::5] > 0.5).double()
            x = torch.randn(2, tokens, 2, 3, dtype=torch.float64)
            state, wanted = torch.zeros(2, 2, 3, dtype=torch.float64), []
            for t in range(tokens):
                state = gate[:, t] * state + (1 - gate[:, t]) * x[:, t]
                wanted.append(state)
            self.assertTrue(torch.allclose(memory(gate, x), torch.stack(wanted, 1), atol=1e-12))
        gate = torch.rand(1, 37, 1, 2, dtype=torch.float64, requires_grad=True)
        x = torch.randn(1, 37, 2, 2, dtype=torch.float64, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(memory, (gate, x)))

    def test_attention(self):
        torch.manual_seed(2)
        q, k, v = (torch.randn(2, 2, 150, 8, dtype=torch.float64) for _ in range(3))
        t = torch.arange(150)
        back = t[:, None] - t
        for name in ("dense", "d16", "d4w20", "d16w30s3", "d16w300s3", "d64w5s70", "d200w7"):
            a = parse_variant(name)
            self.assertEqual(str(a), name)
            seen = (back >= 0) & (((t + 1) % a.dilation == 0) | (back <= a.window) | (t < a.sinks))
            scores = (q @ k.transpose(2, 3) * 8 ** -0.5).masked_fill(~seen, float("-inf"))
            wanted = scores.softmax(-1) @ v
            self.assertTrue(torch.allclose(attend(q, k, v, a), wanted, atol=1e-12), name)
        for name in ("", "d0", "16", "d4s2w1", "dense4"):
            with self.assertRaises(ValueError):
                parse_variant(name)

    def test_rows(self):
        source = Source([TEXT.encode()], 3)
        for count in (1, 5):
            row = source.needles(512, count, count)
            data, worth = row.row()
            self.assertEqual((len(data), len(worth)), (512, 512))
            at = len(row.context)
            for ask, answer, distance in row.questions():
                at += len(ask)
                self.assertEqual(data[at : at + 4], answer)
                self.assertEqual(worth[at : at + 4], bytes([ANSWER] * 4))
                name = ask[len(b"? the key of ") : -len(b" is ")]
                line = b"the key of " + name + b" is " + answer + b".\n"
                start = data.index(line)
                self.assertEqual(at - distance, start + len(line))
                # The number itself cannot be known.
                number = start + len(line) - 6
                self.assertEqual(worth[number : number + 4], bytes([IGNORED] * 4))
                at += 6
            self.assertEqual(worth.count(ANSWER), 4 * count)
        again = [Source([TEXT.encode()], 3).batch(4, 300, 8, 0.5)[0].tolist() for _ in range(2)]
        self.assertEqual(again[0], again[1])

    def test_held_out_is_never_trained_on(self):
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, "text.txt")
            with open(path, "w") as file:
                file.write(TEXT)
            (train,), (held,) = read_texts([path])
        self.assertEqual(train + held, TEXT.encode())
        self.assertTrue(0.04 < len(held) / len(TEXT) < 0.07)

    def test_special_files(self):
        """A pipe that nobody writes to does not have the reader wait."""
        signal.alarm(60)
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, "log.jsonl")
            os.mkfifo(path)
            for read, argument in ((read_texts, [path]), (read_log, work), (load, path),
                                   (load, "/dev/zero"), (load, work)):
                with self.assertRaisesRegex(OSError, "not a regular file"):
                    read(argument)
        signal.alarm(0)

    def test_exact(self):
        targets = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
        worths = torch.tensor([[1, 2, 2, 1, 2, 2], [2, 2, 1, 1, 1, 1]])
        logits = torch.nn.functional.one_hot(targets, 8).float()
        self.assertEqual(exact(logits, targets, worths), (3, 3))
        logits[0, 4] = 0
        logits[0, 0] = 0
        self.assertEqual(exact(logits, targets, worths), (2, 3))

    def test_dispersion(self):
        torch.manual_seed(4)
        spread = torch.randn(1, 64, 16)
        near = torch.randn(1, 1, 16) + 0.1 * spread
        self.assertLess(float(dispersion(spread)), float(dispersion(near)))
        near.requires_grad_(True)
        dispersion(near).backward()
        self.assertTrue(bool(torch.isfinite(near.grad).all()) and float(near.grad.norm()) > 0)


class Runs(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        with open(self.path("text.txt"), "w") as file:
            file.write(TEXT)

    def path(self, name):
        return os.path.join(self.work.name, name)

    def train(self, *arguments, wanted=0):
        result = subprocess.run([sys.executable, os.path.join(TRAINER, "ratplus-train"), *arguments],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, wanted, result.stderr.decode())
        return result.stderr.decode()

    def pretrain(self, out, steps, *more):
        self.train("pretrain", "--out", self.path(out), "--text", self.path("text.txt"),
                   "--stages", f"128x{steps}", "--batch-tokens", "512", "--layers", "2",
                   "--d-model", "32", "--heads", "2", "--precision", "float32", "--threads", "1",
                   "--quiet", *more)
        return self.path(out + "/checkpoint.pt")

    def test_runner_gives_the_same_logits(self):
        import numpy as np
        with open(self.path("prompt.txt"), "w") as file:
            file.write(TEXT[:150])
        for kind, options in (("rat", ()), ("plain", ("--plain",)),
                              ("llama", ("--block", "llama", "--dispersion-loss", "0.1"))):
            saved = self.pretrain(kind, 3, *options)
            self.train("export", saved, self.path("model"), "--dtype", "float32")
            for variant in ("dense", "d4w8s2"):
                self.train("logits", saved, "--file", self.path("prompt.txt"), "--variant", variant,
                           "--out", self.path("wanted.bin"))
                subprocess.run([RUNNER, self.path("model"), "--file", self.path("prompt.txt"),
                                "--tokens", "0", "--variant", variant, "--cache-dtype", "f32",
                                "--device", "reference", "--logits", self.path("found.bin")],
                               check=True)
                wanted, found = (np.fromfile(self.path(name), "<f4")
                                 for name in ("wanted.bin", "found.bin"))
                self.assertEqual(wanted.shape, found.shape)
                self.assertLess(float(abs(wanted - found).max()), 1e-3)

    def test_shipped_models(self):
        import numpy as np
        from ratplus_train.model import Model, Shape
        with open(os.path.join(MODELS, "held-out.txt"), "rb") as file:
            text = file.read(300)
        with open(self.path("prompt.txt"), "wb") as file:
            file.write(text)
        folders = [os.path.join(MODELS, name) for name in sorted(os.listdir(MODELS))
                   if os.path.exists(os.path.join(MODELS, name, "config.json"))]
        self.assertTrue(folders)
        for folder in folders:
            with open(os.path.join(folder, "config.json")) as file:
                config = json.load(file)
            with open(os.path.join(folder, "model.safetensors"), "rb") as file:
                data = file.read()
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            header.pop("__metadata__", None)
            weights = {}
            for name, entry in header.items():
                first, last = (8 + size + at for at in entry["data_offsets"])
                values = np.frombuffer(data[first:last], {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
                weights[name] = torch.from_numpy(values.astype("<f4").reshape(entry["shape"]))
            model = Model(Shape(
                layers=config["layers"], d_model=config["d_model"], heads=config["heads"],
                feed_forward=config["feed_forward"], block=config["block"],
                memory=config.get("memory", True), rope_theta=config["rope"]["theta"]))
            model.load_state_dict(weights)
            for variant in ("dense", "d16w64s4"):
                with torch.no_grad():
                    tokens = torch.tensor([list(text)])
                    wanted = model(tokens, [(1, parse_variant(variant))])[0].numpy()
                subprocess.run([RUNNER, folder, "--file", self.path("prompt.txt"), "--tokens", "0",
                                "--variant", variant, "--cache-dtype", "f32", "--device",
                                "reference", "--logits", self.path("found.bin")], check=True)
                found = np.fromfile(self.path("found.bin"), "<f4").reshape(wanted.shape)
                self.assertLess(float(abs(wanted - found).max()), 1e-3, f"{folder} {variant}")

    def test_resumed_is_as_uninterrupted(self):
        whole = self.pretrain("whole", 8)
        # A run that stops in the middle: its checkpoint is put where the other begins.
        script = (
            "import sys; sys.path[:0] = [sys.argv[1]]\n"
            "from ratplus_train import loop\n"
            "loop.CHECK = 4\n"
            "old = loop.Run.save\n"
            "def save(run):\n"
            "    old(run)\n"
            "    sys.exit(0)\n"
            "loop.Run.save = save\n"
            "path = sys.argv[1] + '/ratplus-train'\n"
            "sys.argv = sys.argv[1:]\n"
            "exec(compile(open(path).read(), path, 'exec'), {'__name__': '__main__', "
            "'__file__': path})\n")
        options = ["pretrain", "--out", self.path("half"), "--text", self.path("text.txt"),
                   "--stages", "128x8", "--batch-tokens", "512", "--layers", "2", "--d-model", "32",
                   "--heads", "2", "--precision", "float32", "--threads", "1", "--quiet"]
        subprocess.run([sys.executable, "-c", script, TRAINER, *options], check=True)
        half = torch.load(self.path("half/checkpoint.pt"))
        self.assertEqual(half["step"], 4)
        self.pretrain("half", 8, "--resume")
        states = [torch.load(path) for path in (whole, self.path("half/checkpoint.pt"))]
        self.assertEqual(states[1]["step"], 8)
        for name, weight in states[0]["model"].items():
            self.assertTrue(torch.equal(weight, states[1]["model"][name]), name)

    def test_adapt_questions_and_refusals(self):
        saved = self.pretrain("rat", 2)
        self.train("adapt", saved, "--to", "d4w8", "--out", self.path("adapted"), "--text",
                   self.path("text.txt"), "--stages", "128x2", "--batch-tokens", "512", "--quiet")
        self.assertTrue(os.path.exists(self.path("adapted/checkpoint.pt")))
        self.train("questions", self.path("models"), "--text", self.path("text.txt"),
                   "--context", "256", "--rows", "4")
        with open(self.path("models/questions.jsonl")) as file:
            rows = [json.loads(line) for line in file]
        self.assertEqual([row["needles"] for row in rows], [1, 2, 4, 8])
        message = self.train("pretrain", "--out", self.path("rat"), "--text", self.path("text.txt"),
                             "--stages", "128x3", "--batch-tokens", "512", "--layers", "2",
                             "--d-model", "32", "--heads", "2", "--resume", wanted=1)
        self.assertIn("is of a run with other settings", message)
        self.assertIn("No such file", self.train("export", self.path("none.pt"), self.path("m"),
                                                 wanted=1))
        self.assertIn("is not a variant", self.train("adapt", saved, "--to", "x", "--out", "y",
                                                     "--text", "z", wanted=2))


unittest.main(argv=sys.argv[:1], verbosity=0)
