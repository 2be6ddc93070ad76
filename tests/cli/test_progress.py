"""How a training is shown, on a terminal and elsewhere."""

import io
from contextlib import redirect_stderr

from m2sd_cli.cli.progress import watch
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
