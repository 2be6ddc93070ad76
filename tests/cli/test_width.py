"""Results in a terminal of 60 columns, and whole lines elsewhere."""

import io
import os
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2sd_cli.cli import output
from m2sd_cli.cli.output import results, room, table
from tests.helpers import Cli, Stripes

WIDTH = 60
CELLS = st.text("ab 1-.", max_size=90)
CPU = ("--device", "cpu")


@pytest.mark.parametrize("width", [WIDTH, 80])
@pytest.mark.parametrize("words", ["recipes", "data", "sessions", "evaluate --test LABELLED", "simulate --draws 1"])
def test_every_table_of_a_command_fits(
    m2sd: Cli,
    trained: Path,
    simulated: Path,
    stripes: Stripes,
    words: str,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("M2SD_RUN", str(simulated if words.startswith("simulate") else trained))
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path))
    command = words.replace("LABELLED", str(stripes.labelled)).split()
    command += CPU if command[0] in ("evaluate", "simulate") else ()
    monkeypatch.setattr(output, "room", lambda: None)
    whole = m2sd(*command)
    monkeypatch.setattr(output, "room", lambda: width)
    fitted = m2sd(*command)
    assert (whole.code, fitted.code) == (0, 0)
    place = str(tmp_path)  # a path is not broken outside a table
    assert max(len(line) for line in fitted.out.splitlines() if place not in line) <= width
    assert Counter("".join(whole.out.split())) <= Counter("".join(fitted.out.split()))


@given(
    st.integers(1, 8).flatmap(
        lambda count: st.tuples(
            st.lists(st.text("xyz", min_size=1, max_size=12), min_size=count, max_size=count),
            st.lists(st.lists(CELLS, min_size=count, max_size=count), max_size=4),
        )
    )
)
@example((["x"] * 7, [[""] * 7, ["", "", "11", "111", "111111", "1" * 19, "1" * 16 + " "]]))  # a blank end
def test_a_fitted_table_has_every_cell(content: tuple[list[str], list[list[str]]]) -> None:
    header, rows = content
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "room", lambda: WIDTH)
        lines = table(header, rows)
        patch.setattr(output, "room", lambda: None)
        whole = table(header, rows)
    numbers = [column for column in range(len(header)) if all(output._is_figure(row[column]) for row in rows)]
    if max(map(len, whole)) <= WIDTH:
        assert lines == whole
    if not any(len(row[column]) > 20 for row in rows for column in numbers):
        assert max(map(len, lines)) <= WIDTH
    assert Counter("".join(whole).replace(" ", "")) <= Counter("".join(lines).replace(" ", ""))


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    stdout = Terminal()
    with redirect_stdout(stdout):
        assert room() == 60
        results(["one two " * 20, "x" * 70])
    *broken, word = stdout.getvalue().splitlines()
    assert max(map(len, broken)) <= 60 < len(word) == 70
    assert " ".join(broken).split() == ["one", "two"] * 20
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(os, "get_terminal_size", lambda handle: os.terminal_size((44, 10)))
    with redirect_stdout(Terminal()):
        assert room() == 44
    with redirect_stdout(io.StringIO()):
        assert room() is None


def test_sentences_fit_and_a_number_keeps_its_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "room", lambda: 24)
    results(["one.jpg: heron 88.3 %, a\tb 6.3 %, stork 2.3 %, swan 1.0 %"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 24
    assert not any(line.startswith("%") for line in lines)
    assert "".join("".join(lines).split()) == r"one.jpg:heron88.3%,a\x09b6.3%,stork2.3%,swan1.0%"
