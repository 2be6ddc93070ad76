"""The classifiers of stage 3 by their names, HEADS: from what is stored of a chain's sessions to a head.

`means` is the paper's, section 3.4: a class's row is the mean feature of its shots. The others train nothing either and
need no old image; each has a module of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.method import DEFAULT_CLASSIFIER, HEADS
from m2sd_cli.method.base_statistics import BaseStatistics
from m2sd_cli.method.debiased import debiased_head
from m2sd_cli.method.fecam import fecam_head
from m2sd_cli.method.heads import Head, power_transform
from m2sd_cli.method.ranpac import ranpac_head
from m2sd_cli.method.teen import teen_head

COSINE_ONLY = ("teen",)  # it compares directions of class means
OF_STATISTICS = ("fecam", "ranpac", "debiased")  # they need more than class means


@dataclass(frozen=True)
class KnownClasses:
    """What is stored of the sessions of a chain."""

    base: Tensor  # class means of the base session (C, D)
    new: Tensor  # class means of the other sessions (N, D)
    shots: Sequence[Tensor]  # features (K, D) of all views of the shots of each new class
    statistics: BaseStatistics | None  # None of a base session whose version kept none; then `shots` is of no use


def default_classifier(kind: str) -> str:
    """What a base session answers with unless it is told otherwise, its trained W being of this kind."""
    return "means" if kind != "cosine" and DEFAULT_CLASSIFIER in COSINE_ONLY else DEFAULT_CLASSIFIER


def choices(kind: str, statistics: bool) -> list[str]:
    """The classifiers that a chain can answer with.

    Args:
        kind: of the trained W.
        statistics: whether its sessions hold more than class means.
    """
    return [
        name
        for name in HEADS
        if (kind == "cosine" or name not in COSINE_ONLY) and (statistics or name not in OF_STATISTICS)
    ]


def build_head(name: str, taught: KnownClasses, kind: str, scale: float) -> Head:
    """The head of a classifier.

    Args:
        name: one of `choices`.
        taught: what is stored of the sessions.
        kind: of the trained W; class means are compared with features as its rows were.
        scale: of a cosine; the other heads are brought to about its size.

    Raises:
        ValueError: the statistics are of no features.
    """
    statistics = taught.statistics
    if statistics is None or name not in OF_STATISTICS:
        of_means: dict[str, Callable[[], Head]] = {
            "means": lambda: Head(torch.cat([taught.base, taught.new]), kind, scale),
            "teen": lambda: teen_head(taught.base, taught.new, scale),
        }
        return of_means[name]()
    if name == "ranpac":
        return ranpac_head(statistics.projection, statistics.random_gram, statistics.random_means, taught.shots, scale)
    base, covariance, power = statistics.power_means, statistics.power_covariance, float(statistics.power)
    new = torch.cat([base[:0], *(power_transform(each, power).mean(dim=0, keepdim=True) for each in taught.shots)])
    if name == "fecam":
        return fecam_head(torch.cat([base, new]), covariance, scale, power)
    return debiased_head(base, new, covariance, scale, power=power)
