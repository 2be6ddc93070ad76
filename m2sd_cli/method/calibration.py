"""Calibrated probabilities, and the threshold of "unknown": both are fitted on images held out of training."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.method.familiarity import left_out_scores
from m2sd_cli.method.numerics import float64_device

LITTLE = 60.0  # per cent; chance is 50
LOWEST, HIGHEST = 0.01, 100.0  # temperatures, in units of the distance of logits from that of the label
HALVINGS = 25  # of the range of log T: T is right to a millionth


@dataclass(frozen=True)
class Confidence:
    """The trust in answers: probabilities softmax(logits / T), and the score below which an image's class is unknown.

    By default nothing is fitted.
    """

    temperature: float = 1.0  # T
    unknown_below: float | None = None
    told: float | None = None  # estimated chance in per cent that a known image scores higher than an unknown one

    @property
    def tells_little(self) -> bool:
        """True if known and unknown images can hardly be told apart."""
        return self.told is not None and self.told < LITTLE

    @property
    def calibrated(self) -> bool:
        """True if both are fitted."""
        return self.unknown_below is not None

    def is_unknown(self, score: float) -> bool:
        """Tell by its `known_score` if an image is of no class that was taught; without calibration none is."""
        return self.unknown_below is not None and score < self.unknown_below

    def tempered(self, logits: Tensor) -> Tensor:
        """Divide logits (B, C) by T, in float64: at a low T float32 would leave an error of 1e-4 in differences.

        Logits of a device that has no float64 come to the CPU.
        """
        return logits.to(float64_device(logits.device)).double() / self.temperature


def known_score(likeness: Tensor) -> Tensor:
    """Score an image by its likeness to the class that it resembles most.

    The highest probability sinks when more classes are taught; a likeness does not. No image therefore becomes unknown
    by a class that is taught later.

    Args:
        likeness: (B, C), of familiarity.py, or the logits of a classifier that tells unknown images by them.

    Returns:
        (B,), the higher the more known.
    """
    return likeness.amax(dim=1)


def fit_confidence(logits: Tensor, labels: Tensor, likeness: Tensor) -> Confidence:
    """Fit T and the score that 95 % of the images reach, and estimate how well this score tells unknown images.

    For the estimate each class plays the unknown one. A network that was trained on this class tells it better than one
    that it never saw, so that the estimate is on the high side then.

    Args:
        logits: (N, C), finite, of images held out of training.
        labels: (N,) in [0, C).
        likeness: (N, C), finite, see `known_score`.

    Raises:
        ValueError: see `fit_temperature`; or a likeness is not finite.
    """
    temperature = fit_temperature(logits, labels)
    if not bool(likeness.isfinite().all()):
        raise ValueError("a threshold is fitted to finite numbers")
    scores = known_score(likeness.double())
    told = auroc(scores, left_out_scores(likeness.double(), labels)) if likeness.shape[1] > 1 else None
    return Confidence(temperature, unknown_threshold(scores), told)


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Compute the chance in per cent that a known image scores higher than an unknown one; a draw counts half.

    This is the Mann-Whitney statistic over the number of pairs.

    Args:
        known: (K,) scores, at least one.
        unknown: (U,) scores, at least one.
    """
    ordered = unknown.sort().values
    below, up_to = (torch.searchsorted(ordered, known, right=right).sum() for right in (False, True))
    return 100 * float(below + up_to) / (2 * len(known) * len(unknown))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the T > 0 for which softmax(logits / T) gives the labels the least negative log-likelihood.

    Source: Guo et al., ICML 2017, section 4.2, with the targets of Platt (1999), which are not quite sure: 1 - e for
    the label and e / (C - 1) for each other class, e = 1 / (N + 2).

    A network may answer each of a few images rightly. Without e no probability would be too high then. With e and two
    classes, k right answers of N are worth (k + 1) / (N + 2), which is Laplace's rule of succession.

    With s = 1 / T the loss is convex. Its slope, the mean of E_p[z] - E_q[z] with the targets q, grows with s, so
    halving log T finds the one root, whatever the logits are.

    Args:
        logits: (N, C), finite.
        labels: (N,) in [0, C).

    Returns:
        T, within [LOWEST, HIGHEST] times the distance of logits from that of the label (root mean square): the upper
        end where the answers are no better than chance; 1 where no T makes a difference, as with one class.

    Raises:
        ValueError: there is no image, or a logit is not finite.
    """
    if len(labels) == 0:
        raise ValueError("a temperature is fitted to at least one image")
    if not bool(logits.isfinite().all()):
        raise ValueError("a temperature is fitted to finite logits")
    wide = logits.double()
    images, classes = wide.shape
    margins = wide - wide.gather(1, labels[:, None])
    unit = float(margins.square().mean().sqrt())
    if unit == 0:
        return 1.0
    margins = margins / unit
    expected = float(margins.mean()) * classes / max(classes - 1, 1) / (images + 2)

    def slope(temperature: float) -> float:
        return float(((margins / temperature).softmax(dim=1) * margins).sum(dim=1).mean()) - expected

    if slope(LOWEST) <= 0 or slope(HIGHEST) >= 0:  # the loss falls or rises in s all the way
        return unit * (LOWEST if slope(LOWEST) <= 0 else HIGHEST)
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return unit * math.exp((low + high) / 2)


def unknown_threshold(scores: Tensor, tpr: float = 0.95) -> float:
    """Find the highest threshold t at which at least a share `tpr` of known images counts as known, score >= t.

    Args:
        scores: (N,) of held-out images of known classes; the higher, the more known.
        tpr: in (0, 1].

    Raises:
        ValueError: there is no image, or `tpr` is out of its range.
    """
    images = len(scores)
    if images == 0:
        raise ValueError("a threshold is fitted to at least one image")
    if not 0 < tpr <= 1:
        raise ValueError(f"a share of {tpr} is not above 0 and at most 1")
    needed = math.ceil(tpr * images)
    if needed > 1 and (needed - 1) / images >= tpr:  # the product was rounded up past a whole number
        needed -= 1
    return float(scores.sort(descending=True).values[needed - 1])
