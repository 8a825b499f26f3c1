"""Pictures of training."""
import json
import os

from .files import reading, save_figure


def read_log(folder):
    """Entries by step; a resumed run's later ones replace what they repeat."""
    entries = {}
    with reading(os.path.join(folder, "log.jsonl"), "r", encoding="ascii") as file:
        for line in file:
            entry = json.loads(line)
            entries[entry["step"], "held_out" in entry] = entry
    return [entries[key] for key in sorted(entries)]


def draw_logs(folders, path):
    try:
        import matplotlib
    except ImportError:
        raise ValueError("matplotlib is missing; on Debian: apt install python3-matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for folder in folders:
        name = os.path.basename(os.path.normpath(folder))
        entries = read_log(folder)
        trained = [entry for entry in entries if "text" in entry]
        left.plot([e["step"] for e in trained], [e["text"] for e in trained], label=name)
        checks = [entry for entry in entries if "held_out" in entry]
        for variant in sorted(checks[-1]["held_out"]) if checks else ():
            right.plot([e["step"] for e in checks],
                       [100 * e["held_out"][variant]["right"] for e in checks],
                       label=f"{name}, {variant}")
    left.set(xlabel="step", ylabel="nats a byte of text", ylim=(1, 2.2))
    right.set(xlabel="step", ylabel="right answers, %", ylim=(0, 102))
    for axis in (left, right):
        axis.legend(fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save_figure(figure, path)
