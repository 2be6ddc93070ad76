"""The likeness of an image to the classes known, which tells images of other classes.

A classifier's logits leave out a term that is the same for all classes, since it changes no answer. Just this term
tells a strange image from a familiar one. The likeness is therefore the whole Mahalanobis distance to a class mean (Lee
et al., NeurIPS 2018), among the power-transformed features of fecam.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method import centred
from m2sd_cli.method.feature_maps import PowerFeatures
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

DIAGONAL = 0.5  # gamma, the share of the mean variance that is added to every variance


class Familiarity(nn.Module):
    """-(u - m_c)^T P (u - m_c) of each class c: the nearer its mean, the higher.

    The likeness to a class depends on the base session and on the class's own shots. The highest over all classes
    therefore never falls when more classes are taught.

    Args:
        means: m_c of unit length, (C, D).
        precision: P (D, D), symmetric and positive definite.
        power: of the transformation of features, which brings them to unit length.
    """

    means: Tensor
    precision: Tensor

    def __init__(self, means: Tensor, precision: Tensor, power: float) -> None:
        super().__init__()
        self.features = PowerFeatures(power)
        self.register_buffer("means", means)
        self.register_buffer("precision", precision)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to the likeness (B, C)."""
        u = self.features(features)
        own = (u @ self.precision * u).sum(dim=1, keepdim=True)
        rows = self.means @ self.precision
        found: Tensor = 2 * u @ rows.T - own - (rows * self.means).sum(dim=1)
        return found

    def select(self, classes: Tensor) -> "Familiarity":
        """Make the likeness to some of the classes, by their indices."""
        return Familiarity(self.means[classes], self.precision, self.features.power)


def known_score_name(trained: bool) -> str:
    """Name the score of a new base session: "centred" for a pretrained network as it was, else "distance"."""
    return "distance" if trained else "centred"


def build_likeness(name: str, known: KnownClasses) -> Familiarity | Head | None:
    """Build the map from features to the likeness to each class.

    Args:
        name: "distance"; "centred", the cosine of centred.py, which tells more where the network was pretrained
            elsewhere; or "logit", for which the likeness is the classifier's logits.
        known: the tensors of the sessions.

    Returns:
        None for "logit".

    Raises:
        ValueError: the statistics are of no features.
    """
    if name == "logit":
        return None
    return build_familiarity(known) if name == "distance" else centred.build(known, "cosine", 1.0)


def build_familiarity(known: KnownClasses) -> Familiarity:
    """Build P = L^2 / D (S + gamma V I)^-1 and the means of all classes known.

    S is the covariance of the power-transformed features within the base classes, and V its mean variance. L is the
    mean length of the base classes' means, so that the likeness is minus about one for an image of a class. Without
    any variance P is the identity.

    Raises:
        ValueError: the statistics are of no features.
    """
    statistics = known.statistics
    covariance = statistics.power_covariance.double()
    width = len(covariance)
    identity = torch.eye(width, dtype=torch.float64)
    variance = covariance.diagonal().mean()
    precision = identity
    if variance != 0:
        lower, failed = torch.linalg.cholesky_ex(covariance + DIAGONAL * variance * identity)
        if failed or not torch.allclose(covariance, covariance.T, rtol=1e-4, atol=float(1e-6 * variance)):
            raise ValueError("not the covariance of any features")
        length = statistics.power_means.double().norm(dim=1).mean()
        precision = torch.cholesky_inverse(lower) * length.square() / width
    means = on_unit_sphere(torch.cat([statistics.power_means, known.power_means()]))
    return Familiarity(means.float(), precision.float().contiguous(), float(statistics.power))


def left_out_scores(likeness: Tensor, labels: Tensor) -> Tensor:
    """Score images as if their class had never been taught: the highest likeness to another class.

    Args:
        likeness: (N, C), of at least two classes.
        labels: (N,) in [0, C).

    Returns:
        (N,).
    """
    own = F.one_hot(labels, likeness.shape[1]).bool()
    return likeness.masked_fill(own, -torch.inf).amax(dim=1)
