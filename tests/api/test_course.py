"""The times of both stages, told before stage 1 begins."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli.api import course
from m2sd_cli.training.determinism import WORKSPACE
from m2sd_cli.training.epochs import HELD_OUT_SHARE
from m2sd_cli.training.loop import Training
from tests.helpers import QUICK, Cli, Stripes

WORDS = ["--image-size", 16, "--backbone", "resnet20", "--batch-size", 8, "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note stage and images of the steps that are timed, each of which takes a second and may be a short one."""
    found: list[tuple[str, int]] = []
    measure = Training.step_seconds

    def step_seconds(training: Training, enough: float | None = None) -> float:
        assert enough == course.MOMENT
        assert measure(training, 0.0) > 0
        assert training.position.step == 0
        found.append((training.stage, training.config.batch_size))
        return 1.0

    monkeypatch.setattr(Training, "step_seconds", step_seconds)
    monkeypatch.setattr(course, "WORTH", 0)
    return found


def said(done: Any) -> list[str]:
    assert done.code == 0, done.err
    return [line for line in done.err.splitlines() if line.startswith("pretrain takes ")]


def test_both_stages_are_told_before_the_first_begins(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    done = m2sd(
        "pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--epochs", 30, *WORDS, "--held-out", 0
    )
    # 32 images: four steps of 8 an epoch, or one of 32 instead of 64.
    assert said(done) == ["pretrain takes about 2 min, distill after it about 1 min with its 80 epochs"]
    assert done.err.index("pretrain takes ") < done.err.index("epoch 30/30")
    assert measured == [("pretrain", 8), ("distill", 32)]


def test_steps_are_timed_by_the_algorithms_of_the_training(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # cuBLAS reads its variable at the first product of a process, which is one of these steps.
    seen: list[tuple[bool, str | None]] = []

    def step_seconds(_training: Training, _enough: float | None = None) -> float:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get(WORKSPACE)))
        return 1.0

    monkeypatch.setattr(Training, "step_seconds", step_seconds)
    monkeypatch.setattr(course, "WORTH", 0)
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--epochs", 1, *WORDS, "--deterministic"]
    assert said(m2sd(*words))
    assert seen == [(True, ":4096:8")] * 2


def test_telling_changes_no_weight(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "one", **QUICK)
    assert measured == []  # nobody listens
    options = [each for name, value in QUICK.items() for each in (f"--{name.replace('_', '-')}", value)]
    assert m2sd("pretrain", "--data", stripes.folder, "--run", tmp_path / "two", *options).code == 0
    assert len(measured) == 2
    one, two = ((tmp_path / run / "pretrain.safetensors").read_bytes() for run in ("one", "two"))
    assert one == two


def test_large_batches_are_timed_by_small_ones_on_a_cpu(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "FEW_PIXELS", 10 * 16**2)
    words = [64 if word == 8 else word for word in WORDS]
    done = m2sd(
        "pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--epochs", 2, *words, "--held-out", 0.25
    )
    assert measured == [("pretrain", 10), ("distill", 10)]
    seconds = 80 * 24 / 10 * (1 + HELD_OUT_SHARE)
    assert said(done) == [
        f"pretrain takes about {2 * 24 / 10 * (1 + HELD_OUT_SHARE):.0f} s, distill after it about "
        f"{seconds / 60:.0f} min with its 80 epochs"
    ]


def test_nothing_is_timed_where_it_tells_nobody_anything(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ["pretrain", "--data", stripes.folder, "--epochs", 1, *WORDS]
    assert said(m2sd(*begin, "--run", tmp_path / "quiet", "--quiet")) == []
    m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "resumed", stop_after=0, **QUICK)
    assert said(m2sd("pretrain", "--run", tmp_path / "resumed", "--resume", "--device", "cpu")) == []
    monkeypatch.setattr(course, "WORTH", 10**7)
    assert said(m2sd(*begin, "--run", tmp_path / "short")) == []
    assert measured == []


def test_nothing_is_told_of_a_stage_1_without_this_stage_2(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    begin = ["pretrain", "--data", stripes.folder, "--epochs", 1, *WORDS]
    with course.untold():
        assert said(m2sd(*begin, "--run", tmp_path / "one")) == []
    assert measured == []
    assert len(said(m2sd(*begin, "--run", tmp_path / "two"))) == 1


def test_a_stage_2_that_cannot_be_timed_is_told(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    options = tmp_path / "options.toml"
    options.write_text('[distill]\nmixing = "none"\nclean_weight = 1.0\n', encoding="utf-8")
    done = m2sd(
        "pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--epochs", 1, *WORDS, "--config", options
    )
    assert said(done) == []
    assert "pretrain: how long it and distill take is not known: --clean-weight 1" in done.err
