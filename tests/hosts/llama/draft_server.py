"""Whether a llama-server of two slots says with a draft model what it says without, under a policy
where decoded tokens attend otherwise than prompts.
Usage: draft_server.py PLUGIN MODEL.gguf DRAFT.gguf FOLDER"""

import json
import signal
import sys

from policy_server import LONG, SHORT, Server, both, say


def texts(plugin, model, folder, more):
    """One at a time, a prompt that the server has in its cache, and two at once."""
    server = Server(plugin, model, folder, more)
    try:
        server.write('{"default": "dense:streamw16s4"}')
        server.wait()
        said = [say(LONG, 0, 40), say(SHORT, 1, 40), say(LONG, 0, 40, True), say(LONG, 0, 40, True), *both(40)]
    finally:
        server.process.send_signal(signal.SIGINT)
        code = server.process.wait(30)
    if code:
        raise SystemExit(f"llama-server ended with {code}")
    return said, json.loads(server.lines(b'{"attention_nodes"')[-1])


def main(plugin, model, draft, folder):
    plain, stats = texts(plugin, model, folder, [])
    wrong = [f"without drafts {stats['fallbacks']}"] if stats["fallbacks"] else []
    for name in (model, draft):
        more = ["-md", name, "--spec-type", "draft-simple", "--spec-draft-n-max", "5", "-ngld", "99"]
        said, _ = texts(plugin, model, folder, more)
        wrong += [f"{name} drafts: {a!r}, without {b!r}" for a, b in zip(said, plain) if a != b]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


sys.exit(main(*sys.argv[1:]))
