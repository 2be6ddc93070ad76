"""The likeness of an image to the known classes, by which images of other classes are recognised.

A classifier's logits leave out a term that is the same for all classes, since it changes no answer. This very term
tells a strange image from a familiar one. The likeness is therefore the whole Mahalanobis distance to a class mean (Lee
et al., NeurIPS 2018), among the power-transformed features of fecam.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method import centred
from m2sd_cli.method.feature_maps import CentredFeatures, PowerFeatures
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

DIAGONAL = 0.5  # gamma, the share of the mean variance that is added to every variance
CENTRED_DIAGONAL = 3.0  # gamma of the score "centred-length"
LENGTH_WEIGHT = 0.5  # of the logarithm of the length in that score
SHORTEST = 1e-6  # the least length whose logarithm is taken


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
        u = self.features(features[:, : self.means.shape[1]])
        own = (u @ self.precision * u).sum(dim=1, keepdim=True)
        rows = self.means @ self.precision
        found: Tensor = 2 * u @ rows.T - own - (rows * self.means).sum(dim=1)
        return found

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of its tensors."""
        return {"kind": "distance", "features": self.features.describe()}

    def select(self, classes: Tensor) -> "Familiarity":
        """Make the likeness to some of the classes, by their indices."""
        return Familiarity(self.means[classes], self.precision, self.features.power)


class CentredLikeness(nn.Module):
    """cos(z, z_c) - log|y| / 2 of each class c: the direction of a feature is familiar, its length is strange.

    z and z_c are those of centred.py. y = (L u - d) W, with u the power-transformed feature of unit length. L is the
    mean length of the base classes' means m_b, and d the mean of L m_b / |m_b|. y is long where a feature varies in
    ways that no base class does. log|y| is the same for all classes, and no class that is taught later changes it.

    Args:
        head: of z and all classes, with scale 1.
        middle: d / L, (D,).
        projection: L W, (D, D).
        power: of the transformation of features.
    """

    middle: Tensor
    projection: Tensor

    def __init__(self, head: Head, middle: Tensor, projection: Tensor, power: float) -> None:
        super().__init__()
        self.head = head
        self.features = PowerFeatures(power)
        self.register_buffer("middle", middle)
        self.register_buffer("projection", projection)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to the likeness (B, C)."""
        features = features[:, : len(self.middle)]
        y = (self.features(features) - self.middle) @ self.projection
        found: Tensor = self.head(features) - LENGTH_WEIGHT * y.norm(dim=1, keepdim=True).clamp_min(SHORTEST).log()
        return found

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of its tensors."""
        return {
            "kind": "centred-length",
            "features": self.features.describe(),
            "head": self.head.describe(),
            "length_weight": LENGTH_WEIGHT,
            "shortest": SHORTEST,
        }

    def select(self, classes: Tensor) -> "CentredLikeness":
        """Make the likeness to some of the classes, by their indices."""
        return CentredLikeness(self.head.select(classes), self.middle, self.projection, self.features.power)


Likeness = Familiarity | CentredLikeness | Head


def known_score_name(trained: bool) -> str:
    """Name the score of a new base session: "centred-length" for a pretrained network as it was, else "distance"."""
    return "distance" if trained else "centred-length"


def build_likeness(name: str, known: KnownClasses) -> Likeness | None:
    """Build the map from features to the likeness to each class.

    Args:
        name: "distance"; "centred-length", which tells more where the network was pretrained elsewhere; "centred", the
            cosine of centred.py, which only manifests of earlier versions name; or "logit", for which the likeness is
            the classifier's logits.
        known: the tensors of the sessions, of phi(x) alone, see `KnownClasses.of_phi`. The map takes longer features,
            too, and looks at phi(x), with which they begin.

    Returns:
        None for "logit".

    Raises:
        ValueError: the statistics are of no features.
    """
    if name == "logit":
        return None
    if name == "distance":
        return build_familiarity(known)
    return centred.build(known, "cosine", 1.0) if name == "centred" else build_centred_likeness(known)


def build_familiarity(known: KnownClasses) -> Familiarity:
    """Build P = L^2 / D (S + gamma V I)^-1 and the means of all known classes.

    S is the covariance of the power-transformed features within the base classes, and V its mean variance. L is the
    mean length of the base classes' means. It brings the likeness of an image to its own class to about -1. Without any
    variance P is the identity.

    Raises:
        ValueError: the statistics are of no features.
    """
    statistics = known.statistics
    width = len(statistics.power_covariance)
    lower = centred.cholesky_factor(statistics.power_covariance, DIAGONAL)
    precision = torch.eye(width, dtype=torch.float64)
    if lower is not None:
        length = statistics.power_means.double().norm(dim=1).mean()
        precision = torch.cholesky_inverse(lower) * length.square() / width
    means = on_unit_sphere(torch.cat([statistics.power_means, known.power_means()]))
    return Familiarity(means.float(), precision.float().contiguous(), float(statistics.power))


def build_centred_likeness(known: KnownClasses) -> CentredLikeness:
    """Build the cosines of all known classes, and the term of length that the base classes alone decide.

    Raises:
        ValueError: the statistics are of no features.
    """
    statistics = known.statistics
    power = float(statistics.power)
    head = centred.known_head(known, 1.0, CENTRED_DIAGONAL)
    length = statistics.power_means.double().norm(dim=1).mean()
    middle = on_unit_sphere(statistics.power_means).mean(dim=0)
    assert isinstance(head.features, CentredFeatures)
    return CentredLikeness(head, middle.float(), length.float() * head.features.projection, power)


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
