"""Nothing from outside reaches a terminal as it is, and every encoding can say everything."""

import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.cli.output import as_text, document, note, printable, result, table
from tests.helpers import COMMANDS, Cli, Stripes

NASTY = "caf\u00e9 \x1b[31m\x07\x7f\x9b\n\r\t\u200b\u202e\u2066\u2028\ufeff\U000e0041\ud800 \u6f22"
SURROGATES = st.text(st.characters(exclude_categories=[]))
ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252")


def said(monkeypatch: pytest.MonkeyPatch, stream: str, encoding: str, say: Callable[[], None]) -> str:
    """Return the text written to a strict stream of an encoding."""
    content = io.BytesIO()
    with monkeypatch.context() as patch:
        wrapper = io.TextIOWrapper(content, encoding=encoding, errors="strict", newline="")
        patch.setattr(sys, stream, wrapper)
        say()
        wrapper.flush()
    return content.getvalue().decode(encoding)


@given(SURROGATES)
def test_what_is_printable_is_one_line_of_printable_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_escapes_tell_characters_apart() -> None:
    assert printable("\x1b\x9b") == "\\x1b\\x9b"
    assert printable("\u202e2") == "\\u202e2"
    assert printable("\U000e0041\udce9") == "\\U000e0041\\udce9"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("stream", "say"), [("stdout", result), ("stderr", note)])
def test_a_line_is_a_line(
    monkeypatch: pytest.MonkeyPatch, stream: str, say: Callable[[str], None], encoding: str
) -> None:
    text = said(monkeypatch, stream, encoding, lambda: say(NASTY))
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert ("\u6f22" in text) == (encoding == "utf-8")
    assert ("\u00e9" in text) == (encoding != "ascii")


@given(content=st.dictionaries(SURROGATES, st.lists(SURROGATES) | st.floats(allow_nan=False) | st.none()))
def test_a_document_can_be_written_in_every_encoding(content: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        text = said(patch, "stdout", "ascii", lambda: document(content))
    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == json.loads(json.dumps(content))  # where two halves of a character have become one


def test_a_document_has_a_line_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(monkeypatch, "stdout", "utf-8", lambda: document({"na\u00efve": "\U0001f426\x7f", "n": 1}))
    assert text == '{\n "na\\u00efve": "\\ud83d\\udc26\\u007f",\n "n": 1\n}\n'


def test_the_cells_of_a_table_are_one_line_each() -> None:
    lines = table(["name", "n"], [[NASTY, "1"], ["x", "10"]])
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert lines[1].endswith("   1")


@pytest.mark.parametrize(
    "words",
    [
        ["data", "list", "--data-root", f"/{NASTY[:-3]}"],
        ["data", "list", "--json", "--data-root", f"/{NASTY[:-3]}"],
        ["data", "verify", NASTY[:-3]],
        ["data", "download", NASTY[:-3]],
        ["sessions", "--run", f"/{NASTY[:-3]}"],
        ["sessions", "show", NASTY[:-3]],
        ["sessions", f"-{NASTY[:-3]}"],
        ["sessions", "undo", "--yes", "--run", f"/{NASTY[:-3]}"],
        [NASTY[:-3]],
        [f"--{NASTY[:-3]}"],
        ["predict", "--top-k", NASTY[:-3], "x"],
        ["predict", NASTY[:-3]],
        ["pretrain", "--data", NASTY[:-3]],
        ["pretrain", "--data", "demo", "--config", NASTY[:-3]],
        ["pretrain", "--data", "demo", "--init", NASTY[:-3]],
        ["pretrain", "--data", "demo", "--stop-after", NASTY[:-3]],
        ["evaluate", "--session", NASTY[:-3]],
        ["evaluate", "--confusion", f"{NASTY[:-3]}/{NASTY[:-3]}"],
        ["export", "--format", NASTY[:-3], "--out", "x"],
        ["increment", "--session", "1", NASTY[:-3]],
    ],
    ids=range(20),
)
def test_what_a_person_types_is_escaped_when_it_is_repeated(
    words: list[str], m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = m2sd(*words)
    text = done.out + done.err
    assert text
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert os.listdir(tmp_path) == []


def test_names_and_places_are_escaped_wherever_they_are_shown(
    run: Path, stripes: Stripes, m2sd: Cli, tmp_path: Path
) -> None:
    name = "\x1b[31m\u202e\u009b\ncaf\u00e9"
    shots = tmp_path / name / name
    shots.parent.mkdir()
    shutil.copytree(stripes.first_shots / "white", shots)
    place = run.rename(tmp_path / f"run{name}")
    said = [m2sd("increment", "--session", 3, "--shots", shots.parent, "--run", place)]
    said.append(m2sd("predict", shots, "--run", place, "--top-k", 9))
    for words in (["predict", shots], ["sessions"], ["sessions", "show", 3], ["sessions", "verify"]):
        options = ["--json"] if "show" not in words else []
        said.append(m2sd(*words, "--run", place, *options))
        json.loads(said[-1].out)
    said += [m2sd("sessions", "--run", place), m2sd("sessions", "verify", "--run", place)]
    out = tmp_path / f"{name}.safetensors"
    said.append(m2sd("export", "--format", "safetensors", "--out", out, "--run", place))
    said.append(m2sd("evaluate", "--test", shots.parent, "--run", place, "--confusion", f"{out}.csv"))
    said.append(m2sd("sessions", "undo", "--run", place, stdin="n\n"))
    said.append(m2sd("sessions", "undo", "--yes", "--run", place))
    for each in said:
        assert each.code == 0, each
        assert [line for line in (each.out + each.err).split("\n") if not line.isprintable()] == []
    assert name.encode() in Path(f"{out}.csv").read_bytes()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_real_process_says_everything_in_its_encoding(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    words = ["data", "list", "--data-root", "/caf\u00e9/\u6f22"]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps([words, [*words, "--json"]]).encode(),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shown, brace, data = done.stdout.decode(encoding).partition("{")
    assert shown
    assert json.loads(brace + data)


def test_a_path_that_is_no_text_can_be_written() -> None:
    assert as_text(Path(os.fsdecode(b"/caf\xe9"))) == "/caf\\udce9"
