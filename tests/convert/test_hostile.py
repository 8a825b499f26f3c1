"""ratplus-convert on what was made to harm it: each is refused with a sentence, in seconds and
within bounded memory.

Usage: test_hostile.py CONVERTER CHECKPOINT MODEL
"""
import ctypes
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

CONVERTER, GOLDEN, MODEL = (os.path.abspath(path) for path in sys.argv[1:])
sys.path.insert(0, os.path.dirname(CONVERTER))
sys.dont_write_bytecode = True

from ratplus_convert.inputs import Fields, InputFile, Refused, parse_json, plain, shown  # noqa: E402
from ratplus_convert.layout import read_model  # noqa: E402
from ratplus_convert.model_folder import count_pieces  # noqa: E402
from ratplus_convert.packed import write_packed  # noqa: E402
from ratplus_convert.torch_zip import Checkpoint  # noqa: E402

SECONDS, ROOM = 30, 3 << 30
PROTO = b"\x80\x02"


def too_long(*_):
    raise TimeoutError(f"it took more than {SECONDS} seconds")


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def whole(number):
    data = number.to_bytes(9, "little")
    return b"\x8a" + bytes([len(data)]) + data


def storage(items, record="0"):
    return b"(" + text("storage") + name("torch", "FloatStorage") + text(record) + text("cpu") + \
        whole(items) + b"tQ"


def tensor(items, offset, shape, strides):
    sizes = [b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (shape, strides)]
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(items) + whole(offset) + \
        sizes[0] + sizes[1] + b"tR"


class Opened:
    """Whether anything opens the path while the block runs."""

    IN_OPEN = 0x20

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        self.handle = libc.inotify_init1(os.O_NONBLOCK)
        if libc.inotify_add_watch(self.handle, os.fsencode(self.path), self.IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return self

    def __exit__(self, *_):
        try:
            self.found = bool(os.read(self.handle, 4096))
        except BlockingIOError:
            self.found = False
        os.close(self.handle)


def shared(depth):
    """A tuple of two that are the same, and so on: as text it would have 2^depth parts."""
    return b"K\x01q\0" + b"h\0\x86q\0" * depth


class Hostile(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.input = os.path.join(self.work.name, "in.pth")
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(SECONDS)

    def tearDown(self):
        signal.alarm(0)
        self.work.cleanup()

    def refused(self, message, function, *arguments):
        with self.assertRaises(Refused) as caught:
            function(*arguments)
        told = str(caught.exception)
        self.assertIn(message, told)
        self.assertLess(len(told), 6000)
        return told


class Pickles(Hostile):
    def save(self, pickle, records=()):
        with zipfile.ZipFile(self.input, "w") as archive:
            archive.writestr("archive/data.pkl", pickle)
            for record, data in records:
                archive.writestr(f"archive/data/{record}", data)

    def test_pickles(self):
        memory = b"\x80\x04" + b"\x96" + struct.pack("<Q", 1 << 40)
        for what, pickle, message in (
                ("a persistent id of shared tuples", shared(60) + b"Q.", "refers to what is a tuple"),
                ("one inside a well-formed id", b"(" + text("storage") + shared(60) + text("0") +
                 text("cpu") + whole(1) + b"tQ.", "refers to what is a tuple"),
                ("a key of shared tuples", b"}" + shared(60) + b"Ns.", "key is neither text nor"),
                ("keys that fall together", b"}(" + whole((1 << 61) - 1) + b"Nu.", "key is neither"),
                ("a function of shared tuples", shared(60) + b")R.", "calls what is no function"),
                ("an argument of shared tuples", name("torch._utils", "_rebuild_parameter") +
                 shared(60) + b"\x85R.", "a parameter that is no tensor"),
                ("a place far off in the memo", b"Nr\xff\xff\xff\xff", "cut short"),
                ("marks", b"(" * 5_000_000, "nested more than 1000 deep"),
                ("a deep stack", b"]" * 5_000_000, "more than 100000 things at once"),
                ("operations", b"]" + b"Na" * 3_000_000, "more than 2000000 operations"),
                ("a byte array", memory, "operation 96 is none"),
                ("text", b"X\xff\xff\xff\x7f", "cut short"),
                ("bytes", b"\x8e" + struct.pack("<Q", 1 << 62), "cut short"),
                ("a set", b"\x8f.", "operation 8f is none"),
                ("a decimal number", b"I" + b"9" * 5000 + b"\n.", "operation 49 is none"),
                ("an empty stack", b".", "takes what is not there"),
                ("a mark below", b"(.", "takes what is not there"),
                ("a get", b"h\7.", "was not kept"),
                ("a name without an end", b"c" + b"x" * 100_000, "a name without an end"),
                ("a name with control characters", name("\x1b[2J", "x"), "names \\u001b[2J.x"),
                ("copies of a dictionary", name("collections", "OrderedDict") + b"](" +
                 text("a") + b"N\x86e\x85R.", "makes a dictionary of other things"),
                ("a function without arguments", name("torch._utils", "_rebuild_tensor_v2") + b")R.",
                 "lacks an argument"),
                ("a storage beyond the file", storage(1 << 40) + b".", "more than the file's"),
                ("a tensor of nothing many times", tensor(16, 0, (1 << 50,), (0,)) + b".",
                 "which holds 16"),
                ("a tensor of many sizes", tensor(16, 0, (1,) * 9, (1,) * 9) + b".", "than 8 sizes"),
                ("a size beyond all", tensor(16, 0, (1 << 62,), (1,)) + b".", "negative size"),
                ("sizes beyond all, and none", tensor(16, 0, (1 << 61, 1 << 61, 0), (1, 1, 1)) + b".",
                 "a tensor without items"),
                ("no end", b"N", "cut short"), ("nothing", b"", "cut short")):
            with self.subTest(what):
                self.save(PROTO + pickle)
                signal.alarm(SECONDS)
                self.refused(message, Checkpoint, self.input)

    def test_large_pickle(self):
        self.save(b"N" * (17 << 20))
        self.refused("data.pkl has 17825792 bytes", Checkpoint, self.input)

    def test_layers(self):
        key = text(f"backbone.layers.{'9' * 6000}.x")
        state = b"}(" + text("embedding.wte.weight") + tensor(64, 0, (8, 8), (8, 1))
        for more, message in ((key + b"N", "no key of the form"),
                              (text("backbone.layers.999999999.x") + b"N", "at most 4096 layers"),
                              (text("backbone.layers.4000.x") + b"N" + text(
                                  "backbone.layers.0.hidden_layer.fc1.weight") +
                               tensor(64, 0, (8, 8), (8, 1)), "more")):
            self.save(PROTO + state + more + b"u.", [("0", bytes(256))])
            checkpoint = Checkpoint(self.input)
            self.refused(message, read_model, checkpoint)
            checkpoint.close()

    def test_strides(self):
        """A size of 1 has no second item, so that its stride is of no account."""
        for shape, strides in (((1, 8), (1 << 61, 1)), ((8, 1), (1, (1 << 62) - 1)),
                               ((1, 1, 1, 8), ((1 << 60) + 1,) * 3 + (1,))):
            self.save(PROTO + tensor(8, 0, shape, strides) + b".",
                      [("0", struct.pack("<8f", *range(8)))])
            checkpoint = Checkpoint(self.input)
            self.assertEqual(checkpoint.array(checkpoint.content).ravel().tolist(), [*range(8)])
            checkpoint.close()
        self.save(PROTO + tensor(0, 0, (0, 1 << 50), (1 << 61, 1)) + b".", [("0", b"")])
        checkpoint = Checkpoint(self.input)
        self.assertEqual(checkpoint.array(checkpoint.content).shape, (0, 1 << 50))
        checkpoint.close()

    def test_self_reference(self):
        self.save(PROTO + b"]q\0h\0a.")
        self.refused("neither", read_model, Checkpoint(self.input))

    def test_directory(self):
        with open(self.input, "wb") as file:
            file.truncate(2 << 30)
            file.seek(0, 2)
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 1 << 30, 0, 0))
        self.refused("directory has 1073741824 bytes", Checkpoint, self.input)

    def test_cut_short_while_in_use(self):
        shutil.copyfile(GOLDEN, self.input)
        checkpoint = Checkpoint(self.input)
        tensor = checkpoint.content["task"]["embedding.wte.weight"]
        checkpoint.array(tensor)
        os.truncate(self.input, 1000)
        self.refused("cut short", checkpoint.array, tensor)
        checkpoint.close()


class SpecialFiles(Hostile):
    def test_checkpoints(self):
        os.mkfifo(self.input)
        for path in (self.input, "/dev/zero", self.work.name):
            with Opened(path) as opened:
                self.refused("not a regular file", Checkpoint, path)
                self.refused("not a regular file", count_pieces, path)
            self.assertFalse(opened.found, path)
        self.refused("No such file", Checkpoint, self.input + "x")

    def test_what_is_watched(self):
        with open(self.input, "wb"):
            pass
        with Opened(self.input) as opened:
            InputFile(self.input).close()
        self.assertTrue(opened.found)

    def test_names(self):
        for path in ("\ud800", "a\0b"):
            self.refused("no file can have this name", InputFile, path)
        self.refused("File name too long", InputFile, "x" * 256)

    def test_sizes(self):
        with open(self.input, "wb") as file:
            file.truncate(1 << 42)
        self.refused("not a whole zip file", Checkpoint, self.input)
        self.refused("at most 67108864 are read here", count_pieces, self.input)

    def test_as_a_user_runs_it(self):
        os.mkfifo(self.input)
        for path in (self.input, "/dev/zero"):
            done = subprocess.run([CONVERTER, path, os.path.join(self.work.name, "out")],
                                  capture_output=True, text=True, timeout=SECONDS)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr, f"ratplus-convert: {path}: not a regular file; folders, "
                             "pipes and devices are not read\n")


class Folders(Hostile):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.work.name, "model")
        self.output = os.path.join(self.work.name, "model.gguf")
        shutil.copytree(MODEL, self.folder)
        self.weights = os.path.join(self.folder, "model.safetensors")
        with open(self.weights, "rb") as file:
            data = file.read()
        size = struct.unpack("<Q", data[:8])[0]
        self.header, self.data = json.loads(data[8 : 8 + size]), data[8 + size :]

    def refuse(self, message):
        told = self.refused(message, write_packed, self.folder, self.output, "keep", False)
        self.assertTrue(told.startswith(self.folder), told)
        self.assertEqual(os.listdir(self.work.name), ["model"], "something was left behind")

    def put(self, header, data=None):
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
        with open(self.weights, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + (self.data if data is None else data))

    def put_config(self, **changes):
        with open(os.path.join(MODEL, "config.json"), encoding="utf-8") as file:
            config = {**json.load(file), **changes}
        with open(os.path.join(self.folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump({k: v for k, v in config.items() if v != "absent"}, file)

    def test_headers(self):
        for header, message in (
                (b"[]", "not a JSON object"), (b"7", "not a JSON object"), (b"", "not a JSON object"),
                (b'{"a":', "not JSON"), (b"\xff\xfe", "not a JSON object"), (b'{"\xff":1}', "not JSON"),
                (b'{"a":' + b"[" * 200_000, "nested too deeply"),
                (b'{"a":' + b'{"a":' * 200_000, "nested too deeply"),
                (b' {}', "not a JSON object"), (b'{"a":NaN}', "not JSON"),
                (b'{"a":' + b"9" * 100_000 + b"}", "not JSON"),
                (b'{"a":1,"a":2}', 'the key "a" is there twice'),
                ({"__metadata__": {"a": 1}}, "not an object of strings"),
                ({"__metadata__": "x"}, "not an object of strings"), ({}, "after the last tensor")):
            with self.subTest(str(header)[:40]):
                self.put(header)
                self.refuse(message)

    def test_entries(self):
        key = "layers.0.in_proj.weight"
        for change, message in (
                ("x", f'"{key}" is "x"; it must be an object'), (None, "it must be an object"),
                ({"shape": None}, f'"{key}.shape" is null; it must be a list'),
                ({"shape": "absent"}, f'"{key}.shape" is missing; it must be a list'),
                ({"shape": [640, "128"]}, "it must be a list"), ({"shape": [640, -128]}, "be a list"),
                ({"shape": [1] * 9}, "it must be a list"), ({"shape": [True, 128]}, "be a list"),
                ({"shape": [1 << 52] * 8}, "its shape needs"), ({"shape": {"a": 1}}, "be a list"),
                ({"dtype": "absent"}, f'"{key}.dtype" is missing; it must be "F32"'),
                ({"dtype": ["F16"]}, 'it must be "F32"'), ({"dtype": "F8"}, 'it must be "F32"'),
                ({"data_offsets": "absent"}, f'"{key}.data_offsets" is missing'),
                ({"data_offsets": [0]}, "it must be a list of 2"),
                ({"data_offsets": [0, 1 << 60]}, "it must be a list of 2"),
                ({"data_offsets": [8, 0]}, "its shape needs"),
                ({"data_offsets": [0.5, 2]}, "it must be a list of 2"),
                ({"data_offsets": ["0", "2"]}, "it must be a list of 2"),
                ({"data_offsets": [0, 163840]}, "lie over the same bytes")):
            with self.subTest(str(change)):
                entry = change
                if isinstance(change, dict):
                    entry = {k: v for k, v in {**self.header[key], **change}.items() if v != "absent"}
                self.put({**self.header, key: entry})
                self.refuse(message)

    def test_places(self):
        end = len(self.data)
        extra = {"dtype": "F16", "shape": [1]}
        for header, data, message in (
                (self.header, self.data + b"x", "1 bytes after the last tensor belong to no tensor"),
                ({**self.header, "extra": {**extra, "data_offsets": [end + 2, end + 4]}},
                 self.data + bytes(4), '2 bytes before tensor "extra" belong to no tensor'),
                ({**self.header, "extra": {**extra, "data_offsets": [0, 2]}}, self.data,
                 "lie over the same bytes"),
                ({**self.header, "extra": {**extra, "data_offsets": [end, end + 2]}},
                 self.data + bytes(2), "no place in this model: extra")):
            self.put(header, data)
            self.refuse(message)
        self.put(self.header, self.data[:-2])
        self.refuse("data_offsets")
        for size in (100, 8, 4, 0):
            os.truncate(self.weights, size)
            self.refuse("no safetensors file, or cut short")

    def test_configs(self):
        for changes, message in (
                ({"layers": "2"}, '"layers" is "2"; it must be a whole number'),
                ({"layers": True}, '"layers" is true; '), ({"layers": 0}, '"layers" is 0; '),
                ({"layers": 1e9}, '"layers" is 1000000000.0; '), ({"layers": [4]}, "is [4]; "),
                ({"layers": "absent"}, '"layers" is missing; '),
                ({"norm_eps": "x"}, '"norm_eps" is "x"; it must be a number'),
                ({"norm_eps": 1e300}, '"norm_eps" is 1e+300; '), ({"norm_eps": None}, "is null; "),
                ({"heads": 5}, '"kv_heads" is 4; '), ({"kv_heads": 2}, '"kv_heads" is 2; '),
                ({"head_size": 12}, '"head_size" is 12; '), ({"head_size": 40}, '"d_model" is 128; '),
                ({"vocabulary": 257}, '"vocabulary" is 257; '), ({"context": 1 << 40}, '"context" is '),
                ({"tie_embedding": "yes"}, '"tie_embedding" is "yes"; '),
                ({"rope": "half"}, '"rope" is "half"; it must be an object'),
                ({"rope": {"style": "half"}}, '"rope.theta" is missing; '),
                ({"rope": {"style": "half", "theta": 1e20}}, '"rope.theta" is 1e+20; '),
                ({"rope": {"style": ["half"], "theta": 1e4}}, '"rope.style" is ["half"]; '),
                ({"rope": {"style": "half", "theta": 1e4, "scale": 2}}, '"rope.scale" is 2; '),
                ({"architecture": {"a": 1}}, '"architecture" is {"a":1}; '),
                ({"block": "x" * 5000}, '"block" is "' + "x" * 60 + '..."; '),
                ({"memory": "no"}, '"memory" is "no"; '), ({"new": 1}, '"new" is 1; this program'),
                ({"rope_scaling": {"rope_type": "yarn"}}, '"rope_scaling" is {"rope_type":"yarn"}; a GGUF'),
                ({"attn_logit_softcapping": 50.0}, '"attn_logit_softcapping" is 50.0; '),
                ({"query_pre_attn_scalar": 64}, '"query_pre_attn_scalar" is 64; '),
                ({"attention_bias": True}, '"attention_bias" is true; '),
                ({"partial_rotary_factor": 0.5}, '"partial_rotary_factor" is 0.5; '),
                ({"hidden_act": "gelu"}, '"hidden_act" is "gelu"; '), ({"head_dim": 64}, "is 64; "),
                ({"rope_theta": 5e5}, '"rope_theta" is 500000.0; but "rope.theta" is 10000.0; '),
                ({"num_key_value_heads": 2}, '"num_key_value_heads" is 2; but "kv_heads" is 4; '),
                ({"tie_word_embeddings": False}, '"tie_word_embeddings" is false; '),
                ({"sliding_window": 64}, '"sliding_window" is 64; '),
                ({"layer_types": ["sliding_attention"]}, '"layer_types" is ["sliding_attention"]; ')):
            with self.subTest(str(changes)[:60]):
                self.put_config(**changes)
                self.refuse(message)

    def test_config_that_agrees(self):
        self.put_config(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, head_dim=32,
                        num_key_value_heads=4, intermediate_size=352, vocab_size=256,
                        rms_norm_eps=1e-6, rope_theta=10000, tie_word_embeddings=True,
                        hidden_act="silu", attention_bias=False, rope_scaling=None,
                        sliding_window=64, use_sliding_window=False, torch_dtype="float16",
                        layer_types=["full_attention"] * 4, _name_or_path="x", partial_rotary_factor=1.0)
        write_packed(self.folder, self.output, "keep", False)

    def test_special_files(self):
        for name in ("config.json", "model.safetensors"):
            path = os.path.join(self.folder, name)
            os.rename(path, path + ".kept")
            os.mkfifo(path)
            self.refuse("not a regular file")
            os.remove(path)
            os.symlink("/dev/zero", path)
            self.refuse("not a regular file")
            os.remove(path)
            os.rename(path + ".kept", path)
        os.truncate(os.path.join(self.folder, "config.json"), 1 << 40)
        self.refuse("at most 1048576 are read here")

    def test_name_of_the_folder(self):
        """Bytes that are no text stand in the file's name alone."""
        odd = os.path.join(os.fsencode(self.work.name), b"m\xff")
        os.rename(self.folder, odd)
        write_packed(os.fsdecode(odd), self.output, "keep", False)
        for more in (), ("--quiet",):
            output = os.path.join(os.fsencode(self.work.name), b"out\xff")
            done = subprocess.run([CONVERTER, odd, "--gguf", output, "--force", *more],
                                  capture_output=True, timeout=SECONDS,
                                  env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.startswith(output), not more)

    def test_shards(self):
        write_packed(self.folder, self.output, "keep", False)
        with open(self.output, "rb") as file:
            wanted = file.read()
        os.remove(self.output)
        names, index = list(self.header)[1:], {}
        os.remove(self.weights)
        for part, some in (("one.safetensors", names[::2]), ("two.safetensors", names[1::2])):
            header, data = {}, b""
            for key in some:
                first, last = self.header[key]["data_offsets"]
                header[key] = {**self.header[key], "data_offsets": [len(data), len(data) + last - first]}
                data += self.data[first:last]
                index[key] = part
            self.weights = os.path.join(self.folder, part)
            self.put(header, data)
        path = os.path.join(self.folder, "model.safetensors.index.json")

        def put_index(weight_map):
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"metadata": {}, "weight_map": weight_map}, file)

        put_index(index)
        write_packed(self.folder, self.output, "keep", False)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), wanted)
        os.remove(self.output)
        key, other = names[0], names[1]
        os.mkfifo(os.path.join(self.folder, "pipe"))
        for weight_map, message in (
                (7, '"weight_map" is 7; it must be an object'), ([], '"weight_map" is a list; '),
                ({}, "lacks embedding.weight"), ({**index, key: 7}, "does not name a file of the same"),
                ({**index, key: "../one.safetensors"}, "does not name a file of the same"),
                ({**index, key: "/dev/zero"}, "does not name a file of the same"),
                ({**index, key: ".."}, "does not name a file of the same"),
                ({**index, key: "\ud800"}, "does not name a file of the same"),
                ({**index, key: "\x1b[2J"}, "does not name a file of the same"),
                ({**index, key: "x" * 100_000}, "does not name a file of the same"),
                ({**index, key: "pipe"}, "not a regular file"), ({**index, key: "none"}, "No such file"),
                ({**index, key: "two.safetensors"}, "is not in two.safetensors"),
                ({k: v for k, v in index.items() if k != other}, "which the index does not place there")):
            with self.subTest(str(weight_map)[-60:]):
                put_index(weight_map)
                self.refuse(message)


class Words(unittest.TestCase):
    def test_values(self):
        deep = ()
        for _ in range(60):
            deep = (deep, deep)
        for value, wanted in ((deep, "a tuple"), ("a\n\x1b", '"a\\n\\u001b"'), (1 << 70, "a number of "
                              "more than 64 bits"), ({}, "an object"), (b"", "of another type")):
            self.assertEqual(shown(value), wanted)
        self.assertEqual(plain("x" * 70), "x" * 60 + "...")

    def test_numbers(self):
        fields = Fields("file", parse_json("file", b'{"a": 4.0, "b": 4.5, "c": 1e999}'))
        self.assertEqual(fields.whole("a", 1, 4), 4)
        for key in "bc":
            self.assertRaises(Refused, fields.whole, key, 1, 10)
        self.assertRaises(Refused, fields.number, "c", 1, 10)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    unittest.main(argv=sys.argv[:1])
