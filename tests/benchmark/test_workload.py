"""The workloads are the commands' own: the same treatment of images, the same loop, the same objectives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from m2sd_cli.benchmark import machine, workload
from m2sd_cli.benchmark.machine import peak_memory
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.workload import (
    FeatureExtraction,
    Stage,
    distill_stage,
    pretrain_stage,
    random_images,
    treatment,
)
from m2sd_cli.data import cifar100
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.training.loop import Training
from tests.benchmark.small import few, tiny
from tests.helpers import Stripes


def test_small_images_are_treated_as_those_of_cifar100() -> None:
    assert treatment(32) == cifar100.TREATMENT
    assert treatment(16)[1] == replace(cifar100.TREATMENT.augmentation, size=16)


@pytest.mark.parametrize("size", [33, 96, 224])
def test_larger_images_are_treated_as_those_of_a_folder(size: int, stripes: Stripes) -> None:
    data = open_folder(stripes.folder, size)
    assert treatment(size) == (data.transform, data.augmentation)


@given(size=st.integers(8, 48), batch=st.integers(2, 40), classes=st.integers(2, 9), most=st.integers(0, 10**5))
@hypothesis_settings(max_examples=20)
def test_random_images_are_whole_batches(size: int, batch: int, classes: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "MOST_BYTES", most)
        patch.setattr(workload, "MOST_IMAGES", 100)
        data = random_images(tiny(image_size=size, batch_size=batch, classes=classes))
    count, side, width, channels = data.images.shape
    assert (side, channels) == (width, 3)
    assert side == (size if size <= 32 else round(size * 256 / 224))
    assert count % batch == 0
    assert count == batch or (count <= 100 and data.images.nbytes <= most)
    assert len(data.labels) == len(data.aspects) == count
    assert 0 <= data.labels.min() <= data.labels.max() < classes
    assert data.images.min() < 10 < 245 < data.images.max()


@pytest.mark.parametrize("make", [pretrain_stage, distill_stage])
def test_a_stage_does_just_as_many_steps_as_asked(
    make: Callable[[Settings, TrainingImages], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[int] = []
    real = Training._step

    def step(training: Training, *others: Any) -> None:
        real(training, *others)
        stepped.append(training.position.step)

    monkeypatch.setattr(Training, "_step", step)
    stage = make(tiny(), few())
    for steps in (1, 4, 2):  # an epoch has three steps
        before = len(stepped)
        stage.run(steps)
        assert len(stepped) - before == steps
    assert stepped == [1, 2, 3, 4, 5, 6, 7]


def test_stage_2_computes_every_term_of_the_default_loss() -> None:
    stage = distill_stage(tiny(), few())
    stage.run(3)
    (record,) = stage._training.position.history
    assert set(record.terms) == {"ce", "kl", "kd", "attention", "teacher"}


def test_features_are_of_the_commands_batch_and_of_eval_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, ...], int, str, bool]] = []
    real: Any = vars(workload)["embed"]

    def embed(backbone: Any, pixels: torch.Tensor, transform: Any, precision: str) -> torch.Tensor:
        seen.append((tuple(pixels.shape), transform.views, precision, backbone.training))
        features: torch.Tensor = real(backbone, pixels, transform, precision)
        return features

    monkeypatch.setattr(workload, "embed", embed)
    settings = tiny(precision="auto")
    FeatureExtraction(settings).run(2)
    FeatureExtraction(replace(settings, distill=replace(settings.distill, views=2))).run(1)
    assert seen == [((256, 3, 8, 8), views, "fp32", False) for views in (1, 1, 2)]


def test_peak_memory_is_that_of_the_computation_alone() -> None:
    device, mebibyte = torch.device("cpu"), 2**20
    small = peak_memory(device, lambda: torch.ones(10))
    if small is None:
        pytest.skip("this system does not let a process forget its peak")
    large = peak_memory(device, lambda: torch.ones(200 * mebibyte, dtype=torch.uint8))
    again = peak_memory(device, lambda: torch.ones(10))
    assert again is not None
    assert large is not None
    assert large - small > 150 * mebibyte
    assert large - again > 150 * mebibyte


def test_peak_memory_is_unknown_where_it_cannot_be_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "absent")
    done: list[int] = []
    assert peak_memory(torch.device("cpu"), lambda: done.append(1)) is None
    assert done == [1]
