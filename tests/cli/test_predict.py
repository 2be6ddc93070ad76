"""`predict` at a terminal and in a shell: nothing swallows an answer, and a line can be cut."""

import csv
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

import m2sd_cli
from tests.helpers import Cli

CPU = ["--device", "cpu"]


@contextmanager
def stdin_of(content: bytes) -> Iterator[None]:
    """Let the process read this from its stdin."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    saved = os.dup(0)
    os.dup2(read, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three images; the second one cannot be read."""
    (tmp_path / "album").mkdir()
    for name, colour in (("a.png", "red"), ("c, d.png", "blue")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "album" / name)
    (tmp_path / "album" / "b.png").write_bytes(b"Dear Sir,")
    return tmp_path / "album"


def test_a_bad_image_swallows_no_answer(m2sd: Cli, trained: Path, album: Path) -> None:
    done = m2sd("predict", album, "--run", trained, *CPU)
    assert done.code == 3
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [str(album / "a.png"), str(album / "c, d.png")]
    assert done.err.splitlines()[-2].startswith(f"left out: {album / 'b.png'}: not an image")
    assert done.err.splitlines()[-1].startswith(f"m2sd: {album / 'b.png'}: not an image")
    assert done.err.endswith("; with --skip-bad that is no failure\n")
    assert m2sd("predict", album, "--run", trained, *CPU, "--skip-bad").code == 0
    whole = m2sd("predict", album, "--run", trained, *CPU, "--json")
    found = json.loads(whole.out)
    assert (whole.code, len(found["predictions"]), len(found["skipped"])) == (3, 2, 1)


def test_a_missing_image_beside_others_is_one_that_cannot_be_read(m2sd: Cli, trained: Path, album: Path) -> None:
    done = m2sd("predict", album / "nothing.png", album / "a.png", "--run", trained, *CPU)
    assert (done.code, len(done.out.splitlines())) == (3, 1)
    assert f"m2sd: {album / 'nothing.png'}: no such file; with --skip-bad" in done.err
    alone = m2sd("predict", album / "nothing.png", "--run", trained, *CPU)
    assert (alone.code, alone.out) == (3, "")
    assert alone.err == f"m2sd: {album / 'nothing.png'}: no such file or folder\n"


def test_quiet_says_nothing_but_errors(m2sd: Cli, trained: Path, album: Path) -> None:
    done = m2sd("predict", album, "--run", trained, *CPU, "-q")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert m2sd("predict", album, "--run", trained, *CPU, "-q", "--skip-bad").err == ""


def test_columns_of_csv_are_those_of_the_answers(m2sd: Cli, trained: Path, album: Path) -> None:
    (album / "e\nf.png").write_bytes((album / "a.png").read_bytes())
    done = m2sd("predict", album, "--run", trained, *CPU, "--csv", "--top-k", 2, "--skip-bad")
    rows = list(csv.DictReader(done.out.splitlines()))
    assert [*rows[0]] == ["image", "unknown", "score", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row["image"] for row in rows] == [str(album / "a.png"), str(album / "c, d.png"), f"{album}/e\\x0af.png"]
    answers = list(m2sd_cli.predict(album / "a.png", run=trained, device="cpu"))
    assert rows[0]["class_1"] == answers[0].guesses[0].name
    assert float(rows[0]["probability_1"]) == pytest.approx(answers[0].guesses[0].probability, abs=1e-6)
    refused = m2sd("predict", album, "--run", trained, *CPU, "--csv", "--json")
    assert (refused.code, refused.out) == (2, "")


def test_names_come_from_stdin(m2sd: Cli, trained: Path, album: Path) -> None:
    names = f"{album / 'c, d.png'}\n\n{album / 'nothing.png'}\n{album / 'a.png'}".encode()
    with stdin_of(names):
        done = m2sd("predict", "-", "--run", trained, *CPU)
    assert done.code == 3
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [str(album / "c, d.png"), str(album / "a.png")]
    assert f"m2sd: {album / 'nothing.png'}: no such file; with --skip-bad" in done.err


def test_names_of_windows_end_in_a_carriage_return(m2sd: Cli, trained: Path, album: Path) -> None:
    with stdin_of(f"{album / 'a.png'}\r\n{album / 'c, d.png'}\r".encode()):
        done = m2sd("predict", "-", "--run", trained, *CPU)
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [str(album / "a.png"), str(album / "c, d.png")]


@pytest.mark.parametrize("names", [b"", b"\n\n", b"\r\n"])
def test_no_name_on_stdin_is_told(m2sd: Cli, trained: Path, names: bytes) -> None:
    with stdin_of(names):
        done = m2sd("predict", "-", "--run", trained, *CPU, "--json")
    assert (done.code, done.out, done.err) == (3, "", "m2sd: -: no photo is named on stdin\n")


def test_a_stdin_that_cannot_be_read_is_told(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    before, folder = os.dup(0), os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, 0)
    try:
        done = m2sd("predict", "-", "--run", trained, *CPU)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(folder)
    assert (done.code, done.out, done.err) == (3, "", "m2sd: stdin: cannot be read (Is a directory)\n")


def test_an_answer_does_not_wait_for_the_next_name(trained: Path, album: Path) -> None:
    answered = threading.Event()

    def names() -> Iterator[list[str]]:
        yield [str(album / "a.png")]
        assert answered.is_set(), "the second name was asked for first"
        yield [str(album / "c, d.png"), str(album / "absent")]

    paths = []
    for each in m2sd_cli.predict(names(), run=trained, device="cpu", skip_bad=True):
        answered.set()
        paths.append((each.path.name, each.skipped))
    assert paths == [("a.png", None), ("c, d.png", None), ("absent", "no such file")]
