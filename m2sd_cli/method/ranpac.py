"""RanPAC: ridge regression from random features to classes.

McDonnell, Gong, Parvaneh, Abbasnejad, van den Hengel, "RanPAC: Random Projections and Pre-trained Models for Continual
Learning", NeurIPS 2023: h = max(x P, 0) with a frozen random P, scores h^T (G + lambda I)^-1 C with G the Gram matrix
of all h and C their sums by class.

Five things differ here. Every class counts the same, however many images it has: base classes have a hundred times as
many as new ones. A new class is added to the regression of the base classes alone, as if the other new classes were not
there. Its row therefore stays when more classes come, a session costs as much as its own shots, and every earlier
session keeps its answers. x has unit length. M is 1,024 instead of 10,000. lambda is a fixed share of G instead of one
chosen among many.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import RandomFeatures, random_features
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses

RIDGE = 0.1  # lambda, as a share of G's mean eigenvalue
AT_ONCE = 2048  # shots


def ranpac_head(
    projection: Tensor,
    gram: Tensor,
    base_means: Tensor,
    shots: Sequence[Tensor],
    scale: float,
    ridge: float = RIDGE,
) -> Head:
    """Build the head of ridge regression onto one-hot labels: 1 for the images of a class, 0 for those of others.

    With A = G + lambda I and m_c the mean h of class c, a base class has the row A^-1 m_c / C. A new class with shots
    H (K, M) has (A + H^T H / (K C))^-1 m_c / C. The Woodbury identity gets that from A^-1 H^T and a K x K matrix.

    Args:
        projection: P (D, M).
        gram: mean over the C base classes of the mean h h^T of their images, (M, M).
        base_means: mean h of each base class, (C, M).
        shots: features (K, D) of each new class.
        scale: of the logits, whose targets it makes `scale` and 0.
        ridge: lambda over the mean eigenvalue of G.

    Raises:
        ValueError: `gram` is of no features: it has a negative eigenvalue.
    """
    gram, base_means = gram.double(), base_means.double()
    classes, size = base_means.shape
    eigenvalue = gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)  # 0 if all features are
    a = gram + ridge * eigenvalue * torch.eye(size, dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(a)
    if failed:
        raise ValueError("not the Gram matrix of any features")
    rows = [torch.cholesky_solve(base_means.T, root).T / classes]
    for group in _groups(shots):
        counts = [len(each) for each in group]
        h = random_features(torch.cat(group).double(), projection.double())
        share = torch.tensor(counts, dtype=torch.float64).repeat_interleave(torch.tensor(counts)).mul(classes).rsqrt()
        u = h * share[:, None]  # of one class: u^T u = H^T H / (K C), u^T share = m / C
        solved = torch.cholesky_solve(u.T, root).T
        parts = zip(*(torch.split(each, counts) for each in (u, solved, share)), strict=True)
        rows += [_new_row(a, *each)[None] for each in parts]
    return Head((scale * torch.cat(rows)).float(), "linear", features=RandomFeatures(projection.float()))


def _groups(shots: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group classes by at most AT_ONCE shots, a class with more by itself."""
    group: list[Tensor] = []
    for each in shots:
        if group and sum(map(len, group)) + len(each) > AT_ONCE:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _new_row(a: Tensor, u: Tensor, solved: Tensor, share: Tensor) -> Tensor:
    """Compute (A + u^T u)^-1 u^T share, (M,).

    Args:
        a: A (M, M).
        u: (K, M).
        solved: u A^-1, (K, M).
        share: (K,).
    """
    shots, size = u.shape
    if shots > size:
        whole: Tensor = torch.linalg.solve(a + u.T @ u, share @ u)
        return whole
    weights: Tensor = torch.linalg.solve(torch.eye(shots, dtype=u.dtype) + u @ solved.T, share)
    return weights @ solved


def build(known: KnownClasses, _similarity: str, scale: float) -> Head:
    """Build the head of all known classes, whatever the similarity of the trained W."""
    statistics = known.statistics
    return ranpac_head(statistics.projection, statistics.random_gram, statistics.random_means, known.shots, scale)
