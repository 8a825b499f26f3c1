"""ratplus-bench at small sizes: its JSON, its table, and what it refuses.

Usage: test_bench.py BENCH DEVICE
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

BENCH, DEVICE = sys.argv[1:]


def run(*arguments):
    command = [BENCH, "--device", DEVICE, *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


class Quick(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        code, out, errors = run("--quick", "--json")
        assert code == 0, errors
        assert errors == "", errors
        cls.result = json.loads(out)

    def test_names(self):
        self.assertRegex(self.result["version"], r"^\d+\.\d+\.\d+$")
        self.assertTrue(self.result["device"]["name"])
        self.assertTrue(self.result["device"]["driver"])
        self.assertEqual(self.result["device"]["name"] == "reference", DEVICE == "reference")

    def test_every_phase_and_variant_has_a_row(self):
        rows = [(row["phase"], row["variant"]) for row in self.result["rows"]]
        variants = ["dense", "d16", "streamw32s4"]
        expected = [(phase, v) for phase in ("prefill", "decode", "external") for v in variants]
        self.assertEqual(rows, expected + [("compress", "snapkv64"), ("scan", "stream")])

    def test_numbers_fit_each_other(self):
        copy = self.result["copy"]
        self.assertAlmostEqual(
            copy["gb_per_s"] / (2 * copy["bytes"] / copy["milliseconds"]["median"] / 1e6), 1, 5)
        for row in self.result["rows"]:
            time = row["milliseconds"]
            self.assertGreaterEqual(row["runs"], 3)
            self.assertGreater(time["min"], 0)
            self.assertLessEqual(time["min"], time["median"])
            self.assertLessEqual(time["median"], time["max"])
            rate = row["needed_bytes"] / time["median"] / 1e6
            self.assertAlmostEqual(row["gb_per_s"] / rate, 1, 5)
            self.assertAlmostEqual(row["share_of_copy"] / (rate / copy["gb_per_s"]), 1, 5)
            self.assertAlmostEqual(
                row["gflop_per_s"] / (row["needed_flops"] / time["median"] / 1e6), 1, 5)

    def test_needed_work_is_counted_key_by_key(self):
        attended = {
            "dense": lambda j, t: True,
            "d16": lambda j, t: (j + 1) % 16 == 0 or j == t,
            "streamw32s4": lambda j, t: t - j <= 32 or j < 4,
        }
        for row in self.result["rows"]:
            if row["phase"] == "prefill":
                pairs = sum(attended[row["variant"]](j, t)
                            for t in range(row["tokens"]) for j in range(t + 1))
                self.assertEqual(row["needed_flops"], 4 * 64 * row["query_heads"] * pairs)

    def test_needed_work_of_a_compression(self):
        row, = [row for row in self.result["rows"] if row["phase"] == "compress"]
        tokens, observe, capacity, size = row["tokens"], 32, 64, 64
        pairs = sum(1 for query in range(tokens - observe, tokens) for _ in range(query + 1))
        self.assertEqual(row["needed_flops"], 2 * size * row["query_heads"] * pairs)
        k_bytes = 2 * size * row["kv_heads"]
        self.assertEqual(row["needed_bytes"], 4 * size * row["query_heads"] * observe
                         + k_bytes * tokens + 2 * 2 * k_bytes * capacity)

    def test_a_compression_is_beside_its_prompt(self):
        row, = [row for row in self.result["rows"] if row["phase"] == "compress"]
        self.assertGreater(row["prompt_milliseconds"], 0)
        self.assertAlmostEqual(row["share_of_prompt"] * row["prompt_milliseconds"]
                               / row["milliseconds"]["median"], 1, 5)
        for other in self.result["rows"]:
            self.assertEqual("share_of_prompt" in other, other is row)

    def test_a_compact_cache_is_smaller(self):
        held = {row["variant"]: row["cache_bytes"] for row in self.result["rows"]
                if row["phase"] == "decode"}
        self.assertLess(held["d16"], held["dense"] / 2)

    def test_faster_compares_with_the_first_variant(self):
        for phase in ("prefill", "decode", "external"):
            first, second, _ = [row for row in self.result["rows"] if row["phase"] == phase]
            self.assertEqual(first["times_faster"], 1)
            self.assertAlmostEqual(
                second["times_faster"] * second["milliseconds"]["median"]
                / first["milliseconds"]["median"], 1, 5)


    def cache(self, line):
        return [row for row in self.result["cache"] if row["line"] == line]

    def test_every_line_of_the_cache_is_there(self):
        lines = [(row["line"], row["variant"], row["retention"]) for row in self.result["cache"]]
        self.assertEqual(lines, [
            ("held", "dense", "full"), ("held", "d16", "needed"), ("held", "d64", "needed"),
            ("fork", "any", "full"),
            ("decode", "dense", "full"), ("switch", "dense to d16", "full"),
            ("decode", "d16", "full"), ("switch", "d16 to dense", "full"),
            ("decode", "dense", "needed"), ("switch", "dense to d16", "needed"),
            ("batch", "mixed", "full"), ("batch", "dense", "full")])

    def test_held_bytes(self):
        dense, *compact = self.cache("held")
        tokens, key = dense["tokens"], 2 * 2 * dense["kv_heads"] * dense["head_size"]
        self.assertEqual(dense["page_bytes"], tokens * key)
        self.assertNotIn("ratio", dense)
        for row, dilation in zip(compact, (16, 64)):
            self.assertEqual(row["tokens"], tokens)
            # One page, of 64 tokens, is the newest token's.
            self.assertEqual(row["page_bytes"], (tokens // dilation + 64) * key)
            self.assertAlmostEqual(row["ratio"], (dense["page_bytes"] + dense["state_bytes"])
                                   / (row["page_bytes"] + row["state_bytes"]), 6)

    def test_lines_of_the_cache_fit_each_other(self):
        for row in self.result["cache"]:
            if row["line"] == "held":
                continue
            self.assertGreaterEqual(row["runs"], 3)
            time = row["milliseconds"]
            self.assertGreater(time["min"], 0)
            self.assertLessEqual(time["min"], time["median"])
            self.assertLessEqual(time["median"], time["max"])
            if "needed_bytes" in row:
                rate = row["needed_bytes"] / time["median"] / 1e6
                self.assertAlmostEqual(row["gb_per_s"] / rate, 1, 5)
        for step, switch in zip(self.cache("decode"), self.cache("switch")):
            self.assertAlmostEqual(switch["ratio"] * step["milliseconds"]["median"]
                                   / switch["milliseconds"]["median"], 1, 5)
        mixed, equal = self.cache("batch")
        self.assertEqual((mixed["batch"], equal["batch"]), (32, 32))
        self.assertAlmostEqual(mixed["needed_bytes"] / equal["needed_bytes"], 1, 1)
        self.assertAlmostEqual(mixed["ratio"] * mixed["gb_per_s"] / equal["gb_per_s"], 1, 5)


class CommandLine(unittest.TestCase):
    def test_table_and_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "bench.json")
            code, out, errors = run("--quick", "--phase", "decode,external", "--variants", "d4,dense",
                                    "--tokens", "40,9", "--batch", "1,3", "--cache-dtype", "f32",
                                    "--dtype", "f32", "--retention", "full", "--out", path)
            self.assertEqual((code, errors), (0, ""))
            with open(path) as file:
                rows = json.load(file)["rows"]
        self.assertEqual([(r["phase"], r["tokens"], r["batch"], r["variant"]) for r in rows],
                         [(p, t, b, v) for p in ("decode", "external") for t in (9, 40)
                          for b in (1, 3) for v in ("d4", "dense")])
        lines = out.splitlines()
        table = lines[lines.index("") + 1:]
        self.assertEqual(len(table), 1 + len(rows))
        self.assertEqual(len(set(map(len, table))), 1)

    def test_compression(self):
        """Only what was kept is held, under both retentions, and a note tells each share."""
        for retention in "needed", "full":
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "bench.json")
                code, out, errors = run(
                    "--quick", "--phase", "compress,decode", "--tokens", "90,150",
                    "--variants", "snapkv128o4,dense,streamw8:snapkv8o2n3avg", "--batch", "1,2",
                    "--retention", retention, "--out", path)
                self.assertEqual((code, errors), (0, ""))
                with open(path) as file:
                    rows = json.load(file)["rows"]
            rows = [r for r in rows if r["phase"] == "compress"]
            short, long = "streamw8:snapkv8o2n3avg", "snapkv128o4"
            self.assertEqual([(r["tokens"], r["batch"], r["variant"]) for r in rows],
                             [(90, 1, short), (90, 2, short), (150, 1, long), (150, 1, short),
                              (150, 2, long), (150, 2, short)])
            held = {(r["tokens"], r["batch"], r["variant"]): r["cache_bytes"] for r in rows}
            for batch in 1, 2:
                self.assertEqual(held[90, batch, short], held[150, batch, short])
                self.assertLess(held[150, batch, short], held[150, batch, long])
            notes = [line for line in out.splitlines() if line.startswith("compress of ")]
            self.assertEqual(len(notes), len(rows))
            for note, row in zip(notes, rows):
                self.assertIn(
                    "%u tokens by %s, batch %u, takes %.2f%% of the prompt's own %.3f ms" % (
                        row["tokens"], row["variant"], row["batch"],
                        100 * row["share_of_prompt"], row["prompt_milliseconds"]), note)

    def test_layers(self):
        """What is shown of more layers is one layer's: it needs and holds the same."""
        rows = []
        for layers in "1", "3":
            code, out, errors = run("--quick", "--phase", "prefill,decode,compress", "--tokens", "96",
                                    "--layers", layers, "--json")
            self.assertEqual((code, errors), (0, ""))
            result = json.loads(out)
            self.assertEqual(result["settings"]["layers"], int(layers))
            rows.append({(r["phase"], r["variant"]): (r["needed_flops"], r["cache_bytes"])
                         for r in result["rows"]})
        self.assertEqual(*rows)

    def test_the_cache_alone(self):
        code, out, errors = run("--quick", "--phase", "cache", "--tokens", "1,200", "--json")
        self.assertEqual((code, errors), (0, ""))
        result = json.loads(out)
        self.assertEqual(result["rows"], [])
        self.assertEqual([row["tokens"] for row in result["cache"] if row["line"] == "fork"], [1, 50])
        code, out, errors = run("--quick", "--phase", "cache", "--tokens", "200")
        self.assertEqual((code, errors), (0, ""))
        lines = out.splitlines()
        table = lines[lines.index("") + 1:]
        self.assertEqual(len(table), 1 + 12)
        self.assertEqual(len(set(map(len, table))), 1)

    def test_two_tables(self):
        code, out, errors = run("--quick", "--phase", "cache,decode", "--tokens", "200")
        self.assertEqual((code, errors), (0, ""))
        _, rows, lines = out.rstrip("\n").split("\n\n")
        self.assertEqual((len(rows.splitlines()), len(lines.splitlines())), (1 + 3, 1 + 12))

    def refused(self, message, *arguments):
        code, out, errors = run(*arguments)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(message, errors)

    def test_refusals(self):
        self.refused("--phase", "--phase", "decode,sideways")
        self.refused("--tokens", "--tokens", "0")
        self.refused("--tokens", "--tokens", "")
        self.refused("--batch", "--batch", "1,x")
        self.refused("is not a variant", "--variants", "dense,d0")
        self.refused('--variants has none ("dense,quest64"); name one, such as snapkv64',
                     "--phase", "compress", "--variants", "dense,quest64")
        self.refused("a capacity below T, here 512,", "--phase", "decode,compress",
                     "--variants", "dense,snapkv512", "--tokens", "64,512,128")
        self.refused("--phase: decode leaves snapkv out", "--phase", "compress,decode",
                     "--variants", "snapkv64")
        self.refused("variant.capacity is 16", "--phase", "compress", "--variants", "snapkv16")
        self.refused("--heads", "--heads", "6", "--kv-heads", "4")
        self.refused("--head-size", "--head-size", "20")
        self.refused("--cache-dtype", "--cache-dtype", "f64")
        self.refused("no such device", "--device", "no such device")

    def test_help(self):
        code, out, _ = run("--help")
        self.assertEqual(code, 0)
        for part in ("--variants", "Phases", "  compress  ", "Examples", "ratplus-bench --quick"):
            self.assertIn(part, out)


unittest.main(argv=sys.argv[:1])
