"""ratplus-run --interactive: what a conversation says, against fresh runs and against
itself, and what it answers to wrong commands.

Usage: test_interactive.py RUNNER MODEL vulkan|reference
"""
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

RUNNER, MODEL, DEVICE = sys.argv[1:]
PLACE = ("--validate",) if DEVICE == "vulkan" else ("--device", DEVICE)
TOKENS = 20
NUMBERS = ("--tokens", str(TOKENS), "--cache-dtype", "f32")
COMMON = (RUNNER, MODEL, *PLACE, *NUMBERS)
LINE = b"And the king said unto the people of the land,\n"
OTHER = b"Now therefore go to\n"
# The answer stands too far back for a short window.
HIDDEN = b"the key of amber is 4821.\n" + b"And the children of Israel went up. " * 6 + b"\n"
QUESTION = b"? the key of amber is "


def read_until(stream, wanted, seconds=60):
    """What arrives at a file until `wanted` (a regular expression) is in it."""
    text = b""
    while not re.search(wanted, text):
        ready, _, _ = select.select([stream], [], [], seconds)
        number = stream if isinstance(stream, int) else stream.fileno()
        got = os.read(number, 4096) if ready else b""
        if not got:
            raise AssertionError(f"{wanted} did not come; only {text}")
        text += got
    return text


def pieces():
    """A SentencePiece model of single letters: protobuf fields, written by hand."""
    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    names = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    names += [(letter, 1) for letter in "\u2581abcdefghijklmnopqrstuvwxyzAN,.\n"]
    model = b"".join(field(1, field(1, name.encode()) + b"\x15" + struct.pack("<f", -i) +
                           bytes([0x18, kind])) for i, (name, kind) in enumerate(names))
    return model + field(3, field(1, b"identity"))


class Interactive(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    def path(self, name):
        return os.path.join(self.work.name, name)

    def start(self, *options, command=COMMON, **streams):
        process = subprocess.Popen([*command, *options], **{
            "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            **streams})
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        """Also where a test failed while the program still ran."""
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def talk(self, text, *options):
        """What a piped conversation prints, and what it tells."""
        process = self.start("--interactive", *options)
        out, errors = process.communicate(text, timeout=120)
        self.assertEqual(process.returncode, 0, errors)
        return out, errors.decode()

    def fresh(self, prompt, *options):
        """What a run without a conversation prints."""
        process = self.start("--prompt", prompt, *options)
        out, errors = process.communicate()
        self.assertEqual(process.returncode, 0, errors)
        return out

    def test_turns_are_fresh_runs_of_the_whole_text(self):
        first = self.fresh(LINE)
        self.assertEqual(len(first), TOKENS + 1)
        second = self.fresh(LINE + first[:-1] + OTHER)
        self.assertEqual(self.talk(LINE + OTHER)[0], first + second)
        self.assertEqual(self.talk(OTHER, "--prompt", LINE)[0], first + second)
        with open(self.path("first.txt"), "wb") as file:
            file.write(LINE)
        self.assertEqual(self.talk(OTHER, "--file", self.path("first.txt"))[0], first + second)

    def test_newlines_and_slashes(self):
        self.assertEqual(self.talk(b"In the begin")[0], self.fresh(b"In the begin"))
        self.assertEqual(self.talk(b"//In the\n")[0], self.fresh(b"/In the\n"))
        self.assertEqual(self.talk(b"\n")[0], self.fresh(b"\n"))
        self.assertEqual(self.talk(b""), (b"", ""))

    def test_more_goes_on(self):
        whole = self.fresh(LINE, "--tokens", "40")
        out, _ = self.talk(LINE + b"/more\n")
        self.assertEqual(out, whole[:TOKENS] + b"\n" + whole[TOKENS:])
        # Nothing is pending after a turn of no tokens: the last one is fed once more.
        self.assertEqual(self.talk(LINE + b"/more\n/more\n", "--tokens", "0")[0], b"")
        out, _ = self.talk(LINE + b"/rewind 20\n/more\n")
        self.assertEqual(out, 2 * self.fresh(LINE))

    def test_variants(self):
        for name in ("dense", "d16w64s4", "dense/d16", "streamw16s4"):
            with self.subTest(name):
                text = HIDDEN + QUESTION
                out, errors = self.talk(f"/variant {name}\n".encode() + text)
                self.assertIn(f"conversation 1: 0 tokens, {name}, cache", errors)
                self.assertEqual(out, self.talk(text, "--variant", name)[0])
                self.assertTrue(out.startswith(self.fresh(HIDDEN[:HIDDEN.index(b"\n") + 1],
                                                          "--variant", name)))
        with open(self.path("policy.json"), "w") as file:
            json.dump({"rules": [{"layers": "1-", "variant": "d16w64s4"}]}, file)
        out, errors = self.talk(b"/policy " + self.path("policy.json").encode() + b"\n" + LINE)
        self.assertIn(self.path("policy.json") + ", cache", errors)
        self.assertEqual(out, self.fresh(LINE, "--policy", self.path("policy.json")))

    def test_switches_in_mid_conversation(self):
        text = HIDDEN + b"%s" + QUESTION
        options = ("--tokens", "5")
        dense, _ = self.talk(text % b"", *options)
        self.assertTrue(dense.endswith(b"\n4821.\n"), dense)
        # There and back again is nothing; what is kept is kept.
        self.assertEqual(self.talk(text % b"/variant d64\n/variant stream\n/variant dense\n",
                                   *options)[0], dense)
        short, _ = self.talk(text % b"/variant streamw16s4\n", *options)
        self.assertNotIn(b"4821", short)
        # A cache that drops what the new variant does not need says the same.
        for name in (b"d16w16s4", b"streamw16s4", b"d8/dense"):
            switched = text % (b"/variant " + name + b"\n")
            self.assertEqual(self.talk(switched, *options)[0],
                             self.talk(switched, *options, "--retention", "needed")[0])
        # The short window does not know the number; dense, it is known again.
        with open(self.path("question.txt"), "wb") as file:
            file.write(HIDDEN + QUESTION)
        out, _ = self.talk(b"/rewind %d\n/variant dense\n" % (len(QUESTION) + 5) + QUESTION,
                           *options, "--variant", "streamw16s4", "--file",
                           self.path("question.txt"))
        self.assertEqual(len(out), 12, out)
        self.assertNotIn(b"4821", out[:6])
        self.assertEqual(out[6:], b"4821.\n")

    def test_rewind(self):
        again = b"/rewind %d\n" % (len(OTHER) + TOKENS)
        once, _ = self.talk(LINE + OTHER)
        out, errors = self.talk(LINE + OTHER + again + OTHER)
        self.assertEqual(out, once + once[TOKENS + 1:])
        self.assertIn(f"conversation 1: {len(LINE) + TOKENS} tokens", errors)
        whole = b"/rewind %d\n" % (len(LINE) + TOKENS)
        self.assertEqual(self.talk(LINE + whole + LINE)[0], 2 * self.fresh(LINE))
        self.assertEqual(self.talk(LINE + b"/reset\n" + LINE)[0], 2 * self.fresh(LINE))

    def test_forks(self):
        once, _ = self.talk(LINE + OTHER)
        first, second = once[:TOKENS + 1], once[TOKENS + 1:]
        out, errors = self.talk(LINE + b"/fork other\n" + OTHER + b"/switch 1\n/forks\n" + OTHER +
                                b"/forks\n/switch other\n/drop 1\n/forks\n/more\n/fork\n/stats\n")
        self.assertTrue(out.startswith(first + second + second))
        more = self.talk(LINE + OTHER + b"/more\n")[0]
        self.assertEqual(out, first + second + more[len(first):])
        turn = len(LINE) + TOKENS
        after = turn + len(OTHER) + TOKENS
        self.assertRegex(errors, rf"\n\* 1 +{turn} .* dense\n  2 other +{after} .* dense\n")
        self.assertRegex(errors, rf"\n\* 1 +{after} .* dense\n  2 other +{after} .* dense\n")
        self.assertRegex(errors, rf"variant\n\* 2 other +{after} ")
        # Numbers are not used again, and the fork has the pages in common.
        self.assertRegex(errors, rf"conversation 3: {after + TOKENS} tokens, dense")
        self.assertRegex(errors, r"shared pages +[1-9]\n")
        # Forks have variants of their own.
        out, errors = self.talk(LINE + b"/fork\n/variant d16\n/switch 1\n" + OTHER)
        self.assertEqual(out, once)
        self.assertRegex(errors, r"conversation 2: \d+ tokens, d16, .*\n"
                                 r"conversation 1: \d+ tokens, dense")

    def test_save_and_load(self):
        save = b"/save " + self.path("talk with a space.rat").encode() + b"\n"
        load = b"/load " + self.path("talk with a space.rat").encode() + b"\n"
        for options in ((), ("--retention", "needed", "--variant", "d16w16s4"),
                        ("--tokens", "0"), ("--cache-dtype", "f16")):
            with self.subTest(options):
                whole, _ = self.talk(LINE + OTHER, *options)
                first, errors = self.talk(LINE + save, *options)
                self.assertIn("saved in ", errors)
                more, errors = self.talk(load + OTHER, *options[:2])
                self.assertEqual(first + more, whole)
                name = "d16w16s4" if "needed" in options else "dense"
                self.assertRegex(errors, rf"conversation 1: \d+ tokens, {name}, cache")
        # The token that was picked and not fed is there too, and the variant.
        self.talk(LINE + b"/variant d16w16s4\n" + save)
        out, errors = self.talk(load + b"/stats\n/rewind 20\n/more\n/reset\n" + LINE)
        self.assertIn(f"{len(LINE) + TOKENS} tokens, d16w16s4", errors)
        self.assertEqual(out, self.talk(LINE + b"/variant d16w16s4\n/rewind 20\n/more\n/reset\n" +
                                        LINE)[0][TOKENS + 1:])
        # Only the current conversation is replaced, and an empty one can be saved.
        out, errors = self.talk(save + LINE + b"/fork\n" + load + LINE + b"/switch 1\n/more\n")
        self.assertIn("conversation 2: 0 tokens", errors)
        whole = self.talk(LINE + b"/more\n")[0]
        self.assertEqual(out, whole[:TOKENS + 1] + whole)

    def test_bad_saved_files(self):
        path, good = self.path("bad.rat"), self.path("good.rat")
        self.talk(LINE + b"/save " + good.encode() + b"\n")
        with open(good, "rb") as file:
            data = file.read()
        head, tokens = 296, 4 * (len(LINE) + TOKENS)
        cases = [(data[:size], "not a conversation" if size < head else "damaged: ") for size in
                 (0, 7, head - 1, head, head + tokens - 1, head + tokens, len(data) - 1)]
        cases += [(data + b"x", "damaged: ")]
        for at, message in ((0, "not a conversation"), (8, "of version "), (12, "damaged: "),
                            (16, "damaged: its tokens"), (24, "damaged: "), (32, "damaged: its"),
                            (40, "damaged: its tokens"), (head + 5, "damaged: its tokens"),
                            (head + tokens + 40, "RATP_PARSE_ERROR"),
                            (len(data) - 20, "RATP_PARSE_ERROR")):
            cases.append((data[:at] + bytes([data[at] ^ 4]) + data[at + 1:], message))
        lines = b""
        for i, (content, _) in enumerate(cases):
            with open(f"{path}{i}", "wb") as file:
                file.write(content)
            lines += f"/load {path}{i}\n".encode()
        out, errors = self.talk(LINE + lines + OTHER)
        self.assertEqual(out, self.talk(LINE + OTHER)[0])
        told = errors.splitlines()
        self.assertEqual(len(told), len(cases), errors)
        for i, (_, message) in enumerate(cases):
            self.assertTrue(told[i].startswith(f"{path}{i}: "), told[i])
            self.assertIn(message, told[i])
        # A head that is whole, and announces three gigabytes of cache: nothing of them is read.
        size = 3 << 30
        whole = data[:24] + struct.pack("<Q", size) + data[32:40]
        checksum = 0xcbf29ce484222325
        for byte in whole[:32] + data[40 : head + tokens]:
            checksum = (checksum ^ byte) * 0x100000001b3 % (1 << 64)
        with open(path, "wb") as file:
            file.write(whole[:32] + struct.pack("<Q", checksum) + data[40 : head + tokens])
            file.truncate(head + tokens + size)
        os.mkfifo(path + "-pipe")
        out, errors = self.talk(f"/load {path}\n/load {path}-pipe\n".encode())
        self.assertIn("no cache of this model has more than", errors)
        self.assertIn("not a regular file", errors)
        # A good file, but another cache, or another model.
        load = LINE + b"/load " + good.encode() + b"\n" + OTHER
        out, errors = self.talk(load, "--retention", "needed")
        self.assertEqual(out, self.talk(LINE + OTHER)[0])
        self.assertIn("RATP_INVALID_ARGUMENT", errors)
        other = os.path.join(os.path.dirname(MODEL), "rat-d16")
        process = subprocess.run([RUNNER, other, *PLACE, "--interactive"], capture_output=True,
                                 input=b"/load " + good.encode() + b"\n")
        self.assertEqual(process.returncode, 0)
        self.assertIn(f"saved with another model than {other}", process.stderr.decode())

    def test_a_failed_save_leaves_the_file(self):
        folder = self.path("kept")
        path = os.path.join(folder, "kept.rat")
        os.mkdir(folder)
        self.talk(b"/save " + path.encode() + b"\n")
        with open(path, "rb") as file:
            before = file.read()
        # A disk with room for less than is there; Python has the signal of it ignored. A Vulkan
        # driver may keep what it compiles in files of memory, which the limit is for too.
        command = (RUNNER, MODEL, "--device", "reference", *NUMBERS)
        process = self.start("--interactive", command=command, restore_signals=False,
                             preexec_fn=lambda:
                             resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))
        _, errors = process.communicate(LINE + b"/save " + path.encode() + b"\n", timeout=120)
        self.assertIn("kept.rat: cannot be written: File too large", errors.decode())
        self.assertEqual(os.listdir(folder), ["kept.rat"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_stats_line_up(self):
        _, errors = self.talk(LINE + b"/stats\n")
        rows = errors.splitlines()
        self.assertEqual(len({len(row) for row in rows}), 1, errors)
        table = {row[:15].strip(): row[15:].strip() for row in rows}
        self.assertEqual(table["tokens"], str(len(LINE) + TOKENS))
        self.assertEqual(table["variant"], "dense")
        self.assertEqual(table["shared pages"], "0")
        self.assertRegex(table["cache"], r"KiB$")
        self.assertRegex(table["last prompt"], rf"^{len(LINE)} at [\d.]+ tokens/s$")
        self.assertRegex(table["last decoded"], rf"^{TOKENS - 1} at [\d.]+ tokens/s$")
        _, errors = self.talk(LINE, "--stats")
        self.assertRegex(errors, rf"prompt {len(LINE)} tokens, .* decoded {TOKENS - 1} tokens")

    def test_wrong_commands_change_nothing(self):
        with open(self.path("bad.json"), "w") as file:
            file.write('{"default": "d0"}')
        count = len(LINE) + TOKENS
        cases = [("/bogus", 'no command "/bogus": /help'), ("/", 'no command "/"'),
                 ("/variant", "/variant needs NAME, for example /variant d16"),
                 ("/variant d16x", '"d16x" is not a variant: dense, d16'),
                 ("/variant d0", '"d0" is not a variant'),
                 ("/variant " + "/".join(["d4"] * 9), "names 9 layers"),
                 ("/policy", "/policy needs FILE"), ("/policy /nowhere", "No such file"),
                 ("/policy " + self.path("bad.json"), "line 1"),
                 ("/stats now", '/stats stands alone, without "now"'),
                 ("/rewind", "/rewind needs N"), ("/rewind 0", f"whole number from 1 to {count}"),
                 (f"/rewind {count + 1}", f"whole number from 1 to {count}"),
                 ("/rewind -1", "whole number"), ("/rewind 1.5", "whole number"),
                 ("/rewind all", '"all" is not a whole number'),
                 ("/fork 7", '"7" is a number'), ("/fork twin", '"twin" is conversation 2'),
                 ("/fork " + "x" * 40, "more than the limit of 31"),
                 ("/switch", "/switch needs N"), ("/switch 9", 'no conversation "9"; /forks'),
                 ("/switch none", 'no conversation "none"'),
                 ("/drop", "/drop needs N"), ("/drop 9", 'no conversation "9"'),
                 ("/drop 1", "1 is the current conversation; /switch"),
                 ("/reset 1", "/reset stands alone"), ("/more 1", "/more stands alone"),
                 ("/temperature hot", '"hot" is not a number from 0 to 100'),
                 ("/temperature -1", "not a number"), ("/quit now", "/quit stands alone"),
                 ("/stats\0", "no byte 0"),
                 ("/save", "/save needs FILE"), ("/save -", "/save -: standard input is"),
                 ("/save /nowhere/talk.rat", "/nowhere/talk.rat: its folder cannot be opened: No such file"),
                 ("/save " + self.work.name, self.work.name + ": this is a folder, a pipe or a device"),
                 ("/load", "/load needs FILE"), ("/load /nowhere/talk.rat", "No such file"),
                 ("/load " + self.path("bad.json"), "not a conversation that /save wrote")]
        begin = LINE + b"/fork twin\n/switch 1\n/forks\n"
        text = begin + b"".join(line.encode() + b"\n" for line, _ in cases) + b"/forks\n" + OTHER
        out, errors = self.talk(text)
        self.assertEqual(out, self.talk(LINE + OTHER)[0])
        for _, message in cases:
            self.assertIn(message, errors)
        tables = re.findall(r"  conversation +tokens.*\n.*\n.*\n", errors)
        self.assertEqual(len(tables), 2, errors)
        self.assertEqual(*tables)
        # One line for each.
        between = errors[errors.index(tables[0]) + len(tables[0]):errors.rindex(tables[0])]
        self.assertEqual(len(between.splitlines()), len(cases), between)
        _, errors = self.talk(b"/more\n/rewind 1\n/drop 1\n/temperature 0.5\n/help\n")
        self.assertRegex(errors, r"no text to go on with yet.*\nthere is nothing to forget.*\n"
                                 r"1 is the current conversation; /reset.*\ntemperature 0.5\n")
        for name in ("/variant d16w256s4", "/rewind 16", "/fork other", "/switch 1", "/quit"):
            self.assertIn(name, errors)

    def test_retention_needed_refuses(self):
        options = ("--retention", "needed", "--variant", "d16w16s4")
        once, _ = self.talk(HIDDEN + OTHER, *options)
        out, errors = self.talk(HIDDEN + b"/variant dense\n/rewind 100\n" + OTHER, *options)
        self.assertEqual(out, once)
        self.assertIn("the variant stays d16w16s4: ", errors)
        self.assertIn("the sequence stays as it is: ", errors)
        self.assertEqual(errors.count("RATP_NOT_RETAINED"), 2, errors)
        # The variant is still the old one, and a smaller one may follow.
        _, errors = self.talk(HIDDEN + b"/variant dense\n/variant d32w8s4\n", *options)
        self.assertRegex(errors, r"tokens, d32w8s4, cache")

    def test_long_texts(self):
        text = b"And he went up. " * 80
        _, errors = self.talk(text + b"\n/more\n", "--tokens", "2")
        self.assertEqual(errors.count("more than the model's context of 1024"), 1, errors)
        _, errors = self.talk(OTHER, "--tokens", "2", "--prompt", text)
        self.assertEqual(errors.count("more than the model's context of 1024"), 1, errors)
        out, _ = self.talk(text + b"\n" + OTHER, "--chunk", "100")
        self.assertEqual(out, self.talk(text + b"\n" + OTHER)[0])

    def test_seeds(self):
        options = ("--temperature", "1", "--seed", "5")
        self.assertEqual(self.talk(LINE + OTHER, *options), self.talk(LINE + OTHER, *options))
        self.assertEqual(self.talk(LINE, *options)[0], self.fresh(LINE, *options))
        self.assertEqual(self.talk(b"/temperature 0\n" + LINE, *options)[0], self.fresh(LINE))

    def test_a_text_begins_once(self):
        folder = self.path("pieces")
        shutil.copytree(MODEL, folder)
        with open(os.path.join(MODEL, "config.json")) as file:
            config = json.load(file)
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({**config, "tokenizer": "sentencepiece"}, file)
        with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
            file.write(pieces())

        done = subprocess.run([RUNNER, folder, *PLACE, "--interactive", "--tokens", "0"],
                              input=b"and he\n/stats\nand he\n/stats\n/reset\nand he\n/stats\n",
                              capture_output=True)
        if b"which this build does not have" in done.stderr:
            self.skipTest("this build has no SentencePiece")
        self.assertEqual(done.returncode, 0, done.stderr)
        one, two, three = map(int, re.findall(rb"\ntokens +(\d+)\n", done.stderr))
        self.assertGreater(one, 6)
        self.assertEqual(two, 2 * one - 1)
        self.assertEqual(three, one)

    def test_options(self):
        cases = [(("--compare", "dense,d4"), "--compare"), (("--json",), "--json"),
                 (("--logits", "x"), "--logits"), (("--prompt-tokens", "3"), "--prompt-tokens"),
                 (("--tokens-file", "x"), "--tokens-file"), (("--file", "-"), "--file -"),
                 (("--policy", "-"), "--policy -")]
        for options, name in cases:
            process = self.start("--interactive", *options)
            out, errors = process.communicate(LINE)
            self.assertEqual((process.returncode, out), (1, b""))
            self.assertIn(f"does not go with {name}\n", errors.decode())
        process = self.start("--interactive", "--prompt", "x", "--file", "y")
        self.assertIn(b"one of --prompt and --file, or none", process.communicate()[1])

    def test_interrupt_stops_the_model(self):
        # Long enough that it cannot end by itself.
        process = self.start("--interactive", "--tokens", "100000")
        process.stdin.write(LINE)
        process.stdin.flush()
        text = read_until(process.stdout, b"(?s).{8}")
        process.send_signal(signal.SIGINT)
        told = read_until(process.stderr, rb"\(stopped\)\n")
        # The whole text is part of the conversation.
        out, errors = process.communicate(b"/stats\n", timeout=60)
        self.assertEqual(process.returncode, 0, errors)
        tokens = len(LINE) + len(text + out) - 1
        self.assertRegex((told + errors).decode(), rf"\ntokens +{tokens}\n")

    def test_interrupt_while_text_is_fed(self):
        ours, theirs = pty.openpty()
        process = self.start("--interactive", "--chunk", "2", stderr=theirs)
        os.close(theirs)
        process.stdin.write(LINE)
        process.stdin.flush()
        read_until(process.stdout, b"\n$")
        process.stdin.write(b"x" * 50000 + b"\n")
        process.stdin.flush()
        read_until(ours, rb"prompt \[[#.]+\] 1\d\d/50002")
        process.send_signal(signal.SIGINT)
        read_until(ours, rb"stays as it was: stopped after \d+ of 50002 tokens\r\n")
        process.stdin.write(b"/stats\n")
        process.stdin.flush()
        read_until(ours, rb"\ntokens +%d\r\n" % (len(LINE) + TOKENS))
        out, _ = process.communicate(OTHER, timeout=60)
        os.close(ours)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(out, self.talk(LINE + OTHER)[0][TOKENS + 1:])

    def at_terminal(self, keys, expected):
        """Types at a prompt, waits for what is expected, and gives all that was shown."""
        ours, theirs = pty.openpty()
        process = self.start("--interactive", stdin=theirs, stdout=theirs, stderr=theirs,
                             start_new_session=True)
        os.close(theirs)
        shown = b""
        for key, wanted in zip(keys, expected):
            shown += read_until(ours, rb"> $")
            os.write(ours, key)
            shown += read_until(ours, wanted)
        process.wait(60)
        os.close(ours)
        self.assertEqual(process.returncode, 0, shown)
        return shown.replace(b"\r\n", b"\n")

    def test_terminal(self):
        said = self.fresh(LINE)
        shown = self.at_terminal([LINE, b"\x04"], [b"land,\r\n", b"\n"])
        self.assertIn(b"> " + LINE + said, shown)
        self.assertIn(b"/help lists the commands", shown)
        # Ctrl-D after some text feeds it as it is.
        said = self.fresh(b"And the king")
        shown = self.at_terminal([b"And the king\x04", b"/quit\n"],
                                 [b"And the king", b"quit"])
        self.assertIn(b"> And the king" + said, shown)

    def test_interrupt_at_the_prompt_leaves(self):
        process = self.start("--interactive")
        process.stdin.write(b"/temperature\n")
        process.stdin.flush()
        read_until(process.stderr, b"temperature 0")
        # Twice: the first may come while the command is still being answered.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        process.wait(60)
        process.communicate()
        self.assertEqual(process.returncode, 0)


unittest.main(argv=sys.argv[:1], verbosity=0)
