"""Stage 1 of weights that begin trained: they are kept, and images are prepared as they want them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import m2sd_cli
from m2sd_cli.api import base_session
from m2sd_cli.checkpoints import BaseCheckpoint, PretrainCheckpoint
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES, ImageNetWeights
from m2sd_cli.training.job import Fitted, Job
from tests.helpers import Cli, Stripes, finished, small_state

WEIGHTS = ImageNetWeights(
    small_state,
    "small",
    image_size=16,
    resize=20,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.4),
    interpolation="bicubic",
)


@pytest.fixture
def small(small_backbone: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a stage 1 that keeps the weights of a small backbone of the table."""
    monkeypatch.setitem(BACKBONES.entries, "small", replace(BACKBONES["small"], imagenet=WEIGHTS))
    return {"backbone": "small", "init": "imagenet", "epochs": 0, "device": "cpu"}


def test_the_weights_are_kept_and_the_images_follow_them(
    stripes: Stripes, small: dict[str, Any], tmp_path: Path
) -> None:
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", **small))
    manifest = stored.manifest
    assert (manifest.history, manifest.config["epochs"], manifest.config["init"]) == ([], 0, "imagenet")
    transform = manifest.transform
    assert (transform.resize, transform.crop, transform.interpolation) == (20, 16, "bicubic")
    assert (transform.mean, transform.std) == (WEIGHTS.mean, WEIGHTS.std)
    kept = PretrainCheckpoint.read(RunFolder(tmp_path / "run"), stored).backbone.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in small_state("small").items())

    base = finished(m2sd_cli.distill(str(stripes.folder), run=tmp_path / "run", epochs=0, device="cpu"))
    assert base.manifest.transform == transform
    assert base.manifest.config["optimizer"] == "adamw"  # if there had been any training
    kept = BaseCheckpoint.read(RunFolder(tmp_path / "run"), base).backbone.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in small_state("small").items())
    m2sd_cli.increment(1, stripes.first_shots, run=tmp_path / "run", device="cpu")
    assert m2sd_cli.reproduce(run=tmp_path / "run", data=str(stripes.folder), shots={1: stripes.first_shots}).same


@pytest.mark.parametrize(("image_size", "resize"), [(16, 20), (32, 40), (24, 30)])
def test_the_image_size_stays_free(
    image_size: int, resize: int, stripes: Stripes, small: dict[str, Any], tmp_path: Path
) -> None:
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", image_size=image_size, **small))
    assert (stored.manifest.transform.resize, stored.manifest.transform.crop) == (resize, image_size)


def test_a_random_network_is_treated_as_before(stripes: Stripes, small: dict[str, Any], tmp_path: Path) -> None:
    options = small | {"epochs": 1, "init": "none", "image_size": 16, "batch_size": 16}
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", **options))
    assert (stored.manifest.transform.resize, stored.manifest.transform.interpolation) == (18, "bilinear")


@pytest.mark.parametrize("init", [None, "none"])
def test_a_network_that_would_stay_random_is_refused(
    init: str | None, stripes: Stripes, small: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^--epochs 0: the network would stay random; begin from weights, as --init"):
        m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", **small | {"init": init})
    assert not (tmp_path / "run" / "pretrain.json").exists()


def test_the_hint_goes_on_without_training(stripes: Stripes, small: dict[str, Any], tmp_path: Path, m2sd: Cli) -> None:
    options = [word for name, value in small.items() for word in (f"--{name}", value)]
    done = m2sd("pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *options)
    assert done.err.splitlines()[-1] == f"next: m2sd distill --run {tmp_path / 'run'} --epochs 0"


def test_a_finished_one_can_be_resumed(stripes: Stripes, small: dict[str, Any], tmp_path: Path) -> None:
    stored = m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", **small)
    assert m2sd_cli.pretrain(run=tmp_path / "run", resume=True, device="cpu") == stored
    with pytest.raises(UsageError, match="--epochs 1: the training began with 0"):
        m2sd_cli.pretrain(run=tmp_path / "run", resume=True, device="cpu", epochs=1)


def test_stage_2_begins_with_rows_in_the_direction_of_the_class_means(
    stripes: Stripes, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(stripes.folder)
    m2sd_cli.pretrain(folder, run=tmp_path / "run", **small)
    m2sd_cli.distill(folder, run=tmp_path / "run", epochs=0, device="cpu")
    run = RunFolder(tmp_path / "run")
    means = BaseCheckpoint.read(run, run.session(0)).means
    begun: list[Tensor] = []

    def fit(job: Job[Any], module: Any, objective: object) -> Fitted[Any]:
        begun.append(module["network"].class_weights.weight.detach().clone())
        return Fitted(job.config)

    monkeypatch.setattr(base_session, "fit", fit)
    m2sd_cli.distill(folder, run=tmp_path / "run", epochs=1, device="cpu", force=True)
    assert F.cosine_similarity(begun[0], means).amin() > 0.9999
    drawn = PretrainCheckpoint.read(run, run.pretrain()).weight
    torch.testing.assert_close(begun[0].norm(dim=1), drawn.norm(dim=1).mean().expand(len(means)))
