"""Whether probabilities are right as often as they say, and whether classes not yet taught are noticed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.method.calibration import Confidence
from m2sd_cli.method.numerics import float64_device
from m2sd_cli.reports.metrics import first_loss, sessions_taught
from m2sd_cli.reports.separation import Separation, SeparationFigures, summed

ECE_BINS = 15
UNIT = 2**32  # a probability is counted in steps of 1 / UNIT


class Answers(NamedTuple):
    """What sessions 0, 1, ... say of B images; each (B, S). A session knows only its first classes."""

    best: Tensor  # the highest logit over T, which is `known_score`
    total: Tensor  # log sum exp of the logits over T

    @property
    def probability(self) -> Tensor:
        """Of the best class: softmax at temperature T."""
        return (self.best - self.total).exp()


def bounded(score: Tensor, confidence: Confidence) -> Tensor:
    """Scores, which every classifier and network has of another size, to [0, 1] in their order.

    That is (1 + x / (2 + |x|)) / 2, x in standard deviations from the mean of images held out: steep where scores lie,
    and falling off so slowly that bins tell scores far away apart, too. On 2,529 images it moved AUROC by 0.01 points.
    """
    x = (score - confidence.mean) / confidence.deviation
    return (1 + x / (2 + x.abs())) / 2


class Reliability:
    """Expected calibration error of several sessions at once: the mean over images of |accuracy - probability|, each
    taken over the images of a bin of probability (Guo et al., ICML 2017, equation 3).

    Memory does not grow with the images, and only whole numbers are added: batches and processes change no digit.

    Args:
        sessions: S.
        device: where probabilities are.
    """

    def __init__(self, sessions: int, device: torch.device | str = "cpu") -> None:
        # Images, right answers, probabilities in UNITs.
        self._sums = torch.zeros(3, sessions * ECE_BINS, dtype=torch.int64, device=device)
        self._begin = torch.arange(sessions, device=device) * ECE_BINS

    def add(self, probability: Tensor, right: Tensor, counted: Tensor) -> None:
        """Count B images.

        Args:
            probability: (B, S), of the answer.
            right: (B, S) bool, whether the answer is the label.
            counted: (B, S) bool, whether the session knows the label.
        """
        # Bin m is ((m - 1) / 15, m / 15], as in the paper.
        place = (probability * ECE_BINS).ceil().long().sub_(1).clamp_(0, ECE_BINS - 1) + self._begin
        values = torch.stack([torch.ones_like(place), right.long(), (probability * UNIT).round().long()])
        self._sums.index_add_(1, place.flatten(), (values * counted).flatten(1))

    def join(self, collect: Callable[[Tensor], Tensor]) -> None:
        """Count what was counted elsewhere, too; see Separation."""
        self._sums = summed(self._sums, collect)

    def errors(self) -> list[float | None]:
        """ECE of each session in per cent; None without an image."""
        images, right, probability = self._sums.cpu().view(3, -1, ECE_BINS)
        gaps = (right - probability.double() / UNIT).abs().sum(dim=1)  # |accuracy - probability| times images
        counts = images.sum(dim=1).tolist()
        return [100 * gap / count if count else None for gap, count in zip(gaps.tolist(), counts, strict=True)]


@dataclass(frozen=True)
class SessionCalibration:
    """How far the probabilities of session b can be trusted."""

    session: int
    ece: float | None  # in per cent, over the images of the classes so far
    separation: SeparationFigures  # of the classes so far from all others


class Calibration:
    """Calibration of every session of a chain in one pass over the test images.

    After session b, a softmax over the first sizes[b] logits answers. Images of these classes are known, and ECE is
    over them. Images of classes that later sessions teach, or none, are unknown.

    Args:
        sizes: classes known after session 0, 1, ..., ascending.
        confidence: what was fitted on base images.
        device: where to count.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        confidence: Confidence,
        device: torch.device | str = "cpu",
    ) -> None:
        device = float64_device(torch.device(device))
        self._confidence = confidence
        self._device = device
        self._taught = sessions_taught(sizes, device)
        self._sessions = torch.arange(len(sizes), device=device)
        self._ends = torch.tensor(list(sizes), device=device) - 1
        self._reliability = Reliability(len(sizes), device)
        self._separation = Separation(len(sizes), device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Finite logits (B, C) of images with labels (B,) in [0, C), or -1 for a class that the chain never learns."""
        logits, labels = logits.to(self._device), labels.to(self._device)
        tempered = self._confidence.tempered(logits)
        answers = Answers(
            tempered.cummax(dim=1).values.index_select(1, self._ends),
            tempered.logcumsumexp(dim=1).index_select(1, self._ends),
        )
        known = self._sessions >= self._taught[labels][:, None]
        lost = first_loss(logits, labels.clamp(min=0), self._taught)
        self._reliability.add(answers.probability, known & (self._sessions < lost[:, None]), known)
        self._separation.add(bounded(answers.best, self._confidence), known)

    def join(self, collect: Callable[[Tensor], Tensor]) -> None:
        """Count what was counted elsewhere, too; see Separation."""
        self._reliability.join(collect)
        self._separation.join(collect)

    def figures(self) -> list[SessionCalibration]:
        """What has been counted so far."""
        pairs = zip(self._reliability.errors(), self._separation.figures(), strict=True)
        return [SessionCalibration(session, *each) for session, each in enumerate(pairs)]
