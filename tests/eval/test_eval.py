"""ratplus-eval as a user meets it, with a model of random weights: its numbers
against those that ratplus-run's logits give, resuming, and bad input.

Usage: test_eval.py EVALUATOR CONVERTER CHECKPOINT
"""
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

EVALUATOR, CONVERTER, CHECKPOINT = sys.argv[1:]
RUNNER = os.path.join(os.path.dirname(EVALUATOR), "..", "run", "ratplus-run")
ROWS = [
    {"text": "a text with the key of amber is 4821.\n", "needles": 1, "questions": [
        {"ask": "? the key of amber is ", "answer": "4821", "distance": 22}]},
    {"text": "another text. " * 12, "needles": 3, "questions": [
        {"ask": "? one is ", "answer": "1", "distance": 140},
        {"ask": ".\n? two is ", "answer": "22", "distance": 300},
        {"ask": ".\n? three is ", "answer": "3", "distance": 2000}]},
]


class Evaluator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.models = cls.path("models")
        cls.model = os.path.join(cls.models, "random")
        subprocess.run([CONVERTER, CHECKPOINT, cls.model, "--heads", "4", "--quiet"], check=True)
        cls.write("models/held-out.txt", "some text that was held out, and goes on. " * 8)
        cls.write("models/questions.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
        cls.write("models/rows.txt", "# model variant\nrandom dense\n\nrandom\td4w8\n")

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

    def run_eval(self, *arguments):
        result = subprocess.run([EVALUATOR, *arguments, "--device", "reference"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    def rows_of(self, *arguments):
        code, out, errors = self.run_eval(*arguments, "--json", "-")
        self.assertEqual(code, 0, errors)
        return json.loads(out)["rows"]

    def refused(self, message, *arguments):
        code, out, errors = self.run_eval(*arguments)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(message, errors)

    def logits(self, text, variant, prompt=None):
        """After the first `prompt` bytes as a prompt (None: all) and the rest one at a time."""
        import numpy as np
        given, out = self.write("prompt.txt", text), self.path("logits.bin")
        subprocess.run([RUNNER, self.model, "--file", given, "--tokens", "0", "--variant", variant,
                        "--device", "reference", "--logits", out] +
                       (["--prompt-tokens", str(prompt)] if prompt else []), check=True)
        return np.fromfile(out, "<f4").astype(float).reshape(-1, 256)

    def held_out(self):
        with open(os.path.join(self.models, "held-out.txt")) as file:
            return file.read()

    def check_numbers(self, row):
        """A row against logits: of the text one token at a time, of questions after a prompt."""
        text = self.held_out()
        logits = self.logits(text, row["variant"], 1)
        nats = sum(math.log(sum(math.exp(x) for x in line)) - line[ord(byte)]
                   for line, byte in zip(logits, text[1:])) / (len(text) - 1)
        self.assertAlmostEqual(row["nats"], nats, places=4)
        self.assertEqual(row["text_tokens"], len(text) - 1)
        self.assertEqual(row["asked"], 4)
        right = 0
        for line in ROWS:
            whole, prompt = line["text"], len(line["text"])
            for question in line["questions"]:
                whole += question["ask"]
                found = self.logits(whole + question["answer"], row["variant"], prompt).argmax(1)
                right += all(found[len(whole) - 1 + i] == ord(byte)
                             for i, byte in enumerate(question["answer"]))
                whole += question["answer"]
        self.assertEqual(row["right"], right)

    def test_numbers_are_those_of_the_logits(self):
        for row in self.rows_of(self.models):
            self.check_numbers(row)

    def test_numbers_of_variants_that_choose(self):
        names = "quest16,quest32p8,d4w8:quest16,moba8k2,dense/quest16,d4+quest16"
        rows = self.rows_of(self.model, "--variants", names)
        # In the text, which has no prompt, the third is the first; no others are equal.
        self.assertEqual(rows[2]["nats"], rows[0]["nats"])
        self.assertEqual(len({row["nats"] for row in rows}), 5)
        for row in rows:
            with self.subTest(row["variant"]):
                self.check_numbers(row)

    def test_a_budget_for_everything_is_dense(self):
        rows = self.rows_of(self.model, "--variants", "dense,quest1024,moba64k16,dense+quest1024")
        for row in rows[1:]:
            with self.subTest(row["variant"]):
                self.assertAlmostEqual(row["nats"], rows[0]["nats"], places=6)
                for name in ("right", "by_needles", "by_distance", "keys", "length"):
                    self.assertEqual(row[name], rows[0][name])

    def test_prompts_and_decoded_tokens(self):
        # An answer behind the prompt is said by the prompt's variant, one behind a
        # question by that of decoded tokens. Where do the two say different letters?
        text = self.held_out()
        said = [self.logits(text, variant).argmax(1) for variant in ("d4", "dense")]
        end, first, second = next(
            (i + 1, *map(chr, pair)) for i, pair in enumerate(zip(*said))
            if pair[0] != pair[1] and all(32 < byte < 127 for byte in pair))
        for prompt, asked, answer in ((text[:end], "", first), ("", text[:end], second)):
            for given, right in ((first, answer == first), (second, answer == second)):
                entry = {"text": prompt, "needles": 1, "questions": [
                    {"ask": asked, "answer": given, "distance": 3}]}
                path = self.write("one.jsonl", json.dumps(entry) + "\n")
                row, = self.rows_of(self.model, "--variants", "d4:dense", "--questions", path,
                                    "--text-bytes", "0")
                self.assertEqual(row["right"], right)

    def test_keys_of_variants_that_choose(self):
        rows = self.rows_of(self.model, "--variants",
                            "dense,quest32,moba8k3,dense/quest32,dense+quest32,dense+d4,d4:quest32")
        dense, layers = rows[0]["keys"], 3
        self.assertEqual([row["keys"] for row in rows[:5]],
                         [dense, 32, 24, (2 * dense + 32) / layers, (dense + 32) / 2])
        self.assertEqual(rows[6]["keys"], 32)
        self.assertLess(rows[5]["keys"], dense)
        # All keys stay, and what is known of each page comes on top of them.
        self.assertGreater(rows[1]["cache_bytes"], rows[0]["cache_bytes"])
        self.assertLess(rows[5]["cache_bytes"], rows[0]["cache_bytes"])
        rules = {"default": "quest32", "rules": [
            {"layers": 0, "variant": "dense"}, {"layers": "1-", "heads": "0-2", "variant": "dense"}]}
        policy, = self.rows_of(self.model, "--policy", self.write("heads.json", json.dumps(rules)))
        few = (layers - 1) / (4 * layers)
        self.assertAlmostEqual(policy["keys"], dense - few * (dense - 32))

    def test_a_right_answer_counts(self):
        # What the model would say itself is right, anything else wrong.
        text = "this text goes on, and on, and on"
        likeliest = self.logits(text, "dense").argmax(1)
        end = next(i for i, byte in enumerate(likeliest) if chr(byte).isalnum() and byte < 128)
        said = chr(likeliest[end])
        for answer, right in ((said, 1), (chr(ord(said) ^ 1), 0)):
            entry = {"text": text[:1], "needles": 1, "questions": [
                {"ask": text[1 : end + 1], "answer": answer, "distance": 3}]}
            path = self.write("one.jsonl", json.dumps(entry) + "\n")
            rows = self.rows_of(self.model, "--variants", "dense", "--questions", path,
                                "--text-bytes", "0")
            self.assertEqual((rows[0]["right"], rows[0]["asked"]), (right, 1))

    def test_classes(self):
        row = self.rows_of(self.model, "--variants", "dense", "--text-bytes", "0")[0]
        self.assertEqual([entry["asked"] for entry in row["by_needles"]], [1, 0, 3, 0])
        self.assertEqual([entry["asked"] for entry in row["by_distance"]], [1, 1, 1, 0, 1])
        self.assertEqual(row["text_tokens"], 0)

    def test_tables_and_cache(self):
        code, out, errors = self.run_eval(self.models)
        self.assertEqual(code, 0, errors)
        for part in ("perplexity", "right answers", "d4w8", "1 needle", "to 512 back"):
            self.assertIn(part, out)
        dense, dilated, hybrid = self.rows_of(self.model, "--variants", "dense,d4,dense/d4")
        self.assertLess(dilated["keys"], hybrid["keys"])
        self.assertLess(hybrid["cache_bytes"], dense["cache_bytes"])
        self.assertEqual(dense["keys"], dense["length"])
        rules = '{"rules": [{"variant": {"kind": "dilated", "dilation": 4}}]}'
        policy = self.rows_of(self.model, "--policy", self.write("policy.json", rules))
        self.assertEqual(policy[0]["nats"], dilated["nats"])

    def test_compressed_prompts(self):
        # The first byte of an answer is what the whole prompt says, the second what the
        # kept tokens say. Where does dense attention say another?
        text = self.held_out()
        for end in range(60, len(text)):
            first = self.logits(text[:end], "dense")[-1].argmax()
            if not 32 < first < 127:
                continue
            kept, whole = (self.logits(text[:end] + chr(first), variant, end)[-1].argmax()
                           for variant in ("snapkv16o8", "dense"))
            if kept != whole and 32 < kept < 127:
                break
        entry = {"text": text[: end - 5], "needles": 1, "questions": [
            {"ask": text[end - 5 : end], "answer": chr(first) + chr(kept), "distance": 3}] * 2}
        entry["questions"][1] = {"ask": " again ", "answer": "?", "distance": 3}
        path = self.write("one.jsonl", json.dumps(entry) + "\n")
        rows = self.rows_of(self.model, "--variants", "snapkv16o8,dense", "--questions", path)
        self.assertEqual([row["by_distance"][0]["right"] for row in rows], [1, 0])
        self.assertEqual([row["asked"] for row in rows], [2, 2])
        # 16 of the prompt, and the answer, which is the longer sequence's.
        self.assertEqual(rows[0]["keys"], 17)
        self.assertEqual(rows[0]["text_tokens"], 0)
        # Prompts that fit are whole.
        rows = self.rows_of(self.model, "--variants", "snapkv1024,dense", "--text-bytes", "0")
        for name in ("right", "by_needles", "by_distance", "keys", "length"):
            self.assertEqual(rows[0][name], rows[1][name])

    def test_resume(self):
        path = self.path("kept.rows")
        first = self.rows_of(self.models, "--resume", path)
        with open(path) as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), 2)
        # A kept row is taken as it is; one that was cut short is measured again.
        changed = re.sub(r'"nats":[0-9.e+-]+', '"nats":1.25', lines[0])
        self.write("kept.rows", changed + "\n" + lines[1][:40] + "\n")
        again = self.rows_of(self.models, "--resume", path)
        self.assertEqual(again[0]["nats"], 1.25)
        self.assertEqual(again[1], first[1])
        # Other settings make other rows.
        other = self.rows_of(self.models, "--resume", path, "--cache-dtype", "f32")
        self.assertNotEqual(other[0]["nats"], 1.25)

    def test_bad_input(self):
        self.refused("which models?")
        self.refused("has neither config.json nor rows.txt", self.work.name)
        self.refused("are for one model", self.models, "--variants", "dense")
        self.refused("--rows is for a folder", self.model, "--rows", "x")
        self.refused('"d0x" is not a variant', self.model, "--variants", "d0x")
        shutil.copytree(self.model, self.path("alone/random"))
        self.refused("is measured by questions alone", self.path("alone/random"), "--variants",
                     "snapkv64", "--text", os.path.join(self.models, "held-out.txt"))
        self.refused("cannot be shared by 3", self.model, "--variants", "dense+d4+d8")
        self.refused("is not followed by one variant", self.models, "--rows",
                     self.write("bad.txt", "random\n"))
        self.refused("names no row", self.models, "--rows", self.write("bad.txt", "#\n"))
        self.refused("nothing/config.json: No such file", self.models, "--rows",
                     self.write("bad.txt", "nothing dense\n"))
        for entry, message in (
                ("[1]", "not a JSON object"), ('{"needles": 1}', '"text" must be'),
                ('{"text": "a", "needles": -1}', '"needles" must be'),
                ('{"text": "a", "needles": 1, "questions": []}', "\"questions\" must be a list"),
                ('{"text": "a", "needles": 1, "questions": [{"ask": "b"}]}',
                 'a question needs'),
                ('{"text": "a", "needles": 1, "questions": [{"ask": "b", "answer": "c"}]}',
                 '"distance" must be'),
                ('{"text": "", "needles": 1, "questions": [{"ask": "", "answer": "c", '
                 '"distance": 1}]}', "nothing stands before")):
            self.refused("line 2: " + message, self.model,
                         "--questions",
                         self.write("bad.jsonl", json.dumps(ROWS[0]) + "\n" + entry + "\n"))


unittest.main(argv=sys.argv[:1], verbosity=0)
