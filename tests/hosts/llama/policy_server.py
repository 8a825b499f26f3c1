"""A llama-server with the ggml backend, whose policy file changes while it answers.
Usage: policy_server.py PLUGIN MODEL.gguf FOLDER"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

PORT = 18600 + os.getpid() % 1000
CHOOSING = '{"default": "quest32p8", "rules": [{"layers": 1, "variant": "moba16k3"}]}'
LONG, SHORT = "In_the_beginning_" * 12, "A_cat_and_a_dog_" * 5


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def say(prompt, slot, count=24, keep=False):
    body = {"prompt": prompt, "n_predict": count, "temperature": 0, "id_slot": slot}
    return call("/completion", body | {"ignore_eos": True, "cache_prompt": keep})["content"]


def both(count=24):
    """Two sequences of unlike lengths at once."""
    said = [None, None]

    def one(slot, prompt):
        said[slot] = say(prompt, slot, count)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate((LONG, SHORT))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


class Server:
    def __init__(self, plugin, model, folder, more=()):
        self.policy = os.path.join(folder, "served.json")
        self.write('{"default": "dense"}')
        self.log = open(os.path.join(folder, "served.log"), "w+b")
        env = os.environ | {"GGML_BACKEND_PATH": plugin, "RATPLUS_POLICY": self.policy}
        arguments = ["-m", model, "-ngl", "99", "-fa", "on", "-c", "1024", "-np", "2", "--no-warmup", "-t", "1"]
        self.process = subprocess.Popen(
            ["llama-server", "--port", str(PORT)] + arguments + list(more),
            env=env | {"RATPLUS_STATS": "json"}, stdout=self.log, stderr=self.log)

    def write(self, text):
        with open(self.policy, "w", encoding="utf-8") as file:
            file.write(text)

    def lines(self, begin):
        self.log.seek(0)
        return [line.decode(errors="replace") for line in self.log if line.startswith(begin)]

    def wait(self):
        for _ in range(300):
            try:
                return call("/health")
            except OSError:
                time.sleep(0.1)
        raise SystemExit("llama-server does not answer")

    def stats(self):
        """By the signal: printed before the next graph."""
        self.process.send_signal(signal.SIGUSR1)
        say("x", 1, 2)
        return json.loads(self.lines(b'{"attention_nodes"')[-1])


def check(server):
    wrong = []

    def want(good, what):
        if not good:
            wrong.append(what)

    server.wait()
    alone = {}
    for policy in ("dense", "d16w16", "streamw8s2"):
        server.write(json.dumps({"default": policy}))
        alone[policy] = [say(LONG, 0), say(SHORT, 1)]
        want(both() == alone[policy], f"{policy}: two at once say something else")
    want(len({said[0] for said in alone.values()}) == 3, "policies say the same")
    stats = server.stats()
    want(not stats["fallbacks"], f"fallbacks {stats['fallbacks']}")
    want(set(alone) <= set(stats["attention"]), f"not all ran: {stats['attention']}")

    # A corrupt file: the policy before stays, and one line says so.
    server.write('{"default": "d16w16"')
    want(both() == alone["streamw8s2"], "a corrupt policy changed the text")
    says = [line for line in server.lines(b"ratplus:") if "ends early" in line]
    want(len(says) == 1 and "the one before stays in force" in says[0], f"lines {says}")

    # Changes while tokens are decoded.
    load = threading.Thread(target=both, args=(200,))
    load.start()
    changes = 0
    while load.is_alive():
        server.write(json.dumps({"default": f"d{changes % 2 + 4}w{8 + changes % 20}"}))
        changes += 1
        time.sleep(0.02)
    load.join()
    server.write('{"default": "d16w16"}')
    want(both() == alone["d16w16"], "after many changes the text is another")
    ways = [way for way in server.stats()["attention"] if re.match("d[45]w", way)]
    want(len(ways) > 1, f"{changes} changes under load, of which {ways} ran")

    # Two prompts that share their first half: what is known of the first's second half and
    # of what it was answered must not be what the second's queries choose by.
    ends = [LONG + end * 6 for end in ("The_first_tale_", "And_others_say_")]
    alone = []
    for prompt in ends:
        server.write('{"default": "dense"}')
        say("x", 1, 2)
        want(not server.stats()["summary_bytes"], "summaries outlive the policy that needs them")
        server.write(CHOOSING)
        alone.append(say(prompt, 0))
    want(alone[0] != alone[1], "unlike prompts say the same")
    want([say(prompt, 0, keep=True) for prompt in ends * 2] == alone * 2,
         "after a prompt that begins alike another says something else")
    stats = server.stats()
    want({"quest32p8", "moba16k3"} <= set(stats["attention"]), "nothing was chosen")
    want(stats["summary_bytes"] > 0, "no summaries are kept")
    # And where the server itself writes the cache, of a prompt that it had put aside.
    first = say(ends[1], 0, keep=True)
    say(SHORT, 0, keep=True)
    want(say(ends[1], 0, keep=True) == first, "quest: a slot that was brought back differs")
    want(both() == [say(LONG, 0), say(SHORT, 1)], "quest: two at once say something else")

    # Two completions of one request: the server copies the prompt's cells to its other slot.
    for policy in (CHOOSING, '{"default": "streamw8s2"}'):
        server.write(policy)
        first = say(LONG, 0)
        body = {"prompt": LONG, "n_predict": 24, "temperature": 0, "ignore_eos": True, "n_cmpl": 2}
        said = [answer["content"] for answer in call("/completion", body | {"cache_prompt": False})]
        want(said == [first, first], f"{policy}: two completions of one request differ: {said}")
    server.write('{"default": "d16w16"}')

    # A slot that the server keeps aside and brings back goes on as before. The prompt is
    # new: what the server kept of others was computed under other policies.
    first = say(LONG[9:], 0)
    say(LONG[9:], 0, 8, True)
    say(SHORT, 0, 8, True)
    said = say(LONG[9:], 0, 24, True)
    want(said == first, "a slot that was brought back says something else")
    want(not server.stats()["fallbacks"], f"fallbacks {server.stats()['fallbacks']}")
    print(f"{changes} changes under load, {len(ways)} variants of them ran")
    return wrong


def main(plugin, model, folder):
    server = Server(plugin, model, folder)
    try:
        wrong = check(server)
    finally:
        server.process.send_signal(signal.SIGINT)
        code = server.process.wait(30)
    if code:
        wrong.append(f"llama-server ended with {code}")
    if not json.loads(server.lines(b'{"attention_nodes"')[-1])["cache_writes"]:
        wrong.append("no statistics at its end")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
