"""Stage 2 from the stage 1 of another run, in a run folder of its own."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import QUICK_DISTILL, Cli, finished, tree


def test_stage_1_is_shared_and_the_other_run_stays_as_it_is(trained: Path, tmp_path: Path) -> None:
    before, other = tree(trained), tmp_path / "other"
    stored = finished(m2sd_cli.distill(run=other, source=str(trained), mixing="none", **QUICK_DISTILL))
    assert tree(trained) == before
    assert RunFolder(other).pretrain() == RunFolder(trained).pretrain()
    assert stored.manifest.config["mixing"] == "none"
    assert RunFolder(other).verify() == []
    with pytest.raises(RunError, match="--force"):
        m2sd_cli.distill(run=other, source=trained, **QUICK_DISTILL)


def test_another_stage_1_is_kept(run: Path, calibrated: Path) -> None:
    before = tree(run)
    with pytest.raises(RunError, match="another stage 1"):
        m2sd_cli.distill(run=run, source=calibrated, **QUICK_DISTILL)
    assert tree(run) == before


def test_a_run_without_stage_1_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        m2sd_cli.distill(run=tmp_path / "other", source=tmp_path / "none")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 1},
        {"no_such": 1},
        {"mixing": "mixup", "kl_weight": 1.0},
        {"device": "tpu"},
        {"precision": "fp8"},
        {"recipe": "nowhere"},
        {"time_budget": 9.0, "epochs": 3},
        {"classifier": "nowhere"},
    ],
    ids=lambda wrong: " ".join(wrong),
)
def test_a_wrong_option_leaves_nothing_written(wrong: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        m2sd_cli.distill(run=tmp_path / "other", source=trained, **wrong)
    assert not (tmp_path / "other").exists()


def test_another_folder_of_images_leaves_nothing_written(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        m2sd_cli.distill(tmp_path / "none", run=tmp_path / "other", source=trained, **QUICK_DISTILL)
    assert not (tmp_path / "other").exists()


def test_a_dry_run_copies_nothing(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    before, other = tree(trained), tmp_path / "other"
    done = m2sd("distill", "--from", trained, "--run", other, "--dry-run", "--device", "cpu")
    assert done.code == 0, done.err
    assert "nothing was trained" in done.err
    assert (tree(trained), other.exists()) == (before, False)


def test_several_processes_do_not_copy(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.api.distill.is_distributed", lambda: True)
    with pytest.raises(UsageError, match="leave torchrun out"):
        m2sd_cli.distill(run=tmp_path / "other", source=trained)


def test_the_command_finds_the_images_where_the_other_run_did(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    source = shutil.copytree(trained, tmp_path / "source")
    words = ["--from", source, "--run", tmp_path / "other", "--epochs", 0, "--device", "cpu", "-q"]
    done = m2sd("distill", *words)
    assert done.code == 0, done.err
    assert RunFolder(tmp_path / "other").sessions() == [0]
