"""The plain loop computes what ours does: same loss, same distribution of images, no process left behind."""

import multiprocessing
from collections import Counter

import pytest
import torch
from PIL import Image

from m2sd_cli.benchmark.reference import ReferenceLoop, image_transform
from m2sd_cli.benchmark.workload import treatment
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.training.loop import ACCURACY
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from tests.benchmark.small import few, tiny

TRANSFORM = TestTransform(resize=3, crop=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def keys(images: torch.Tensor) -> list[tuple[int, ...]]:
    """Each normalised image as something to count, its values in thousandths."""
    return [tuple((1000 * image).round().int().flatten().tolist()) for image in images]


@pytest.mark.parametrize("flip", [True, False])
def test_crops_and_flips_are_distributed_as_ours(flip: bool) -> None:
    augmentation = Augmentation(size=3, padding=1, flip=flip)
    outcomes, each = 9 * (1 + flip), 100  # corners, mirrored or not
    pixels = torch.arange(10, 255, 9)[:27].view(3, 3, 3).to(torch.uint8)  # no two alike
    torch.manual_seed(0)
    one = image_transform(augmentation, TRANSFORM)
    pillow = Image.fromarray(pixels.numpy())
    theirs = Counter(keys(torch.stack([one(pillow) for _ in range(outcomes * each)])))
    batch = pixels.expand(outcomes * each, 3, 3, 3)
    generator = torch.Generator().manual_seed(0)
    ours = Counter(keys(TRANSFORM.normalise(augmentation(batch, torch.ones(len(batch)), generator))))
    assert theirs.keys() == ours.keys()
    assert len(ours) == outcomes
    for counts in (theirs, ours):
        assert all(each / 2 < count < each * 2 for count in counts.values())  # five standard deviations


def test_resized_crops_are_distributed_as_ours() -> None:
    transform, augmentation = treatment(40)
    side = augmentation.store
    assert side is not None
    # Of an image whose red grows to the right, and whose green grows downwards, a crop shows where it was taken.
    ramp = torch.linspace(0, 255, side).to(torch.uint8)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)], dim=2)
    pillow = Image.fromarray(image.to(torch.uint8).numpy())
    torch.manual_seed(0)
    one = image_transform(augmentation, transform)
    count = 600
    theirs = torch.stack([one(pillow) for _ in range(count)])
    batch = image.to(torch.uint8).expand(count, side, side, 3)
    generator = torch.Generator().manual_seed(0)
    ours = transform.normalise(augmentation(batch, torch.ones(count), generator))
    assert theirs.shape == ours.shape
    for channel in (0, 1):
        for measure in (torch.amin, torch.mean, torch.amax, torch.std):
            a, b = (measure(images[:, channel], dim=(1, 2)) for images in (theirs, ours))
            assert a.mean() == pytest.approx(b.mean().item(), abs=0.1)
            assert a.std() == pytest.approx(b.std().item(), rel=0.15, abs=0.03)
    turned = [(images[:, 0, :, -1] < images[:, 0, :, 0]).float().mean().item() for images in (theirs, ours)]
    assert turned == pytest.approx([0.5, 0.5], abs=0.1)


def test_the_loss_is_ours() -> None:
    settings = tiny()
    loop = ReferenceLoop(settings, few(), workers=1)
    network = build_network(settings.pretrain, settings.classes).train()
    generator = torch.Generator().manual_seed(3)
    x, labels = torch.rand(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 2])
    wanted, measures = pretrain_objective(network, settings.pretrain)(x, labels, generator, slice(0, 4))
    loss, accuracy = loop.step(x, labels)
    assert loss == pytest.approx(wanted.item(), rel=1e-6)
    assert accuracy == pytest.approx(measures[ACCURACY].item())
    torch.autograd.backward(wanted)
    for theirs, ours in zip(loop.network.parameters(), network.parameters(), strict=True):
        assert theirs.grad is not None
        assert ours.grad is not None
        assert torch.allclose(theirs.grad, ours.grad, atol=1e-6)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking beside threads, from Python 3.12
def test_its_workers_last_from_round_to_round_and_rest_in_between() -> None:
    loop = ReferenceLoop(tiny(), few(8), workers=2)
    seen: list[tuple[int, ...]] = []
    real = loop.step
    loop.step = lambda images, labels: seen.append(tuple(images.shape)) or real(images, labels)  # type: ignore[method-assign, func-returns-value]
    workers = set()
    for steps in (1, 5):  # an epoch has two
        seen.clear()
        loop.prepare(steps)
        assert seen == [(4, 3, 8, 8)] * 2  # one of each worker
        loop.run(steps)
        assert seen == [(4, 3, 8, 8)] * (2 + steps)
        loop.run(3)  # nothing was ordered beyond these
        assert len(seen) == 2 + steps
        workers |= {process.pid for process in multiprocessing.active_children()}
    assert len(workers) == 2
    loop.close()
    assert multiprocessing.active_children() == []
