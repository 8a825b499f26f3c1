"""What is minimised, and how well a model answers."""
import torch
import torch.nn.functional as F

from .data import ANSWER, TEXT


def dispersion(hidden, positions=64, temperature=0.5):
    """Spreads what the tokens of a sequence become: the logarithm of the mean of
    exp(-angle / (pi temperature)) over the pairs of different tokens of a row, least
    when no two point the same way; the angular form of arXiv 2602.00217, which fights
    the collapse of a small model's embeddings into a narrow cone. hidden (B, T, d); so
    many positions of each row stand for all."""
    step = max(1, hidden.shape[1] // positions)
    rows = F.normalize(hidden[:, ::step].float(), dim=-1)
    apart = ~torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    # The arc cosine has no slope at 1.
    cosines = (rows @ rows.mT)[:, apart].clamp(-1 + 1e-4, 1 - 1e-4)
    nearness = -torch.arccos(cosines) / (torch.pi * temperature)
    return (nearness.logsumexp(1) - torch.log(torch.tensor(nearness.shape[1]))).mean()


def split_loss(logits, targets, worths):
    """Mean nats per byte of text and per byte of an answer; 0 where there is none."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    kinds = worths.flatten()
    parts = []
    for kind in (TEXT, ANSWER):
        chosen = kinds == kind
        parts.append((nats * chosen).sum() / chosen.sum().clamp(min=1))
    return parts


def exact(logits, targets, worths):
    """(answers that are right in every byte, answers) of teacher-forced rows, which is
    what greedy decoding would give."""
    right = (logits.argmax(-1) == targets) | (worths != ANSWER)
    answers = worths == ANSWER
    starts = answers.clone()
    starts[:, 1:] &= ~answers[:, :-1]
    number = starts.cumsum(1)[answers] + 10000 * answers.nonzero()[:, 0]
    wrong = torch.unique(number[~right[answers]])
    return int(starts.sum()) - len(wrong), int(starts.sum())


