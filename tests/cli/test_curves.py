"""Curves of a training in the terminal."""

from pathlib import Path

import pytest

from m2sd_cli.cli.curves import BLOCKS, WIDEST, curve_lines, sparkline
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import EpochRecord
from tests.helpers import Cli, check_refusal


def test_the_lowest_value_is_the_lowest_block_and_the_highest_the_highest() -> None:
    assert sparkline([0, 7, 3.5, 1]) == BLOCKS[0] + BLOCKS[7] + BLOCKS[4] + BLOCKS[1]
    assert sparkline([2, 2, 2]) == 3 * BLOCKS[0]
    assert sparkline([5]) == BLOCKS[0]
    many = sparkline(range(1000))
    assert (len(many), many[0], many[-1]) == (WIDEST, BLOCKS[0], BLOCKS[7])
    assert list(many) == sorted(many)


def test_a_column_that_lacks_figures_has_no_curve() -> None:
    history = [
        EpochRecord(epoch=epoch, loss=3 - epoch, terms={"a": 1, "b": epoch}, accuracy=accuracy, learning_rate=0.1)
        for epoch, accuracy in ((1, None), (2, 0.25))
    ]
    lines = curve_lines(history)
    assert [line.split() for line in lines[:3]] == [
        ["epoch", "loss", "a", "b", "accuracy", "learning", "rate"],
        ["1", "2", "1", "1", "-", "0.1"],
        ["2", "1", "1", "2", "25", "0.1"],
    ]
    assert [line.split()[0] for line in lines[3:]] == ["loss", "a", "b", "learning"]
    assert lines[3].endswith(f"{BLOCKS[7]}{BLOCKS[0]}  2 to 1")
    assert len(curve_lines(history[:1])) == 2  # of one epoch there is no curve


@pytest.mark.parametrize(("loss", "shown"), [(1.5, False), (1.0, True)])
def test_a_single_term_is_shown_unless_it_is_the_loss(loss: float, shown: bool) -> None:
    history = [EpochRecord(epoch=1, loss=loss, terms={"closeness": 1.5}, accuracy=0.5, learning_rate=0.1)]
    assert ("closeness" in curve_lines(history)[0]) == shown


@pytest.mark.parametrize("stage", ["pretrain", "0"])
def test_both_stages_are_shown(m2sd: Cli, calibrated: Path, stage: str) -> None:
    folder = RunFolder(calibrated)
    manifest = (folder.pretrain() if stage == "pretrain" else folder.session(0)).manifest
    shown = m2sd("sessions", "show", stage, "--curves", "--run", calibrated)
    assert (shown.code, shown.err) == (0, "")
    assert f"{manifest.history[-1].loss:.4g}" in shown.out
    assert len(shown.out.splitlines()) >= 1 + len(manifest.history)
    assert f'"kind": "{manifest.kind}"' in m2sd("sessions", "show", stage, "--run", calibrated).out


def test_what_was_not_trained_has_no_curves(m2sd: Cli, trained: Path) -> None:
    check_refusal(m2sd("sessions", "show", "1", "--curves", "--run", trained), 2, "1 was not trained")
    check_refusal(m2sd("sessions", "show", "first", "--run", trained), 2, "first: pretrain for stage 1, or the number")
