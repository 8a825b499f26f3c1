"""config.json through ratplus-run: what Hugging Face's keys change is computed, against the
formulas in numpy, and what cannot be followed is refused by its key and value.

Usage: test_config.py RUNNER vulkan|reference
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from numpy_model import (Attention, D, HEADS, LAYERS, SIZE, THETA, VOCABULARY, config_of,
                         logits_of, weights_of, worst_row, write_config, write_model,
                         write_tensors)

RUNNER, DEVICE = sys.argv[1:]
TOKENS, FEED_FORWARD = 90, 48
BOUND = 1e-4


def plain(size=SIZE, theta=THETA):
    return theta ** (-np.arange(0, size, 2) / size)


def yarn(factor, context, fast=32.0, slow=1.0, size=SIZE, theta=THETA):
    """As Hugging Face's modeling_rope_utils.py writes it: a share of extrapolation a pair."""
    def channel(turns):
        return size * np.log(context / (turns * 2 * np.pi)) / (2 * np.log(theta))

    low, high = max(np.floor(channel(fast)), 0), min(np.ceil(channel(slow)), size - 1)
    high = high + 0.001 if low == high else high
    keep = 1 - np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
    frequencies = plain(size, theta)
    return frequencies / factor * (1 - keep) + frequencies * keep


def llama3(factor, low, high, context):
    out = []
    for frequency in plain():
        wavelength = 2 * np.pi / frequency
        if wavelength < context / high:
            out.append(frequency)
        elif wavelength > context / low:
            out.append(frequency / factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            out.append((1 - smooth) * frequency / factor + smooth * frequency)
    return np.array(out)


class Config(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()
        cls.folder = cls.work.name
        random = np.random.default_rng(8)
        cls.tokens = random.integers(0, VOCABULARY, TOKENS)
        cls.weights = weights_of(random, "llama", True, FEED_FORWARD)
        # Scores that are large, so that a cap or another scale is seen.
        for i in range(LAYERS):
            cls.weights[f"layers.{i}.in_proj.weight"][D : 3 * D] *= 2
        write_model(cls.folder, cls.weights, "llama", True, FEED_FORWARD)
        cls.tokens.astype("<i4").tofile(cls.path("tokens.bin"))

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def run_runner(self, **more):
        write_config(self.folder, config_of("llama", True, FEED_FORWARD, **more))
        return self.run_folder(self.folder)

    def run_folder(self, folder):
        device = ["--validate"] if DEVICE == "vulkan" else ["--device", DEVICE]
        return subprocess.run(
            [RUNNER, folder, "--tokens-file", self.path("tokens.bin"), "--tokens", "0",
             "--cache-dtype", "f32", "--logits", self.path("logits.bin"), *device],
            capture_output=True, text=True, timeout=60)

    def computes(self, how, **more):
        done = self.run_runner(**more)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = np.fromfile(self.path("logits.bin"), "<f4").reshape(TOKENS, VOCABULARY)
        wanted = logits_of(self.weights, self.tokens, "llama", True, 1, how)
        self.assertLess(worst_row(found, wanted), BOUND)
        return wanted

    def changes(self, how, **more):
        wanted = self.computes(how, **more)
        other = logits_of(self.weights, self.tokens, "llama", True, 1)
        self.assertGreater(worst_row(other, wanted), 100 * BOUND, "the key changes nothing")

    def refuse(self, *parts, **more):
        done = self.run_runner(**more)
        self.assertEqual(done.returncode, 1, more)
        for part in (self.path("config.json"), *parts):
            self.assertIn(part, done.stderr)

    def test_yarn(self):
        scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                   "beta_fast": 2.0, "beta_slow": 0.25}
        frequencies = yarn(4, 32, 2, 0.25)
        self.assertTrue(3 <= len(set(np.round(frequencies / plain(), 6))), "a ramp")
        self.changes(Attention(frequencies, 0.1 * np.log(4) + 1), rope_scaling=scaling)
        if DEVICE == "vulkan":
            return
        self.changes(Attention(frequencies, 1.25), rope_scaling={**scaling, "attention_factor": 1.25})
        # The defaults, the older name of the type, and the newer name of the whole.
        self.changes(Attention(yarn(8, 128), 0.1 * np.log(8) + 1),
                     rope_scaling={"type": "yarn", "factor": 8.0})
        self.changes(Attention(yarn(8, 128), 0.1 * np.log(8) + 1), rope_parameters={
            "rope_type": "yarn", "type": "yarn", "factor": 8, "rope_theta": THETA, "truncate": True})
        self.changes(Attention(yarn(8, 64), 0.1 * np.log(8) + 1), max_position_embeddings=64,
                     rope_scaling={"rope_type": "yarn", "factor": 8.0})
        self.changes(Attention(yarn(4, 32, 2, 0.25, 8), 0.1 * np.log(4) + 1),
                     rope_scaling=scaling, partial_rotary_factor=0.5)

    @unittest.skipIf(DEVICE == "vulkan", "the library's own tests run each on Vulkan")
    def test_other_rotations(self):
        self.changes(Attention(plain() / 4), rope_scaling={"type": "linear", "factor": 4.0})
        self.changes(Attention(llama3(8, 0.5, 2, 64)), rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
            "original_max_position_embeddings": 64})
        self.changes(Attention(plain(8)), partial_rotary_factor=0.5)
        self.changes(Attention(plain(12)), rope_parameters={
            "rope_type": "default", "partial_rotary_factor": 0.75})
        self.changes(Attention(plain(8), style="interleaved"), partial_rotary_factor=0.5,
                     rope={"style": "interleaved", "theta": THETA})

    @unittest.skipIf(DEVICE == "vulkan", "the library's own tests run each on Vulkan")
    def test_scores(self):
        self.changes(Attention(softcap=3.0), attn_logit_softcapping=3.0)
        self.changes(Attention(scale=1 / 8), query_pre_attn_scalar=64)
        self.changes(Attention(scale=0.5), attention_multiplier=0.5)

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_keys_that_agree(self):
        self.computes(Attention(), hidden_size=D, num_hidden_layers=LAYERS,
                      num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=SIZE,
                      intermediate_size=FEED_FORWARD, vocab_size=VOCABULARY, rms_norm_eps=1e-6,
                      rope_theta=THETA, tie_word_embeddings=True, hidden_act="silu",
                      attention_bias=False, mlp_bias=False, sliding_window=None,
                      rope_scaling=None, final_logit_softcapping=None, pretraining_tp=1,
                      max_position_embeddings=4096, torch_dtype="float32", model_type="llama",
                      layer_types=["full_attention"] * LAYERS, _name_or_path="here",
                      quantization_config=None, transformers_version="4.57", head_size=SIZE)
        self.computes(Attention(), sliding_window=4096, use_sliding_window=False,
                      max_window_layers=28, hidden_activation="swish")
        self.computes(Attention(), rope_scaling={"rope_type": "default"})

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_keys_that_would_change_the_numbers(self):
        for key, value in {
                "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu",
                "hidden_activation": "gelu_pytorch_tanh", "head_dim": 32, "hidden_size": 64,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1,
                "intermediate_size": 49, "vocab_size": 257, "rms_norm_eps": 1e-5,
                "rope_theta": 5e5, "tie_word_embeddings": False, "sliding_window": 16,
                "use_sliding_window": True, "final_logit_softcapping": 30.0, "pretraining_tp": 2,
                "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0,
                "clip_qkv": 8, "qk_norm": True, "use_qk_norm": True, "qkv_bias": True,
                "alibi": True, "no_rope_layers": [1, 0], "use_parallel_residual": True,
                "num_local_experts": 8, "attn_logit_softcapping": -1, "query_pre_attn_scalar": 0,
                "a_key_of_tomorrow": 1, "partial_rotary_factor": 0.4,
                "layer_types": ["full_attention", "sliding_attention"],
                "quantization_config": {"bits": 4}}.items():
            with self.subTest(key):
                text = f"{value:.15g}" if isinstance(value, float) else json.dumps(
                    value, separators=(",", ":"))
                self.refuse(f'"{key}" is {text}; ', **{key: value})

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_numbers_that_stand_at_two_places(self):
        for place in "rope_parameters", "rope_scaling":
            self.changes(Attention(plain(8)), partial_rotary_factor=0.5, **{place: {
                "rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": THETA}})
            self.refuse(f'"{place}.partial_rotary_factor" is 0.75; but "partial_rotary_factor" is 0.5; ',
                        partial_rotary_factor=0.5, **{place: {
                            "rope_type": "default", "partial_rotary_factor": 0.75}})
            self.refuse(f'"{place}.rope_theta" is 5; but "rope.theta" is {THETA:.15g}; ',
                        **{place: {"rope_type": "default", "rope_theta": 5}})
        self.refuse(f'"rope_theta" is 5; but "rope.theta" is {THETA:.15g}; ', rope_theta=5)
        self.refuse(f'"head_dim" is 32; but "head_size" is {SIZE}; ', head_dim=32)

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_scalings_that_are_refused(self):
        good = {"rope_type": "yarn", "factor": 4.0}
        for scaling, message in (
                ({**good, "rope_type": "dynamic"}, '"rope_scaling.rope_type" is "dynamic"; '),
                ({**good, "rope_type": "longrope"}, '"rope_scaling.rope_type" is "longrope"; '),
                ({**good, "type": "linear"}, '"rope_scaling.type" is "linear"; '),
                ({"factor": 4.0}, '"rope_scaling.rope_type" is missing'),
                ({"rope_type": "yarn"}, '"rope_scaling.factor" is missing'),
                ({**good, "factor": 0.5}, '"rope_scaling.factor" is 0.5; '),
                ({**good, "factor": "4"}, '"rope_scaling.factor" is "4"; '),
                ({**good, "mscale": 1.0}, '"rope_scaling.mscale" is 1; '),
                ({**good, "truncate": False}, '"rope_scaling.truncate" is false; '),
                ({**good, "beta_fast": 1}, '"rope_scaling.beta_fast" is 1; '),
                ({**good, "rope_theta": 5.0}, '"rope_scaling.rope_theta" is 5; '),
                ({**good, "short_factor": [1.0]}, '"rope_scaling.short_factor" is [1]; '),
                ({"rope_type": "linear", "factor": 2, "beta_fast": 3}, '"rope_scaling.beta_fast"'),
                ({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                  "original_max_position_embeddings": 64}, '"rope_scaling.high_freq_factor" is 1'),
                ([1], '"rope_scaling" is [1]; it must be an object'),
                ("yarn", '"rope_scaling" is "yarn"; it must be an object')):
            with self.subTest(scaling):
                self.refuse(message, rope_scaling=scaling)
        self.refuse('"rope_scaling" is {"rope_type":"yarn","factor":4}; give it or "rope_parameters"',
                    rope_scaling=good, rope_parameters=good)
        self.refuse('"rope_scaling" is {"rope_type":"yarn","factor":4}; "rope.style" is "none"', rope_scaling=good,
                    rope={"style": "none"})
        for key in "rope_theta", "partial_rotary_factor":
            self.refuse(f'"{key}" is 1; "rope.style" is "none"', rope={"style": "none"}, **{key: 1})
        self.refuse('"rope.scale" is 2; ', rope={"style": "half", "theta": 1e4, "scale": 2})

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_key_twice(self):
        text = json.dumps(config_of("llama", True, FEED_FORWARD))
        with open(self.path("config.json"), "w") as file:
            file.write(text[:-1] + ', "norm_eps": 1e-5}')
        done = self.run_folder(self.folder)
        self.assertIn('"norm_eps" is 1e-06; the key is there twice', done.stderr)

    @unittest.skipIf(DEVICE == "vulkan", "nothing of it reaches a device")
    def test_weights_in_several_files(self):
        with tempfile.TemporaryDirectory() as folder:
            write_config(folder, config_of("llama", True, FEED_FORWARD))
            names = sorted(self.weights)
            shards = [names[:5], names[5:]]
            for i, shard in enumerate(shards):
                write_tensors(os.path.join(folder, f"part-{i}.safetensors"),
                              {name: self.weights[name] for name in shard})
            index = {"metadata": {}, "weight_map": {
                name: f"part-{i}.safetensors" for i, shard in enumerate(shards) for name in shard}}
            with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
                json.dump(index, file)
            done = self.run_folder(folder)
            self.assertEqual(done.returncode, 0, done.stderr)
        found = np.fromfile(self.path("logits.bin"), "<f4").reshape(TOKENS, VOCABULARY)
        self.assertLess(worst_row(found, logits_of(self.weights, self.tokens, "llama", True, 1)),
                        BOUND)


unittest.main(argv=sys.argv[:1], verbosity=0)
