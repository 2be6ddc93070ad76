"""L = L_ce^v + L_KL^v + L_AT, paper section 3.3: the whole objective of stage 2 for one batch."""

from dataclasses import asdict

import torch
from torch import Tensor

from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.method.losses import Reduction, cross_entropy, l_at, l_ce, l_kl
from m2sd_cli.method.mixing import Mixing, mix
from m2sd_cli.method.network import Network
from m2sd_cli.method.numerics import to_nhwc


def total_loss(weights: LossWeights, terms: dict[str, Tensor]) -> Tensor:
    """L = sum_k factor_k term_k over the terms given, as `distillation_terms` returns them.

    Raises:
        ValueError: there is no term.
    """
    if not terms:
        raise ValueError("every loss weight is 0: nothing would be trained")
    factors = asdict(weights)
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
    shard: slice | None = None,
    mixing: Mixing = "both",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Compute the unweighted terms of L for one batch of clean images, by the names of LossWeights.

    The virtual images are made here, from pairs of the whole batch. Every term of one branch is summed over the
    branches, as the paper does with L_ce^v. All branches go through the network as one batch. p_hat and T_i are
    teachers: detached in L_AT. The cross-entropy of p_hat, `teacher`, is not detached, and reaches the backbone through
    the enhancement.

    Args:
        network: f = W^T phi, in training mode.
        enhancement: FE and W'; needed if `weights.need_enhancement`.
        x: (B, 3, H, W) normalised images.
        labels: (B,) integers in [0, C).
        weights: the factors; a term of factor 0 is left out.
        beta: the parameter of Beta(beta, beta).
        temperature: of `kd`.
        generator: on the device of `x`.
        shard: the slice of the batch that the terms are of; None for all. Terms of the shards of a batch average to
            those of the whole, so that several processes can share one.
        mixing: the branches; `none` stands for one of clean images.
        reduction: of the squares of `attention`.

    Raises:
        ValueError: a term needs feature enhancement or a second branch, and there is none.
    """
    if weights.need_enhancement and enhancement is None:
        raise ValueError("the weights kd, attention and teacher need feature enhancement")
    if weights.kl and mixing != "both":
        raise ValueError(f"the weight kl needs both branches, not mixing {mixing!r}")
    classes = network.class_weights.weight.shape[0]
    shard = slice(None) if shard is None else shard
    images: list[Tensor] = []
    if weights.need_virtual:
        virtual = mix(x, labels, classes, beta, generator, mixing)
        images += [branch[shard] for branch in virtual.branches]
        soft = virtual.labels[shard]
    branches = len(images)
    if weights.clean:
        images.append(x[shard])
    if not images:
        return {}
    output = network(torch.cat(images))
    mixed = sum(map(len, images[:branches]))
    terms: dict[str, Tensor] = {}
    if weights.need_virtual:
        logits = output.logits[:mixed]
        if weights.ce:
            terms["ce"] = l_ce(logits, soft)
        if weights.kl:
            terms["kl"] = l_kl(*logits.chunk(2))
        if enhancement is not None and weights.need_enhancement:
            maps = output.features.maps
            if weights.clean:
                # Cut as NHWC: the gradient of phi[:mixed] would come in the other order of memory, see to_nhwc.
                maps = tuple(to_nhwc(phi)[:mixed].permute(0, 3, 1, 2) for phi in maps)
            enhanced = enhancement(maps)
            students = maps[-len(enhanced.maps) :]
            weighted = [name for name in ("kd", "attention") if getattr(weights, name)]
            terms |= l_at(enhanced.logits, enhanced.maps, logits, students, temperature, branches, weighted, reduction)
            if weights.teacher:
                terms["teacher"] = l_ce(enhanced.logits, soft)
    if weights.clean:
        terms["clean"] = cross_entropy(output.logits[mixed:], labels[shard])
    return terms
