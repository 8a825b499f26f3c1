"""Whether llama-server answers on RATPLUS0 as it does on the CPU.
Usage: server.py PLUGIN MODEL.gguf FOLDER

Answers are greedy. They may part where the CPU's two best tokens are as near each
other as its flash attention is coarse (its queries and sums are f16)."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

PLUGIN, MODEL, FOLDER = sys.argv[1:]
TIE = 0.08  # of logits, whose spread is 1.6
TEXTS = [
    "Once upon a time there was a cat who lived in a house by the sea, alone",
    "Tell me more of it",
    "The dog that came to the house on the hill in the evening was an old one",
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, process, port):
        self.process, self.port = process, port

    def open(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body))
        return connection, connection.getresponse()

    def ask(self, method, path, body=None):
        connection, response = self.open(method, path, body)
        with contextlib.closing(connection):
            text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: status {response.status}, {text[:200]}")
        return json.loads(text)

    def complete(self, slot, prompt, tokens, **more):
        """What it goes on with, as pairs of a token and how far behind the second best was;
        and how many tokens of the prompt were computed."""
        body = dict(id_slot=slot, prompt=prompt, n_predict=tokens, temperature=0, ignore_eos=True,
                    n_probs=2, **more)
        answer = self.ask("POST", "/completion", body)
        steps = []
        for step in answer["completion_probabilities"]:
            best, second = (top["logprob"] for top in step["top_logprobs"])
            steps.append((step["id"], best - second))
        if len(steps) != tokens:
            raise RuntimeError(f"{len(steps)} tokens came, {tokens} were asked for")
        return steps, answer["timings"]["prompt_n"]

    def cancel(self, slot, prompt):
        """Leaves in the middle of an answer."""
        body = dict(id_slot=slot, prompt=prompt, n_predict=100000, temperature=0, ignore_eos=True, stream=True)
        connection, response = self.open("POST", "/completion", body)
        for _ in range(8):
            response.readline()
        # The connection ends when the response does too.
        response.close()
        connection.close()


@contextlib.contextmanager
def server(ours, options):
    """One that dies with this process, however that ends."""
    port = free_port()
    command = ["setpriv", "--pdeathsig", "KILL", "llama-server", "-m", MODEL, "--host", "127.0.0.1",
               "--port", str(port), "--offline", "--no-webui", "--no-warmup", "-fa", "on", "-ngl", "99",
               "-np", "2", "-t", "1", "--slot-save-path", FOLDER, *options]
    environment = dict(os.environ, GGML_BACKEND_PATH=PLUGIN if ours else "", RATPLUS_STATS="1")
    path = os.path.join(FOLDER, "server.ours.txt" if ours else "server.cpu.txt")
    with open(path, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    try:
        started = Server(process, port)
        until = time.monotonic() + 60
        while True:
            try:
                started.ask("GET", "/health")
                break
            except (OSError, RuntimeError):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"llama-server did not start, see {path}")
                time.sleep(0.1)
        yield started
        process.send_signal(signal.SIGINT)
        if process.wait(30) != 0:
            raise RuntimeError(f"llama-server ended with status {process.returncode}, see {path}")
    finally:
        process.kill()
        process.wait()
    with open(path, errors="replace") as log:
        ran = [line for line in log if line.startswith("ratplus:") and " ran " in line]
    if ours and not any(" ran 0 " not in line for line in ran):
        raise RuntimeError(f"nothing ran on RATPLUS0, see {path}")


def parting(cpu, ours):
    """Where and how they part, or None."""
    for i, ((a, gap), (b, _)) in enumerate(zip(cpu, ours)):
        if a != b:
            return None if gap < TIE else f"token {i} is {a}, best by {gap:.2g}, on the CPU, and {b} here"
    return None


def parallel(s):
    answers = [None, None]

    def one(slot):
        answers[slot] = s.complete(slot, TEXTS[slot], 40)[0]

    threads = [threading.Thread(target=one, args=[slot]) for slot in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers[0] + answers[1]


def cancelled(s):
    s.cancel(0, TEXTS[2])
    return s.complete(0, TEXTS[0], 24, cache_prompt=False)[0]


def saved(s):
    """A slot saved, used for something else, and restored: it goes on with no prompt computed."""
    first, _ = s.complete(1, TEXTS[1], 16)
    text = [1] + [3 + byte for byte in TEXTS[1].encode()] + [token for token, _ in first]
    kept = s.ask("POST", "/slots/1?action=save", {"filename": "slot"})
    straight, _ = s.complete(1, text, 24)
    s.complete(1, TEXTS[2], 4)
    back = s.ask("POST", "/slots/1?action=restore", {"filename": "slot"})
    again, computed = s.complete(1, text, 24)
    if kept["n_saved"] != back["n_restored"] or computed > 2:
        raise RuntimeError(f"{kept['n_saved']} saved, {back['n_restored']} restored, {computed} computed")
    if parting(straight, again):
        raise RuntimeError("a restored slot goes on otherwise than before it was saved")
    return first + again


def shifted(s):
    """Past the end of the context, whose older half is dropped."""
    return s.complete(0, TEXTS[0], 300)[0]


def reused(s):
    """A prompt with a part cut out: what follows is moved in the cache, not computed again."""
    s.complete(0, TEXTS[0] + TEXTS[2], 2)
    tokens, computed = s.complete(0, TEXTS[0][:20] + TEXTS[2], 24)
    if computed > 40:
        raise RuntimeError(f"{computed} tokens of the prompt were computed")
    return tokens


def main():
    # A kill from outside runs the `finally` above, as an interrupt does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("server.py was ended"))
    bad = 0
    for options in (["-c", "512"], ["-c", "256", "--kv-unified"]):
        options += ["--context-shift", "--cache-reuse", "8"]
        answers = []
        for ours in (False, True):
            with server(ours, options) as s:
                answers.append([what(s) for what in (parallel, cancelled, saved, reused, shifted)])
        for what, cpu, ours in zip(("two at a time", "after a cancelled one", "a restored slot",
                                    "with a part cut out", "past the context"), *answers):
            why = parting(cpu, ours)
            if why:
                bad += 1
                print(f"{' '.join(options)}: {what}: {why}")
    return bad


sys.exit(min(main(), 1))
