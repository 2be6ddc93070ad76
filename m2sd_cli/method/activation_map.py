"""Class activation maps (Zhou et al., CVPR 2016): the part of each position of phi_4 in the score of a class."""

import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.numerics import at_least_float32


def activation_maps(maps: Tensor, rows: Tensor, similarity: str, scale: float = 1.0) -> Tensor:
    """Split scores over the positions p: the mean of a_k(p) over p is the score of class k exactly.

    phi is the mean of phi_4(p), so that a score which is linear in phi, or is a cosine with it, is a mean over p, too:
    a_k(p) = w_k . phi_4(p), or scale w_k . phi_4(p) / (|w_k| |phi|). A class's bias is left out.

    Args:
        maps: phi_4 (B, D, H, W).
        rows: class weights or class means w_k (B, K, D).
        similarity: "linear" or "cosine".
        scale: of a cosine.

    Returns:
        (B, K, H, W) of the type of `rows`, float32 at least.
    """
    rows = at_least_float32(rows)
    maps = maps.to(rows.dtype)
    if similarity == "cosine":
        length = maps.mean(dim=(2, 3)).norm(dim=1).clamp_min(1e-12)
        maps = maps / length[:, None, None, None]
        rows = scale * F.normalize(rows, dim=2)
    parts = rows @ maps.flatten(2)
    return parts.view(*rows.shape[:2], *maps.shape[2:])
