"""The training loop: growing contexts, half of each batch dense and half dilated."""
import contextlib
import dataclasses
import json
import math
import os
import sys
import time

import torch

from . import checkpoint
from .attention import Variant
from .data import Source
from .files import append_text
from .losses import dispersion, exact, split_loss

REPORT = 20      # steps between two lines of the log
CHECK = 200      # steps between two checks on held-out text, and two checkpoints
CHECK_ROWS = 16


@dataclasses.dataclass
class Plan:
    """What a run does: everything that its result depends on, but for the data."""

    stages: list            # (context, steps)
    sparse: Variant         # what half of each batch attends, or all of it
    sparse_share: float     # 0.5 in active recurrence learning, 1 in adaptation
    batch_tokens: int = 8192
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.1
    answer_weight: float = 1.0
    dispersion_weight: float = 0.0
    needles: int = 8
    needle_share: float = 0.75
    seed: int = 1

    @property
    def steps(self):
        return sum(steps for _, steps in self.stages)

    def context(self, step):
        for context, steps in self.stages:
            if step < steps:
                return context
            step -= steps
        return self.stages[-1][0]

    def learning_rate(self, step):
        """Warm-up, then half a cosine down to a twentieth."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def has_amx():
    """Whether bfloat16 is faster than float32 on this processor."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return " amx_bf16" in file.read()
    except OSError:
        return False


def precision(name, device):
    """A context in which matrix products run in the wanted type."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" or has_amx() else "float32"
    if name == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


class Progress:
    """One line on a terminal; a line now and then elsewhere."""

    def __init__(self, total, start, quiet):
        self.total, self.start, self.began = total, start, time.monotonic()
        self.live, self.quiet = sys.stderr.isatty() and not quiet, quiet

    def show(self, step, text, keep):
        if self.quiet:
            return
        passed = time.monotonic() - self.began
        left = passed / max(1, step - self.start) * (self.total - step)
        line = f"{step:6}/{self.total}  {text}  {left / 60:5.1f} min left"
        if self.live:
            sys.stderr.write("\r\033[K" + line + ("\n" if keep else ""))
        elif keep:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


class Run:
    def __init__(self, model, plan, texts, held_out, folder, device, precision_name="auto",
                 quiet=False):
        self.model, self.plan, self.folder, self.device = model.to(device), plan, folder, device
        self.source = Source(texts, plan.seed)
        self.held_out = held_out
        self.within = precision(precision_name, device)
        self.quiet = quiet
        self.step = 0
        self.seconds = 0.0
        matrices = [w for w in model.parameters() if w.dim() == 2]
        others = [w for w in model.parameters() if w.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0}],
            lr=plan.rate, betas=(0.9, 0.95))

    @property
    def path(self):
        return os.path.join(self.folder, "checkpoint.pt")

    def resume(self):
        state = checkpoint.load(self.path)
        if state["plan"] != dataclasses.asdict(self.plan):
            raise ValueError(f"{self.path} is of a run with other settings: give those, or another "
                             "--out")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.source.random.bit_generator.state = json.loads(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self):
        checkpoint.save(self.path, {
            "shape": dataclasses.asdict(self.model.shape),
            "plan": dataclasses.asdict(self.plan),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": json.dumps(self.source.random.bit_generator.state),
            "step": self.step,
            "seconds": self.seconds,
        })

    def log(self, entry):
        append_text(os.path.join(self.folder, "log.jsonl"), json.dumps(entry) + "\n")

    def batch(self, source, rows, context, share):
        plan = self.plan
        tokens, worths = (torch.from_numpy(array).to(self.device)
                          for array in source.batch(rows, context, plan.needles, share))
        return tokens[:, :-1], tokens[:, 1:], worths[:, 1:]

    def train_step(self):
        plan = self.plan
        context = plan.context(self.step)
        rows = max(2, plan.batch_tokens // context)
        sparse = round(rows * plan.sparse_share)
        parts = [part for part in ((rows - sparse, Variant()), (sparse, plan.sparse)) if part[0]]
        tokens, targets, worths = self.batch(self.source, rows, context, plan.needle_share)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate(self.step)
        self.model.train()
        after = [] if plan.dispersion_weight else None
        with self.within():
            logits = self.model(tokens, parts, after)
        text, answers = split_loss(logits, targets, worths)
        loss = text + plan.answer_weight * answers
        if plan.dispersion_weight:
            spread = sum(dispersion(x) for x in after) / len(after)
            loss = loss + plan.dispersion_weight * spread
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(text.detach()), float(answers.detach())

    @torch.no_grad()
    def check(self):
        """Held-out nats per byte and share of right answers, dense and sparse."""
        self.model.eval()
        context = self.plan.context(self.step - 1)
        found = {}
        for variant in {Variant(), self.plan.sparse}:
            source = Source(self.held_out, 12345)
            right = asked = text = 0
            for _ in range(CHECK_ROWS // 4):
                tokens, targets, worths = self.batch(source, 4, context, 1)
                with self.within():
                    logits = self.model(tokens, [(4, variant)])
                text += float(split_loss(logits, targets, worths)[0]) * 4 / CHECK_ROWS
                counts = exact(logits, targets, worths)
                right, asked = right + counts[0], asked + counts[1]
            found[str(variant)] = {"nats": text, "right": right / asked}
        return found

    def run(self):
        plan = self.plan
        progress = Progress(plan.steps, self.step, self.quiet)
        text = answers = None
        while self.step < plan.steps:
            began = time.monotonic()
            new = self.train_step()
            self.seconds += time.monotonic() - began
            self.step += 1
            text, answers = (b if a is None else a + 0.05 * (b - a)
                             for a, b in zip((text, answers), new))
            line = f"context {plan.context(self.step - 1):5}  text {text:.3f}  answers {answers:.3f}"
            keep = self.step % REPORT == 0
            if keep:
                self.log({"step": self.step, "context": plan.context(self.step - 1), "text": text,
                          "answers": answers, "seconds": self.seconds})
            if self.step % CHECK == 0 or self.step == plan.steps:
                found = self.check()
                self.log({"step": self.step, "held_out": found})
                line += "".join(f"  {name} {entry['nats']:.3f} {entry['right']:.0%}"
                                for name, entry in sorted(found.items()))
                self.save()
                keep = True
            progress.show(self.step, line, keep)
