"""Random streams as functions of seed and step, so that a resumed training needs no saved generator."""

import hashlib

import torch


def stream(seed: int, purpose: str, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make the generator of one purpose at one epoch or step; streams of different purposes are independent.

    Args:
        purpose: a name such as "pretrain order".
    """
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)
