"""Colour and cutout reach the images that both stages train on, and nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from m2sd_cli import api
from m2sd_cli.data.colour import jitter
from m2sd_cli.data.cutout import cutout
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training import loop

if TYPE_CHECKING:
    from tests.conftest import Pictures


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...], float]]:
    """What was done to which batch, and how strongly."""
    found: list[tuple[str, tuple[int, ...], float]] = []

    def watched_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        found.append(("colour", tuple(images.shape), strength))
        return jitter(images, strength, generator)

    def watched_cutout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
        assert x.min() < 0  # normalised: the hole has the mean colour
        found.append(("cutout", tuple(x.shape), share))
        return cutout(x, share, generator)

    monkeypatch.setattr(loop, "jitter", watched_jitter)
    monkeypatch.setattr(loop, "cutout", watched_cutout)
    return found


def test_both_stages_train_on_images_so_changed(
    pictures: "Pictures",
    quick: dict[str, Any],
    quick_distill: dict[str, Any],
    tmp_path: Path,
    calls: list[tuple[str, tuple[int, ...], float]],
) -> None:
    run = tmp_path / "run"
    api.pretrain(str(pictures.folder), run=run, colour=0.4, cutout=0.5, **quick)
    batches = [("colour", (8, 3, 16, 16), 0.4), ("cutout", (8, 3, 16, 16), 0.5)]
    assert calls == batches * 4
    api.distill(str(pictures.folder), run=run, colour=0.25, **quick_distill)
    assert calls[8:] == [("colour", (8, 3, 16, 16), 0.25)] * 4
    api.increment(1, pictures.first_shots, run=run, device="cpu")
    assert len(calls) == 12
    folder = RunFolder(run)
    assert folder.pretrain().manifest.config["cutout"] == 0.5
    assert folder.session(0).manifest.config["colour"] == 0.25


def test_without_them_training_draws_what_it_drew_before(
    pictures: "Pictures",
    trained: Path,
    quick: dict[str, Any],
    tmp_path: Path,
    calls: list[tuple[str, tuple[int, ...], float]],
) -> None:
    link = api.pretrain(str(pictures.folder), run=tmp_path / "run", colour=0.0, cutout=0.0, **quick)
    assert link is not None
    assert not calls
    assert link.manifest.checkpoint == RunFolder(trained).pretrain().manifest.checkpoint
