"""Random streams that are a function of seed and step alone, so that a resumed training needs no saved state."""

import hashlib

import torch


def stream(seed: int, purpose: str, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one purpose at one epoch or step; streams of different names are independent.

    Args:
        seed: of the run.
        purpose: what the numbers are for, such as "pretrain order".
        number: epoch or step.
        device: where the numbers are wanted.
    """
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)
