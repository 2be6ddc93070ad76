"""The log of the trainings survives kills, and takes no file for a log that is none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from m2sd_cli.runs import training_log
from m2sd_cli.runs.training_log import LOG, TrainingLog

STAGES = ("pretrain", "distill")


def line(stage: str, epoch: int) -> dict[str, Any]:
    return {"stage": stage, "epoch": epoch, "loss": 1.5}


@pytest.fixture
def log(tmp_path: Path) -> TrainingLog:
    log = TrainingLog(tmp_path, STAGES)
    assert log.lines() == []
    for each in (line("pretrain", 1), line("pretrain", 2), line("distill", 1), line("distill", 2)):
        log.append(each)
    return log


def epochs(log: TrainingLog) -> list[tuple[str, int]]:
    return [(each["stage"], each["epoch"]) for each in log.lines()]


@pytest.mark.parametrize(
    ("stage", "done", "kept"),
    [
        ("pretrain", 0, []),
        ("pretrain", 1, [("pretrain", 1)]),
        ("distill", 0, [("pretrain", 1), ("pretrain", 2)]),
        ("distill", 1, [("pretrain", 1), ("pretrain", 2), ("distill", 1)]),
        ("distill", 5, [("pretrain", 1), ("pretrain", 2), ("distill", 1), ("distill", 2)]),
    ],
)
def test_lines_of_what_is_trained_once_more_are_removed(
    log: TrainingLog, stage: str, done: int, kept: list[tuple[str, int]]
) -> None:
    log.keep(stage, done)
    assert epochs(log) == kept
    assert log.path.exists() == bool(kept)
    log.keep(stage, done)
    log.append(line(stage, done + 1))
    assert epochs(log) == [*kept, (stage, done + 1)]


def test_a_torn_line_is_passed_over_and_then_removed(log: TrainingLog) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-9])
    assert epochs(log) == [("pretrain", 1), ("pretrain", 2), ("distill", 1)]
    log.append(line("distill", 2))
    assert epochs(log) == [("pretrain", 1), ("pretrain", 2), ("distill", 1), ("distill", 2)]
    log.keep("distill", 2)
    assert log.path.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["", "[1]", "1", "nan", '{"epoch": 1}', '{"stage": "pretrain", "epoch": "1"}', '{"stage": []}', 9**5 * "["]
)
def test_other_lines_are_none_of_a_log(log: TrainingLog, text: str) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(text.encode() + b"\n\xff\xfe\n" + whole)
    log.keep("distill", 2)
    assert log.path.read_bytes() == whole


def test_a_link_is_not_followed(log: TrainingLog, tmp_path: Path) -> None:
    other = tmp_path / "other"
    log.path.rename(other)
    before = other.read_bytes()
    log.path.symlink_to(other)
    with pytest.raises(OSError, match=LOG):
        log.append(line("distill", 3))
    with pytest.raises(OSError, match=LOG):
        log.keep("pretrain", 0)
    assert other.read_bytes() == before


def test_a_pipe_is_neither_waited_for_nor_written(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, STAGES)
    os.mkfifo(log.path)
    for use in (lambda: log.append(line("distill", 1)), log.lines, lambda: log.keep("pretrain", 0)):
        with pytest.raises(OSError, match="not a regular file"):
            use()


def test_a_file_larger_than_any_log_is_left_alone(log: TrainingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log.path.read_bytes()
    monkeypatch.setattr(training_log, "TEXT_LIMIT", len(before) - 1)
    with pytest.raises(OSError, match="larger than"):
        log.keep("pretrain", 0)
    assert log.path.read_bytes() == before


def test_a_line_is_json(log: TrainingLog) -> None:
    assert [json.loads(text) for text in log.path.read_text().splitlines()] == log.lines()
