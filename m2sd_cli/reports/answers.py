"""Answers of all sessions of a chain to test images, in one pass over them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.distributed.process_group import ProcessGroup
from m2sd_cli.method.calibration import Confidence


class Answers(NamedTuple):
    """Answers of S sessions to N images; the figures of an evaluation follow from them.

    No tensor has a column for each of C classes: the logits (N, C) of a long chain would not fit into memory.
    """

    labels: Tensor  # (N,) class of each image in [0, C); -1 for a class that the chain does not know
    lost: Tensor  # (N,) session from which on the answers are wrong, see `first_loss`
    lost_top5: Tensor  # (N,) session from which on the label is not among the five best classes
    predicted: Tensor  # (N,) answer of the last session
    score: Tensor  # (N, S) `known_score` among the classes of each session
    probability: Tensor  # (N, S) of the answer of each session: softmax at temperature T


def class_sessions(sizes: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Map each class to the session that teaches it.

    Args:
        sizes: classes known after session 0, 1, ..., S - 1, ascending.

    Returns:
        (C + 1,); the last entry, which index -1 finds too, is S: no session teaches an unknown class.
    """
    new = torch.tensor([0, *sizes]).diff()
    sessions = torch.arange(len(sizes) + 1)
    return torch.cat([sessions[:-1].repeat_interleave(new), sessions[-1:]]).to(device)


def first_loss(logits: Tensor, labels: Tensor, taught: Tensor, best: int = 1) -> Tensor:
    """Find the session from which on an image is answered wrongly; S if none is.

    Session b answers with the best of the classes that it knows. An image is answered rightly from the session that
    teaches its class until the first session that knows a class which beats it, and wrongly ever after.

    Args:
        logits: (B, C).
        labels: (B,) in [0, C).
        taught: (C + 1,) of `class_sessions`.
        best: k; an answer is right if fewer than k classes beat the image's class.

    Returns:
        (B,), at least the session that teaches the image's class.
    """
    columns = torch.arange(logits.shape[1], device=logits.device)
    label = labels[:, None]
    target = logits.gather(1, label)
    # An earlier class wins a draw, as it does in one argmax over the whole prefix.
    behind = (logits < target) | ((logits == target) & (columns >= label))
    # The classes at which at least k rivals are known; the first of them is the k-th rival.
    beaten = ~behind if best == 1 else (~behind).cumsum(dim=1, dtype=torch.int32) >= best
    lost, rival = beaten.max(dim=1)
    rival = torch.where(lost, rival, len(columns))
    return torch.maximum(taught[rival], taught[labels])


def session_answers(
    logits: Tensor, labels: Tensor, sizes: Sequence[int], confidence: Confidence, likeness: Tensor
) -> Answers:
    """Answer with every session of a chain.

    Args:
        logits: (B, C), finite.
        labels: (B,) in [0, C), or -1 for a class that the chain does not know.
        sizes: classes known after session 0, 1, ..., S - 1, ascending.
        confidence: gives T.
        likeness: (B, C), see `known_score`.
    """
    tempered = confidence.tempered(logits)
    known, taught = labels.clamp(min=0), class_sessions(sizes, logits.device)
    last = torch.tensor(list(sizes), device=logits.device) - 1  # the last class of each session
    best = logits.cummax(dim=1).values.index_select(1, last)
    total = tempered.logcumsumexp(dim=1).index_select(1, last.to(tempered.device))
    return Answers(
        labels=labels,
        lost=first_loss(logits, known, taught),
        lost_top5=first_loss(logits, known, taught, best=5),
        predicted=logits.argmax(dim=1),
        score=likeness.cummax(dim=1).values.index_select(1, last),
        probability=(confidence.tempered(best) - total).exp(),
    )


def gather_answers(batches: Sequence[Answers], group: ProcessGroup) -> Answers:
    """Join the answers of all batches of all processes, in the order of the images; on the CPU.

    Args:
        batches: of this process, at least one, which may have no image.
        group: whose processes share the images.
    """
    joined = [torch.cat(parts).cpu() for parts in zip(*batches, strict=True)]
    return Answers(*(group.all_gather(each.flatten()).view(-1, *each.shape[1:]) for each in joined))
