"""Probabilities that mean what they say, and where "unknown" begins: both are fitted on images held out of training."""

import math

from torch import Tensor

LOWEST, HIGHEST = 0.01, 100.0  # temperatures
HALVINGS = 60  # of the range of log T: beyond float64's own rounding


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 for which softmax(logits / T) gives the labels the least negative log-likelihood (Guo et al., ICML
    2017, section 4.2).

    With s = 1 / T the loss is convex. Its slope, the mean of E_p[z] - z_y, grows with s, so halving log T finds the
    one root, whatever the logits are.

    Args:
        logits: (N, C), finite.
        labels: (N,) in [0, C).

    Returns:
        T within [LOWEST, HIGHEST]: the lower end where all answers are right and any lower T were better still, the
        upper end where the answers are no better than chance; 1 where no T makes a difference, as with one class.

    Raises:
        ValueError: there is no image, or a logit is not finite.
    """
    if len(labels) == 0:
        raise ValueError("a temperature is fitted to at least one image")
    if not bool(logits.isfinite().all()):
        raise ValueError("a temperature is fitted to finite logits")
    wide = logits.double()
    margins = wide - wide.gather(1, labels[:, None])

    def slope(temperature: float) -> float:
        return float(((margins / temperature).softmax(dim=1) * margins).sum(dim=1).mean())

    falling, rising = slope(LOWEST) <= 0, slope(HIGHEST) >= 0  # the loss in s, all the way
    if falling or rising:
        return 1.0 if falling and rising else LOWEST if falling else HIGHEST
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def unknown_threshold(scores: Tensor, tpr: float = 0.95) -> float:
    """The highest threshold t at which at least a share `tpr` of known images counts as known, score >= t.

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
