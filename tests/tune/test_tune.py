"""ratplus-tune as a user meets it, with a model of random weights.

Usage: test_tune.py TUNER CONVERTER CHECKPOINT
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TUNER, CONVERTER, CHECKPOINT = sys.argv[1:]
EVALUATOR = os.path.join(os.path.dirname(TUNER), "..", "eval", "ratplus-eval")
ROWS = [{"text": f"text number {i}, and more of it. " * 4, "needles": 1, "questions": [
    {"ask": "? the key is ", "answer": str(40 + i), "distance": 100}]} for i in range(4)]


class Tuner(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.model = cls.path("model")
        subprocess.run([CONVERTER, CHECKPOINT, cls.model, "--heads", "4", "--quiet"], check=True)
        cls.text = cls.write("text.txt", "".join(f"{i} times {i} is {i * i}. " for i in range(60)))
        cls.questions = cls.write("questions.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
        with open(os.path.join(cls.model, "config.json")) as file:
            cls.layers = json.load(file)["layers"]

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.work.name, name)

    @classmethod
    def write(cls, name, text):
        with open(cls.path(name), "w") as file:
            file.write(text)
        return cls.path(name)

    def run_tune(self, *arguments):
        result = subprocess.run([TUNER, *arguments, "--device", "reference"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    def tuned(self, *arguments, model=None):
        """The table's rows by policy, the layers' variants, and all that was printed."""
        code, out, errors = self.run_tune(model or self.model, *arguments)
        self.assertEqual(code, 0, errors)
        rows = {}
        for line in out.split("\n\n")[1].splitlines()[1:]:
            cells = re.split(r"  +", line)
            rows[cells[0]] = {"keys": float(cells[1]), "loss": float(cells[3]), "unseen": cells[4:]}
        return rows, re.search(r"The layers: (\S+)", out).group(1).split("/"), out

    def refused(self, message, *arguments):
        code, out, errors = self.run_tune(*arguments)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(message, errors)

    def test_better_for_the_same_cost(self):
        path = self.path("policy.json")
        rows, layers, out = self.tuned("--text", self.text, "--like", "d8", "--candidates",
                                       "dense,d2,d4,d16,d32", "--out", path)
        self.assertEqual(list(rows), ["dense", "d2", "d4", "d16", "d32", "d8", "tuned"])
        self.assertEqual(len(layers), self.layers)
        self.assertLessEqual(rows["tuned"]["keys"], rows["d8"]["keys"])
        base = re.search(r"uniform variant for this cost: (\S+)", out).group(1)
        uniform = [rows[name]["loss"] for name in ("d8", "d16", "d32")]
        self.assertEqual(rows[base]["loss"], min(uniform))
        self.assertLessEqual(rows["tuned"]["loss"], min(uniform))
        self.assertEqual([name for name in rows if rows[name]["unseen"][0] != "-"],
                         list(dict.fromkeys((base, "tuned"))))
        # The file says what was printed, and ratplus-eval finds the same loss.
        with open(path) as file:
            rules = json.load(file)["rules"]
        self.assertEqual([rule["variant"] for rule in rules], layers)
        with open(self.text) as file:
            text = file.read()
        half = self.write("half.txt", text[: (len(text) + 1) // 2])
        result = subprocess.run([EVALUATOR, self.model, "--text", half, "--policy", path, "--json",
                                 "-", "--device", "reference"], stdout=subprocess.PIPE, check=True)
        self.assertAlmostEqual(json.loads(result.stdout.decode())["rows"][0]["nats"],
                               rows["tuned"]["loss"], places=3)

    def test_targets(self):
        options = ("--questions", self.questions, "--candidates", "dense,d4,d64", "--patience", "2")
        rows, layers, out = self.tuned(*options, "--keys", "30")
        self.assertLessEqual(rows["tuned"]["keys"], 30)
        self.assertIn("%", rows["tuned"]["unseen"][1])
        self.assertRegex(out, r"differs from its by [+-]\d+\.\d+ \(standard error \d")
        self.assertEqual([rule["variant"] for rule in json.loads(out.splitlines()[-1])["rules"]],
                         layers)
        rows, layers, _ = self.tuned(*options, "--cache", "1000000000")
        self.assertLessEqual(rows["tuned"]["loss"], min(rows[name]["loss"] for name in
                                                       ("dense", "d4", "d64")))
        self.refused("the target is 1, but the cheapest variant costs", self.model, *options,
                     "--keys", "1")
        self.refused("the cheapest variant costs", self.model, *options, "--cache", "10")

    def test_halves_ask_alike(self):
        # Both halves get a row of each number of needles, and so the same losses.
        rows = [dict(ROWS[0], needles=i) for i in (1, 2, 1, 2)]
        rows[1]["text"] = rows[3]["text"] = "another text"
        path = self.write("alike.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        found, _, _ = self.tuned("--questions", path, "--keys", "99", "--candidates", "d4")
        self.assertEqual(found["d4"]["unseen"][0], f"{found['d4']['loss']:.4f}")

        # So do parts of a text that is longer than the context.
        folder = self.path("short")
        shutil.copytree(self.model, folder)
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(dict(config, context=50), file)
        text = self.write("parts.txt", "".join(2 * (part * 25) for part in ("ab", "cd", "xy")))
        options = ("--text", text, "--keys", "99", "--candidates", "d4")
        found, _, out = self.tuned(*options, model=folder)
        self.assertEqual(found["d4"]["unseen"][0], f"{found['d4']['loss']:.4f}")
        self.assertIn("sequences of 50 tokens", out)

    def test_resume(self):
        path = self.path("kept.trials")
        options = ("--text", self.text, "--questions", self.questions, "--like", "d8",
                   "--candidates", "d4,d16", "--resume", path)
        first = self.tuned(*options)
        with open(path) as file:
            lines = file.read().splitlines()
        self.assertEqual(self.tuned(*options), first)
        with open(path) as file:
            self.assertEqual(file.read().splitlines(), lines)
        # Cut short: the last line is measured again, and nothing else.
        self.write("kept.trials", "\n".join(lines)[:-20])
        self.assertEqual(self.tuned(*options), first)
        with open(path) as file:
            again = file.read().splitlines()
        self.assertEqual(again, lines[:-1] + [lines[-1][:-20], lines[-1]])
        # Of other settings nothing is taken.
        self.tuned(*options, "--text-bytes", "100")
        with open(path) as file:
            self.assertGreater(len(file.read().splitlines()), len(again))

    def test_bad_command_lines(self):
        self.refused("which model?")
        self.refused("give --questions, --text or both", self.model, "--like", "d8")
        text = (self.model, "--text", self.text)
        self.refused("give one target", *text)
        self.refused("give one target", *text, "--like", "d8", "--keys", "3")
        self.refused('"d0" is not a variant', *text, "--like", "d0")
        self.refused("names no variant", *text, "--keys", "9", "--candidates", ",")
        self.refused("at most 32 candidates", *text, "--keys", "9", "--candidates",
                     ",".join(f"d{i}" for i in range(2, 40)))
        self.refused("is too short", self.model, "--keys", "9", "--text", self.write("one", "abc"))
        self.refused("has no two rows", self.model, "--keys", "9", "--questions",
                     self.write("one", json.dumps(ROWS[0]) + "\n"))
        self.refused("nowhere: No such file", self.model, "--keys", "9", "--text", "/nowhere")
        code, _, errors = self.run_tune(*text, "--keys", "99", "--out", "/nowhere/policy.json",
                                        "--candidates", "d4")
        self.assertEqual(code, 1)
        self.assertIn("policy.json: its folder cannot be opened: No such file", errors)


unittest.main(argv=sys.argv[:1], verbosity=0)
