"""L = L_ce^v + L_KL^v + L_AT, paper section 3.3: the whole objective of stage 2 for one batch."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.losses import attention_transfer, kl_divergence, soft_cross_entropy, symmetric_kl
from m2sd_cli.method.mixing import Mixing, mix
from m2sd_cli.method.network import Network
from m2sd_cli.method.numerics import to_nhwc


@dataclass(frozen=True)
class LossWeights:
    """The factor of each term of L. A term of factor 0 is not computed at all."""

    ce: float = 1.0  # L_ce^v
    kl: float = 1.0  # L_KL^v, of two branches
    kd: float = 1.0  # KL(p_hat, f(x))
    attention: float = 100.0  # sum_i || at(T_i) - at(phi_i(x)) ||^2
    teacher: float = 1.0  # cross-entropy of W'
    clean: float = 0.0  # cross-entropy of the unmixed images, which the paper does not have

    @property
    def need_enhancement(self) -> bool:
        """Whether a term compares with feature enhancement."""
        return any((self.kd, self.attention, self.teacher))

    @property
    def need_virtual(self) -> bool:
        """Whether a term looks at the virtual images."""
        return self.need_enhancement or any((self.ce, self.kl))

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """sum_k factor_k term_k over the terms given, as `distillation_terms` returns them.

        Raises:
            ValueError: there is no term.
        """
        if not terms:
            raise ValueError("every loss weight is 0: nothing would be trained")
        factors = asdict(self)
        return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def distillation_terms(
    network: Network,
    enhancement: FeatureEnhancement | None,
    x: Tensor,
    labels: Tensor,
    *,
    weights: LossWeights,
    beta: float,
    temperature: float,
    generator: torch.Generator,
    rows: slice | None = None,
    mixing: Mixing = "both",
) -> dict[str, Tensor]:
    """The unweighted terms of L for one batch of clean images, by the names of LossWeights.

    The virtual images are made here, from pairs of the whole batch. Every term of one branch is summed over the
    branches, as the paper does with L_ce^v. All branches go through the network as one batch. p_hat and T_i are
    teachers: detached in `kd` and `attention`. The cross-entropy of p_hat, `teacher`, is not, and reaches the backbone
    through the enhancement.

    Args:
        network: f = W^T phi, in training mode.
        enhancement: FE and W'; needed if `weights.need_enhancement`.
        x: (B, 3, H, W) normalised images.
        labels: (B,) integers in [0, C).
        weights: decides which terms are computed.
        beta: the parameter of Beta(beta, beta).
        temperature: of `kd`.
        generator: on the device of `x`.
        rows: of the batch, to which the terms are confined; None for all. Terms of parts of a batch average to those of
            the whole, so that several processes can share one.
        mixing: which branches there are; `none` stands for one of clean images.

    Raises:
        ValueError: a term needs enhancement and there is none, or a second branch.
    """
    if weights.need_enhancement and enhancement is None:
        raise ValueError("the weights kd, attention and teacher need feature enhancement")
    if weights.kl and mixing != "both":
        raise ValueError(f"the weight kl needs both branches, not mixing {mixing!r}")
    classes = network.classifier.weight.shape[0]
    rows = slice(None) if rows is None else rows
    images: list[Tensor] = []
    if weights.need_virtual:
        virtual = mix(x, labels, classes, beta, generator, mixing)
        images += [branch[rows] for branch in virtual.branches]
        soft = virtual.labels[rows].repeat(len(images), 1)
    branches = len(images)
    if weights.clean:
        images.append(x[rows])
    if not images:
        return {}
    output = network(torch.cat(images))
    mixed = sum(map(len, images[:branches]))
    terms: dict[str, Tensor] = {}
    if weights.need_virtual:
        logits = output.logits[:mixed]
        # A mean over the samples of all branches, times their number, is the sum of the branches' means.
        if weights.ce:
            terms["ce"] = branches * soft_cross_entropy(logits, soft)
        if weights.kl:
            terms["kl"] = symmetric_kl(*logits.chunk(2))
        if enhancement is not None and weights.need_enhancement:
            students = output.features.maps
            if weights.clean:
                students = tuple(to_nhwc(phi)[:mixed].permute(0, 3, 1, 2) for phi in students)
            enhanced = enhancement(students)
            if weights.kd:
                terms["kd"] = branches * kl_divergence(enhanced.logits.detach(), logits, temperature)
            if weights.attention:
                terms["attention"] = branches * attention_transfer(enhanced.maps, students[-len(enhanced.maps) :])
            if weights.teacher:
                terms["teacher"] = branches * soft_cross_entropy(enhanced.logits, soft)
    if weights.clean:
        terms["clean"] = F.cross_entropy(output.logits[mixed:].float(), labels[rows])
    return terms
