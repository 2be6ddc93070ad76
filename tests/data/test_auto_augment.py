"""AutoAugment of batches: torchvision's for each group, by draws of its own, and nobody else's draws disturbed."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

from m2sd_cli.data.auto_augment import GROUP, Policy, auto_augment
from tests.data.helpers import generator


def random_images(batch: int, size: int = 8) -> Tensor:
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator(9))
    return pixels.contiguous(memory_format=torch.channels_last)


def by_hand(images: Tensor, policy: str, seed: int) -> Tensor:
    """Torchvision's transform of one group after the other, from the state that the batch's generator names."""
    transform = AutoAugment(AutoAugmentPolicy(policy), fill=[128, 128, 128])
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator(seed))))
    groups = [images[begin : begin + 16] for begin in range(0, len(images), 16)]
    return torch.cat([transform(group) for group in groups])


@settings(max_examples=30)
@given(st.integers(1, 40), st.sampled_from(["cifar10", "imagenet"]), st.integers(0, 999))
def test_each_group_is_changed_as_torchvision_changes_one(batch: int, policy: Policy, seed: int) -> None:
    images = random_images(batch)
    before = images.clone()
    augmented = auto_augment(images, policy, generator(seed))
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)
    assert augmented.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmented, by_hand(images, policy, seed))
    assert torch.equal(images, before)


def test_nobody_elses_draws_are_disturbed() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    auto_augment(random_images(20), "cifar10", generator())
    assert torch.equal(torch.rand(3), expected)


def test_groups_differ_and_draws_repeat() -> None:
    same = random_images(1).expand(40 * GROUP, 3, 8, 8)
    augmented = auto_augment(same, "cifar10", generator(1))
    groups = augmented.reshape(40, GROUP, -1)
    assert (groups == groups[:, :1]).all()
    assert len(torch.unique(groups[:, 0], dim=0)) > 10
    assert torch.equal(augmented, auto_augment(same, "cifar10", generator(1)))
    assert not torch.equal(augmented, auto_augment(same, "cifar10", generator(2)))


def test_what_is_no_whole_number_is_rounded() -> None:
    images = random_images(16).float()
    assert torch.equal(auto_augment(images + 0.3, "cifar10", generator()), auto_augment(images, "cifar10", generator()))
    beyond = auto_augment(torch.tensor([-7.0, 300.0]).view(1, 1, 1, 2).expand(1, 3, 2, 2), "imagenet", generator(5))
    assert beyond.dtype == torch.uint8
