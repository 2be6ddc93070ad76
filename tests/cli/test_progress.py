"""How a training is shown, on a terminal and elsewhere."""

import io
import itertools
from contextlib import redirect_stderr

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from m2sd_cli.cli.progress import PassBars, watch, watch_passes
from m2sd_cli.data.passes import Pass, counted, heard
from m2sd_cli.training.progress import Snapshot


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        epoch=2, epochs=3, step=step, steps=30, loss=1.25, accuracy=0.5, images_per_second=1234.4, seconds_left=150.0
    )


def shown(place: io.StringIO, quiet: bool = False) -> str:
    with redirect_stderr(place), watch("distill", quiet) as progress:
        progress.show(snapshot(12))
        progress.show(snapshot(30))
    return place.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    figures = "distill: epoch 2/3, loss 1.250, accuracy 50.0 %, 1234 images/s"
    assert shown(io.StringIO()).splitlines() == [f"{figures}, 2 min left", figures]


def test_a_bar_on_a_terminal() -> None:
    text = shown(Terminal())
    assert "\x1b[" in text
    assert "distill 2/3" in text
    for words in ("loss 1.250", "1234 images/s", "100 %"):
        assert words in text


def test_quiet_shows_nothing() -> None:
    assert shown(io.StringIO(), quiet=True) == ""
    assert shown(Terminal(), quiet=True) == ""


def passed(place: io.StringIO, monkeypatch: pytest.MonkeyPatch, seconds: float, quiet: bool = False) -> str:
    """What is shown of a pass over 100 pictures, each of which takes `seconds`."""
    clock = itertools.count(step=seconds)
    monkeypatch.setattr("m2sd_cli.cli.progress.monotonic", lambda: next(clock))
    with redirect_stderr(place), watch_passes(quiet):
        assert list(counted(range(100), "decoding", 100)) == list(range(100))
    return place.getvalue()


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
    for place in (io.StringIO(), Terminal()):
        assert passed(place, monkeypatch, seconds=0.001) == ""
        assert passed(place, monkeypatch, seconds=2.0, quiet=True) == ""


@pytest.mark.parametrize("place", [io.StringIO, Terminal])
def test_passes_of_a_stage_are_shown_beside_it(place: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.LINE_INTERVAL", 0.0)
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    stderr = place()
    with redirect_stderr(stderr), watch("pretrain", quiet=False) as progress:
        assert list(counted(range(3), "reading", 3)) == [0, 1, 2]
        progress.show(snapshot(12))
    text = stderr.getvalue()
    assert "reading" in text
    assert "1 of 3 images" in text
    assert "loss 1.250" in text


def test_a_pass_that_is_left_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    bars = Bars(console=Console(file=io.StringIO()))
    show = PassBars(bars)
    with heard(show):
        left = Pass("decoding", 10)
        left.add(3)
        assert [(task.description, task.completed) for task in bars.tasks] == [("decoding", 3)]
        assert bars.live.is_started
        other = Pass("checking", 2)
        assert bars.tasks == []
        assert not bars.live.is_started
        other.add()
        assert [(task.description, task.total) for task in bars.tasks] == [("checking", 2)]
        other.add()
    assert bars.tasks == []
    assert not bars.live.is_started


def test_the_bar_of_a_pass_that_fails_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.cli.progress.BAR_INTERVAL", 0.0)
    stderr = Terminal()

    def work(number: int) -> None:
        if number == 2:
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), redirect_stderr(stderr), watch("pretrain", quiet=False):
        list(map(work, counted(range(3), "decoding", 3)))
    assert "decoding" in stderr.getvalue()
    assert "decoding" not in stderr.getvalue().rsplit("\x1b[1A", 1)[-1]


def test_words_that_cannot_be_printed_change_nothing() -> None:
    def deaf(_: Pass) -> None:
        raise BrokenPipeError

    with heard(deaf):
        assert list(counted("abc", "reading", 3)) == ["a", "b", "c"]
