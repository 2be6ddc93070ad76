"""AutoAugment, colour and cutout reach the images that both stages train on, and nothing else."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.data.auto_augment import Policy, auto_augment
from m2sd_cli.data.colour import jitter
from m2sd_cli.data.cutout import cutout
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training import loop
from tests.helpers import QUICK, QUICK_DISTILL, Stripes

Call = tuple[str, tuple[int, ...], float | str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """A record of the change to a batch, and of its strength."""
    found: list[Call] = []

    def watched_policy(images: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
        found.append(("auto-augment", tuple(images.shape), policy))
        return auto_augment(images, policy, generator)

    def watched_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        found.append(("colour", tuple(images.shape), strength))
        return jitter(images, strength, generator)

    def watched_cutout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
        assert x.min() < 0  # normalised: the hole has the mean colour
        found.append(("cutout", tuple(x.shape), share))
        return cutout(x, share, generator)

    monkeypatch.setattr(loop, "auto_augment", watched_policy)
    monkeypatch.setattr(loop, "jitter", watched_jitter)
    monkeypatch.setattr(loop, "cutout", watched_cutout)
    return found


def test_both_stages_train_on_images_so_changed(stripes: Stripes, tmp_path: Path, calls: list[Call]) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(str(stripes.folder), run=run, auto_augment="imagenet", colour=0.4, cutout=0.5, **QUICK)
    changes = (("auto-augment", "imagenet"), ("colour", 0.4), ("cutout", 0.5))
    assert calls == [(name, (8, 3, 16, 16), strength) for name, strength in changes] * 4
    m2sd_cli.distill(str(stripes.folder), run=run, colour=0.25, **QUICK_DISTILL)
    assert calls[12:] == [("colour", (8, 3, 16, 16), 0.25)] * 4
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    assert len(calls) == 16
    folder = RunFolder(run)
    assert folder.pretrain().manifest.config["cutout"] == 0.5
    assert folder.session(0).manifest.config["colour"] == 0.25


def test_without_them_training_draws_what_it_drew_before(
    stripes: Stripes, trained: Path, tmp_path: Path, calls: list[Call]
) -> None:
    stored = m2sd_cli.pretrain(
        str(stripes.folder), run=tmp_path / "run", auto_augment="none", colour=0.0, cutout=0.0, **QUICK
    )
    assert stored is not None
    assert not calls
    assert stored.manifest.checkpoint == RunFolder(trained).pretrain().manifest.checkpoint
