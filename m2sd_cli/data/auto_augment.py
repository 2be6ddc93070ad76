"""AutoAugment of whole batches; policies and operations are torchvision's.

Cubuk, Zoph, Mane, Vasudevan, Le, "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019.
"""

from typing import Literal

import torch
from torch import Tensor

from m2sd_cli.pairing import import_torchvision

Policy = Literal["cifar10", "imagenet"]

# The images that share a random choice: a choice for each image would take a hundred calls a step, and one for all
# would make a batch look alike.
GROUP = 16
GREY = 128  # of the pixels that a turned or shifted image leaves empty, as in the paper


def auto_augment(images: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Apply a random one of a policy's 25 pairs of operations to each group of images, each operation by chance.

    A batch is in random order, so that every image gets each pair as often as it would alone.

    Args:
        images: (B, 3, H, W) uint8, or float of 0..255, which is rounded.
        policy: named by the data set that it was learned on.
        generator: on the CPU, on whatever device the images are.

    Returns:
        (B, 3, H, W) uint8, channels last in memory.

    Raises:
        M2sdError: torchvision cannot be imported.
    """
    transforms = import_torchvision("transforms.v2")  # which takes seconds
    transform = transforms.AutoAugment(transforms.AutoAugmentPolicy(policy), fill=[GREY] * 3)
    pixels = images if images.dtype == torch.uint8 else images.round().clamp(0, 255).to(torch.uint8)
    # Torchvision draws from the CPU's generator alone. torch.manual_seed would seed the other devices', too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        changed = [transform(group) for group in torch.split(pixels, GROUP)]
    return torch.cat(changed).contiguous(memory_format=torch.channels_last)
