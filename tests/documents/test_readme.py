"""The README is short enough to be read, and its Python example runs."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

from m2sd_cli.errors import EXIT_CODES
from m2sd_cli.pairing import INDEX
from m2sd_cli.runs import places
from tests.documents.markdown import ROOT, Document
from tests.documents.workshop import shortened

PATH = ROOT / "README.md"
README = Document(PATH, PATH.read_text(encoding="utf-8"))


def test_it_is_short() -> None:
    lines = README.text.splitlines()
    assert len(lines) <= 220
    assert [line for line in lines if len(line) > 120] == []


def test_the_exit_codes_are_all_there() -> None:
    [codes] = re.findall(r"^Exit codes: (.*)\.$", README.text, re.MULTILINE)
    assert re.findall(r"\d+", codes) == [str(code) for code in EXIT_CODES]


def test_the_environment_is_made_as_the_readme_says(tmp_path: Path) -> None:
    [block] = [each for each in README.blocks if each.language == "text" and each.marker("prints") is None]
    make, install = block.text.splitlines()
    script = make.partition("#")[0].rstrip().replace("-m venv", "-m venv --without-pip") + " && command -v python3"
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/.venv/bin/python3\n"
    assert install.partition("#")[0].rstrip() == f"pip install torch torchvision --index-url {INDEX}/cpu"


def test_the_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.findall(r"needs Python ([\d.]+) or newer", README.text) == [project["requires-python"].removeprefix(">=")]
    changes = (ROOT / ".github/CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## ([\d.]+)$", changes, re.MULTILINE)
    assert re.findall(r"version = \{([\d.]+)\}", README.text) == released[:1]


def test_the_files_of_a_run_have_these_names() -> None:
    there = {path.name for path in (ROOT / "tests/kept/0.2.0/run").iterdir()}
    [tree] = [block.text for block in README.blocks if "head.json" in block.text]
    assert set(re.findall(r"[\w-]+\.\w+", tree)) <= there
    table = (ROOT / "m2sd_cli/runs/README.md").read_text(encoding="utf-8").partition("## Manifests")[0]
    assert set(re.findall(r"`(\w[\w-]*\.\w+)`", table)) <= there | {places.PLACES}


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = [block.text for block in README.blocks if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    Path("example.py").write_text(example, encoding="utf-8")
    with shortened(tmp_path):
        runpy.run_path("example.py")
    assert re.fullmatch(r"AVG \d+\.\d, PD -?\d+\.\d\n", capsys.readouterr().out)
