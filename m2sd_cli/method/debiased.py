"""FeCAM's distance, with the base classes held back.

A network that was trained on the base classes answers with them too readily. Taking a constant from their logits is
calibrated stacking: Chao, Changpinyo, Gong, Sha, "An Empirical Study and Analysis of Generalized Zero-Shot Learning for
Object Recognition in the Wild", ECCV 2016. The right constant differs much from one network to another. It is measured
on images that were held out of training: the largest that costs no more of their accuracy than is allowed. Without such
images it is a share of the distance between the base classes' means.
"""

import torch
from torch import Tensor

from m2sd_cli.method import fecam
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

# A margin serves tens of base classes: the more there are, the more often one of them wins by chance. Six lose more by
# a margin than new classes gain.
SHARE = 0.05  # of the separation; chosen on base training images alone
ROUNDING = 1e-9  # of a number of pairs


def separation(means: Tensor) -> float:
    """Average 1 - cos(m_b, m_c) over pairs of different classes, for means (C, D): 0 to 2, and 0 for one class."""
    classes = len(means)
    unit = on_unit_sphere(means)
    cosines = unit.sum(dim=0).square().sum() - unit.square().sum()  # of all pairs
    return 1 - float(cosines) / (classes * (classes - 1)) if classes > 1 else 0.0


def affordable_margin(logits: Tensor, labels: Tensor, cost: float) -> float:
    """Find the largest margin with which a class takes at most `cost` points of the other classes' accuracy.

    A class has the margin m if m is taken from the logits of all others. It takes a rightly answered image from another
    class if the logit of the image's class leads its own by less than m. Every class stands for a new one in turn,
    which gives n = N (C - 1) pairs of an image and another class.

    As a conformal quantile (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005) the margin is the
    k-th smallest lead, k = floor(cost / 100 (n + 1)): one more pair is below it with a chance of k / (n + 1) at most.
    Few images allow no margin, although they show no cost.

    Args:
        logits: (N, C), of images held out of training.
        labels: (N,) in [0, C).
        cost: in points, 0 to 100.

    Returns:
        At least 0, and no more than the largest lead, beyond which a margin takes nothing more; 0 for too few pairs,
        and where no image is answered rightly.
    """
    images, classes = logits.shape
    own = logits.gather(1, labels[:, None])
    right = logits.argmax(dim=1) == labels
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
    leads = (own - logits)[right[:, None] & others].sort().values
    rank = min(allowed_rank(images, classes, cost), len(leads))
    return float(leads[rank - 1]) if rank else 0.0


def allowed_rank(images: int, classes: int, cost: float) -> int:
    """Return k of `affordable_margin`; 0 where there are too few pairs of an image and another class."""
    return int(cost / 100 * (images * (classes - 1) + 1) + ROUNDING)


def held_back(head: Head, base: int, margin: float) -> Head:
    """Take a margin from the logits of the first `base` classes of a head."""
    amounts = torch.zeros(len(head.rows))
    amounts[:base] = margin
    return head.less(amounts)


def margin_of(head: Head, known: KnownClasses, scale: float) -> float:
    """Measure the margin by which base classes have to win.

    A margin leaves the order of the base classes alone: it only moves the border between them and new classes.

    Args:
        head: of all known classes, without a margin.
        known: the classes; without held-out images the margin is a share of the separation of the base classes.
        scale: S, the factor of that share.
    """
    if known.held_out is None or known.base_cost is None:
        return scale * SHARE * separation(known.statistics.power_means)
    logits = head.first(len(known.base))(known.held_out.features)
    return affordable_margin(logits, known.held_out.labels, known.base_cost)


def build(known: KnownClasses, similarity: str, scale: float) -> Head:
    """Build the head of all known classes, whatever the similarity of the trained W."""
    head = fecam.build(known, similarity, scale)
    return held_back(head, len(known.base), margin_of(head, known, scale))
