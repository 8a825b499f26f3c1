"""ratplus-run as a user meets it: what it prints, and what it says of bad input.

Usage: test_runner.py RUNNER CONVERTER CHECKPOINT
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

RUNNER, CONVERTER, CHECKPOINT = sys.argv[1:]


class Runner(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.model = os.path.join(cls.work.name, "model")
        subprocess.run([CONVERTER, CHECKPOINT, cls.model, "--heads", "4", "--quiet"], check=True)
        with open(os.path.join(cls.model, "config.json")) as file:
            cls.config = json.load(file)

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    def run_model(self, *arguments, model=None):
        command = [RUNNER, model or self.model, "--device", "reference", *arguments]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return result.returncode, result.stdout, result.stderr.decode()

    def json_of(self, *arguments):
        code, out, errors = self.run_model(*arguments, "--json")
        self.assertEqual(code, 0, errors)
        return json.loads(out.decode())["runs"]

    def refused(self, message, *arguments, model=None):
        code, out, errors = self.run_model(*arguments, model=model)
        self.assertEqual(code, 1)
        self.assertIn(message, errors)
        self.assertEqual(out, b"")

    def with_config(self, **changes):
        folder = os.path.join(self.work.name, "changed")
        os.makedirs(folder, exist_ok=True)
        shutil.copy(os.path.join(self.model, "model.safetensors"), folder)
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({**self.config, **changes}, file)
        return folder

    def test_text_is_the_tokens(self):
        runs = self.json_of("--prompt", "hello", "--tokens", "12")
        code, out, _ = self.run_model("--prompt", "hello", "--tokens", "12")
        self.assertEqual(code, 0)
        self.assertEqual(out, bytes(runs[0]["tokens"]) + b"\n")
        self.assertEqual(len(runs[0]["tokens"]), 12)
        self.assertEqual(runs[0]["decoded_tokens"], 11)

    def test_prompt_from_file_and_chunks(self):
        path = os.path.join(self.work.name, "prompt.txt")
        with open(path, "w") as file:
            file.write("a longer prompt " * 8)
        whole = self.json_of("--file", path, "--tokens", "8", "--variant", "d4w8s2")
        parts = self.json_of("--file", path, "--tokens", "8", "--variant", "d4w8s2", "--chunk", "7")
        self.assertEqual(whole[0]["tokens"], parts[0]["tokens"])
        self.assertEqual(whole[0]["prompt_tokens"], 128)

    def test_seeds(self):
        options = ("--prompt", "x", "--temperature", "2", "--top-k", "50", "--top-p", "0.9")
        first, again, other = (self.json_of(*options, "--seed", seed)[0]["tokens"]
                               for seed in ("1", "1", "2"))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_compare(self):
        options = ("--prompt", "hello " * 50, "--tokens", "10", "--compare",
                   "dense,d16w8s4,streamw16s4,dense")
        runs = self.json_of(*options)
        self.assertEqual([run["variant"] for run in runs],
                         ["dense", "d16w8s4", "streamw16s4", "dense"])
        self.assertEqual(runs[0]["tokens"], runs[3]["tokens"])
        self.assertEqual([runs[i]["tokens_as_first"] for i in (0, 3)], [10, 10])
        self.assertLess(runs[1]["cache_bytes"], runs[0]["cache_bytes"])
        self.assertLessEqual(runs[2]["cache_bytes"], runs[1]["cache_bytes"])
        code, out, _ = self.run_model(*options)
        self.assertEqual(code, 0)
        for part in (b"variant", b"decode tok/s", b"--- streamw16s4", b"10/10", b"KiB"):
            self.assertIn(part, out)

    def test_layers_take_turns(self):
        hello = ("--prompt", "hello " * 50, "--tokens", "10")
        runs = self.json_of(*hello, "--compare", "d04w0/dense,d4/d4,d4,dense")
        self.assertEqual([run["variant"] for run in runs], ["d4/dense", "d4/d4", "d4", "dense"])
        self.assertEqual(runs[1]["tokens"], runs[2]["tokens"])
        self.assertEqual(runs[1]["cache_bytes"], runs[2]["cache_bytes"])
        self.assertLess(runs[2]["cache_bytes"], runs[0]["cache_bytes"])
        self.assertLess(runs[0]["cache_bytes"], runs[3]["cache_bytes"])
        path = os.path.join(self.work.name, "turns.json")
        rules = [{"layers": i, "variant": variant} for i, variant in
                 enumerate(({"kind": "dilated", "dilation": 4}, {"kind": "dense"}) * 2)]
        with open(path, "w") as file:
            json.dump({"rules": rules[:self.config["layers"]]}, file)
        self.assertEqual(self.json_of(*hello, "--policy", path)[0]["tokens"], runs[0]["tokens"])
        self.refused("names 9 layers", "--prompt", "x", "--variant", "/".join(["d4"] * 9))
        self.refused('"" is not a variant', "--prompt", "x", "--variant", "d4/")
        self.refused("are longer than", "--prompt", "x", "--variant", "d4/" * 60)

    def test_heads_share_a_layer(self):
        hello = ("--prompt", "hello " * 50, "--tokens", "10")
        runs = self.json_of(*hello, "--compare", "dense+d04,d4+d4,d4,dense,d4+dense/d4")
        self.assertEqual([run["variant"] for run in runs],
                         ["dense+d4", "d4+d4", "d4", "dense", "d4+dense/d4"])
        self.assertEqual(runs[1]["tokens"], runs[2]["tokens"])
        self.assertEqual(runs[1]["cache_bytes"], runs[2]["cache_bytes"])
        self.assertLess(runs[2]["cache_bytes"], runs[4]["cache_bytes"])
        self.assertLess(runs[4]["cache_bytes"], runs[0]["cache_bytes"])
        self.assertLess(runs[0]["cache_bytes"], runs[3]["cache_bytes"])
        path = os.path.join(self.work.name, "heads.json")
        with open(path, "w") as file:
            json.dump({"rules": [{"heads": "2-3", "variant": "d4"}]}, file)
        self.assertEqual(self.json_of(*hello, "--policy", path)[0]["tokens"], runs[0]["tokens"])
        self.refused("cannot be shared by 3", "--prompt", "x", "--variant", "d4+d4+d4")
        self.refused('"" is not a variant', "--prompt", "x", "--variant", "d4+")

    def test_stats_and_help(self):
        code, _, errors = self.run_model("--prompt", "hello", "--tokens", "3", "--stats")
        self.assertEqual(code, 0)
        self.assertIn("decoded 2 tokens", errors)
        code, out, _ = self.run_model("--help")
        self.assertEqual(code, 0)
        self.assertIn(b"--compare", out)

    def test_bad_command_lines(self):
        self.refused("give one of --prompt")
        self.refused("the prompt is empty", "--prompt", "")
        self.refused('"d16x" is not a variant', "--prompt", "x", "--variant", "d16x")
        self.refused("exclude each other", "--prompt", "x", "--variant", "d4", "--compare", "d8")
        self.refused("--prompt-tokens is 9", "--prompt", "x", "--prompt-tokens", "9")
        self.refused("needs a Vulkan device", "--prompt", "x", "--validate")
        self.refused("--cache-dtype", "--prompt", "x", "--cache-dtype", "f8")
        self.refused("No such file", "--file", "/nowhere/prompt.txt")
        path = os.path.join(self.work.name, "policy.json")
        with open(path, "w") as file:
            file.write('{"rules": [{"layers": 0, "variant": "d0"}]}')
        self.refused(path + ": line 1", "--prompt", "x", "--policy", path)
        with open(path, "wb") as file:
            file.write(b"\0\1\0\0\1\1\0\0")
        self.refused("token 256 is outside the vocabulary", "--tokens-file", path)

    def test_bad_models(self):
        cases = [({"layers": 0}, '"layers" is 0; it must be'), ({"heads": "x"}, '"heads" is "x"; it must be'),
                 ({"kv_heads": 2}, '"kv_heads" is 2'), ({"head_size": 8}, '"head_size" (8)'),
                 ({"rope": 1}, '"rope" is 1; it must be'),
                 ({"rope": {"style": "odd"}}, '"rope.style" is "odd"; it must be'),
                 ({"norm_eps": -1}, '"norm_eps" is -1; it must be'),
                 ({"block": "swiglu"}, '"block" is "swiglu"; it must be'),
                 ({"memory": 0}, '"memory" is 0; it must be'),
                 ({"tie_embedding": 1}, '"tie_embedding" is 1; it must be'),
                 ({"tie_embedding": False}, '"head.weight" is missing'),
                 ({"layers": 4}, '"layers.3.attention_norm.weight" is missing'),
                 ({"layers": 2}, '"layers.2.attention_norm.weight" has no place'),
                 ({"feed_forward": 512}, "has the shape [256, 64], config.json wants [512, 64]")]
        for changes, message in cases:
            with self.subTest(changes):
                self.refused(message, "--prompt", "x", model=self.with_config(**changes))
        self.refused("config.json: No such file", "--prompt", "x", model="/nowhere")
        folder = self.with_config()
        with open(os.path.join(folder, "config.json"), "w") as file:
            file.write('{\n"layers": 3,\n}')
        self.refused("config.json: not a JSON object (line 3)", "--prompt", "x", model=folder)


unittest.main(argv=sys.argv[:1], verbosity=0)
