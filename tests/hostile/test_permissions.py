"""Files and folders that may not be read, for real: in a process that has given up root's right to read everything."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Stripes, tree

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

PROGRAM = """
import contextlib, ctypes, io, json, os, sys
if os.geteuid() == 0:
    # Linux; without its capabilities root is an owner like any other.
    none = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), none) == 0
from m2sd_cli.cli.app import main
for words in json.load(sys.stdin):
    sys.argv = ["m2sd", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or (IS_ROOT and sys.platform != "linux"), reason="root reads everything here"
)


def call(commands: list[list[object]]) -> list[tuple[int, str, str]]:
    """Run commands in that process; code, stdout and stderr of each."""
    given = json.dumps([[str(word) for word in words] for words in commands])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in map(json.loads, done.stdout.splitlines())]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files can be removed afterwards, whatever their rights."""
    (tmp_path / "place").mkdir()
    yield tmp_path / "place"
    for folder, inside, _ in os.walk(tmp_path / "place"):
        for name in inside:
            os.chmod(os.path.join(folder, name), 0o700)


def test_what_may_not_be_read_is_named(run: Path, stripes: Stripes, place: Path) -> None:
    image = next((stripes.labelled / "orange").iterdir())

    def fill(*names: str) -> Path:
        for name in names:
            (place / name).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                shutil.copy(image, place / name / f"{number}.png")
        return place / names[0]

    end = ["--run", run, "--device", "cpu"]
    quick = ["--image-size", 16, "--backbone", "resnet20", "--epochs", 1, "--run", place / "new", "--device", "cpu"]
    cases: list[tuple[list[object], int, str]] = []

    secret = fill("one/heron") / "1.png"
    secret.chmod(0)
    says = f"{secret}: no permission to read it"
    cases += [
        (["increment", "--session", 3, "--shots", place / "one", *end], 3, says),
        (["predict", place / "one", *end], 3, says),
        (["predict", secret, *end], 3, says),
        (["data", "verify", place / "one"], 3, says),
    ]
    secret = fill("labelled/red") / "1.png"
    secret.chmod(0)
    cases += [
        (["evaluate", "--test", place / "labelled", *end], 3, f"{secret}: no permission to read it"),
        (["evaluate", "--test", place / "labelled", *end, "--skip-bad"], 0, "red/1.png (no permission to read it)"),
    ]

    fill("two/finch")
    closed = fill("two/heron")
    closed.chmod(0)
    says = f"{closed}: cannot be read (Permission denied)"
    cases += [
        (["increment", "--session", 3, "--shots", place / "two", *end], 3, says),
        (["increment", "--session", 3, "--shots", place / "two", *end, "--skip-bad"], 3, says),
        (["pretrain", "--data", place / "two", *quick], 3, says),
        (["predict", place / "two", *end], 3, says),
        (["data", "verify", place / "two"], 3, says),
        (["predict", closed / "0.png", *end], 3, f"{closed / '0.png'}: no such file or folder"),
    ]

    fill("three/finch")
    listed = fill("three/heron")
    listed.chmod(0o400)  # its names can be listed, and nothing else
    says = f"{listed / '0.png'}: no permission to read it"
    cases += [
        (["increment", "--session", 3, "--shots", place / "three", *end], 3, says),
        (
            ["increment", "--session", 3, "--shots", place / "three", *end, "--skip-bad"],
            3,
            "no image of class 'heron'",
        ),
        (["predict", place / "three", *end], 3, says),
        (["predict", listed, *end, "--skip-bad"], 3, says),
    ]

    shut = fill("seven")
    shut.chmod(0)
    says = f"{shut}: cannot be read (Permission denied)"
    cases += [
        (["increment", "--session", 3, "--shots", shut, *end], 3, says),
        (["evaluate", "--test", shut, *end], 3, says),
        (["predict", shut, *end], 3, says),
        (["pretrain", "--data", shut, *quick], 3, says),
    ]

    fill("four/finch", "four/heron")
    (place / "four").chmod(0o400)
    cases += [
        (["increment", "--session", 3, "--shots", place / "four", *end], 3, "cannot be read (Permission denied)"),
        (["pretrain", "--data", place / "four", *quick], 3, "cannot be read (Permission denied)"),
    ]

    fill("five/train/finch", "five/train/heron")
    (place / "five" / "train").chmod(0)
    cases += [(["pretrain", "--data", place / "five", *quick], 3, "train: cannot be read (Permission denied)")]

    fill("six/photos/finch")
    (place / "six").chmod(0)
    cases += [
        (["pretrain", "--data", place / "six" / "photos", *quick], 3, "photos: no such folder"),
        (["predict", place / "six" / "photos", *end], 3, "photos: no such file or folder"),
        (["increment", "--session", 3, "--shots", place / "six" / "photos", *end], 3, "photos: no such folder"),
    ]

    before = tree(run)
    for (words, code, says), (found, out, err) in zip(cases, call([words for words, _, _ in cases]), strict=True):
        assert found == code, (words, out, err)
        assert says in err, words
        if code:
            told = bool(out) and words[0] == "predict"  # the images that can be read are answered
            assert told or words[0] == "data" or (out, err.count("\n")) == ("", 1), (words, out, err)
            assert err.splitlines()[-1].startswith("m2sd: ")
    assert tree(run) == before
    assert not (place / "new").exists()


def test_a_run_folder_that_may_not_be_read_or_written_is_named(run: Path, stripes: Stripes, place: Path) -> None:
    image = next((stripes.labelled / "orange").iterdir())
    shots = place / "shots"
    shutil.copytree(stripes.labelled / "orange", shots / "orange")
    quick = ["--image-size", 16, "--backbone", "resnet20", "--epochs", 1, "--device", "cpu"]
    cases: list[tuple[list[object], str]] = []

    def ask(where: Path, says: str) -> None:
        of = ["--run", where, "--device", "cpu"]
        cases.extend(
            (words, says)
            for words in (
                ["predict", image, *of],
                ["evaluate", "--test", stripes.labelled, *of],
                ["increment", "--session", 3, "--shots", shots, *of],
                ["export", "--format", "safetensors", "--out", place / "out", "--run", where],
                ["distill", "--data", stripes.folder, "--epochs", 0, "--force", "--yes", *of],
                ["sessions", "--run", where],
                ["sessions", "verify", "--run", where],
                ["sessions", "undo", "--yes", "--run", where],
            )
        )

    for name, rights in (("shut", 0), ("listed", 0o400), ("secret", 0o100)):
        shutil.copytree(run, place / name / "run")
        (place / name / "run" / "head.json").chmod(0)
        (place / name / "run").chmod(rights)
        ask(place / name / "run", ": cannot be read (Permission denied)")
    shutil.copytree(run, place / "above" / "run")
    (place / "above").chmod(0)
    ask(place / "above" / "run", ": cannot be read (Permission denied)")
    shutil.copytree(run, place / "fixed")
    (place / "fixed").chmod(0o500)
    changes: list[list[object]] = [
        ["increment", "--session", 3, "--shots", shots, "--run", place / "fixed", "--device", "cpu"],
        ["sessions", "undo", "--yes", "--run", place / "fixed"],
        ["pretrain", "--data", stripes.folder, *quick, "--run", place / "fixed" / "new"],
        ["pretrain", "--data", stripes.folder, *quick, "--run", place / "above" / "new"],
    ]
    cases += [(words, "(Permission denied)") for words in changes]

    before = tree(place / "fixed")
    for (words, says), (found, out, err) in zip(cases, call([words for words, _ in cases]), strict=True):
        assert (found, out) == (4, ""), (words, out, err)
        lines = err.splitlines()
        assert all(line.startswith("m2sd: ") and says in line for line in lines), (words, err)
        assert len(lines) == 1 or "verify" in words  # which names every file
    [(code, _, err)] = call([["export", "--format", "pt2", "--out", place / "fixed" / "out", "--run", run]])
    assert (code, err) == (
        2,
        f"m2sd: --out {place}/fixed/out: {place}/fixed cannot be written to; name another folder\n",
    )
    assert tree(place / "fixed") == before
    reading: list[list[object]] = [
        ["predict", image, "--run", place / "fixed"],
        ["sessions", "verify", "--run", place / "fixed"],
    ]
    assert [code for code, _, _ in call(reading)] == [0, 0]
