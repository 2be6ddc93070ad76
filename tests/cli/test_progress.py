"""Long work on a terminal and elsewhere."""

import io
import itertools
import re
from contextlib import redirect_stderr
from dataclasses import replace

import pytest

from m2sd_cli import progress
from m2sd_cli.cli.progress import Bars, Lines, reporting
from m2sd_cli.progress import Pass, Snapshot, count_passing, report_to


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        epoch=2, epochs=3, step=step, steps=30, loss=1.25, accuracy=0.5, images_per_second=1234.4, seconds_left=150.0
    )


def shown(stderr: io.StringIO, quiet: bool = False) -> str:
    with redirect_stderr(stderr), reporting(quiet), progress.stage("distill"):
        progress.show(snapshot(12))
        progress.show(snapshot(30))
    return stderr.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    figures = "distill: epoch 2/3, loss 1.250, accuracy 50.0 %, 1234 images/s"
    assert shown(io.StringIO()).splitlines() == [f"{figures}, 2 min left", figures]


def test_a_bar_on_a_terminal() -> None:
    text = shown(Terminal())
    assert "\x1b[" in text
    assert "distill 2/3" in text
    for words in ("loss 1.250", "1234 images/s", "100 %"):
        assert words in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_epoch_and_the_time_left_are_shown_in_every_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    stderr = Terminal()
    with redirect_stderr(stderr), reporting(), progress.stage("pretrain"):
        left = Pass("reading images", 10**6)
        left.add()
        progress.show(replace(snapshot(12), epoch=123, epochs=200))
        left.add(10**5)
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", stderr.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, lines)) <= width
    (line, *_) = [line for line in lines if line.startswith("pretrain 123/200 ")]
    assert line.rstrip().endswith("2 min left")
    assert " 40 %  " in line
    assert (width >= 80) == ("1234 images/s" in line)
    assert (width >= 60) == ("loss 1.250" in line)


def test_quiet_shows_nothing() -> None:
    assert shown(io.StringIO(), quiet=True) == ""
    assert shown(Terminal(), quiet=True) == ""


def passed(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, seconds: float, quiet: bool = False) -> str:
    """Show a pass over 100 images, each of which takes `seconds`."""
    clock = itertools.count(step=seconds)
    monkeypatch.setattr("m2sd_cli.cli.progress.monotonic", lambda: next(clock))
    with redirect_stderr(stderr), reporting(quiet):
        assert list(count_passing(range(100), "decoding", 100)) == list(range(100))
    return stderr.getvalue()


def test_a_long_pass_is_told_of_in_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = passed(io.StringIO(), monkeypatch, seconds=0.8).splitlines()
    assert lines == [
        "decoding: 38 of 100 images, 1/s, 50 s left",
        "decoding: 76 of 100 images, 1/s, 19 s left",
    ]


def test_a_long_pass_has_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = passed(Terminal(), monkeypatch, seconds=2.0)
    assert "decoding" in text
    assert "decoding" not in text.rsplit("\x1b[2K", 1)[-1]  # it is gone at the end


def test_nothing_is_said_of_a_short_pass_or_if_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr in (io.StringIO(), Terminal()):
        assert passed(stderr, monkeypatch, seconds=0.001) == ""
        assert passed(stderr, monkeypatch, seconds=2.0, quiet=True) == ""


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_passes_of_a_stage_are_shown_beside_it(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.LINE_INTERVAL", 0.0)
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    stderr = kind()
    with redirect_stderr(stderr), reporting(), progress.stage("pretrain"):
        assert list(count_passing(range(3), "reading", 3)) == [0, 1, 2]
        progress.show(snapshot(12))
    text = stderr.getvalue()
    assert "reading" in text
    assert "1 of 3 images" in text
    assert "loss 1.250" in text


@pytest.mark.parametrize("in_stage", [False, True])
def test_a_pass_that_is_left_makes_room_for_the_next(in_stage: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    bars = Bars()

    def shown_passes() -> list[tuple[str, float]]:
        tasks = bars._live.tasks if bars._live is not None else []
        return [(task.description, task.completed) for task in tasks[in_stage:]]

    with redirect_stderr(Terminal()), report_to(bars):
        if in_stage:
            bars.begin_stage("pretrain")
        left = Pass("decoding", 10)
        left.add(3)
        assert shown_passes() == [("decoding", 3)]
        other = Pass("checking", 2)
        assert shown_passes() == []
        assert (bars._live is not None) == in_stage
        other.add()
        assert shown_passes() == [("checking", 1)]
        other.add()
        assert shown_passes() == []
    assert bars._live is None


def test_the_bar_of_a_pass_that_fails_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    stderr = Terminal()

    def work(number: int) -> None:
        if number == 2:
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), redirect_stderr(stderr), reporting(), progress.stage("pretrain"):
        list(map(work, count_passing(range(3), "decoding", 3)))
    assert "decoding" in stderr.getvalue()
    assert "decoding" not in stderr.getvalue().rsplit("\x1b[1A", 1)[-1]


@pytest.mark.parametrize("in_stage", [False, True])
def test_a_line_is_said_whole_beside_a_bar(in_stage: bool) -> None:
    stderr = Terminal()
    with redirect_stderr(stderr), reporting():
        if in_stage:
            with progress.stage("pretrain"):
                progress.say("left out: [red] \x1b.jpg " + 200 * "x")
        else:
            progress.say("left out: [red] \x1b.jpg " + 200 * "x")
    assert "left out: [red] \\x1b.jpg " + 200 * "x" in stderr.getvalue()


def test_lines_that_cannot_be_written_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.LINE_INTERVAL", 0.0)

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with redirect_stderr(Full()), report_to(Lines()), progress.stage("pretrain"):
        progress.say("hello")
        assert list(count_passing("abc", "reading", 3)) == ["a", "b", "c"]
        progress.show(snapshot(12))
