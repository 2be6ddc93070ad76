"""The files of `m2sd evaluate`: what they hold, and what is refused before any work."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import m2sd_cli
from m2sd_cli.reports.figures.table import FIGURES
from tests.helpers import Cli, Stripes, check_refusal, tree


def test_figures_and_tables_are_written(m2sd: Cli, calibrated: Path, stripes: Stripes, tmp_path: Path) -> None:
    figures, table, classes = tmp_path / "figures", tmp_path / "table.tex", tmp_path / "classes.csv"
    words = ["evaluate", "--run", calibrated, "--test", stripes.labelled, "--device", "cpu"]
    plain = m2sd(*words)
    done = m2sd(*words, "--figures", figures, "--latex", table, "--per-class", classes)
    assert (done.code, done.out) == (0, plain.out)
    assert {path.stem for path in figures.iterdir()} == FIGURES.keys()
    for path in figures.iterdir():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    data = json.loads(m2sd(*words, "--json").out)
    assert f"& {data['average']:.2f} &" in table.read_text()
    rows = list(csv.DictReader(classes.read_text().splitlines()))
    assert [row["class"] for row in rows] == ["blue", "green", "red", "yellow", "purple", "white", "grey"]
    assert [row["images"] for row in rows] == ["2", "2", "2", "2", "2", "0", "2"]
    overall = sum(float(row["recall"]) * int(row["images"]) for row in rows if row["recall"]) / 12
    assert overall == pytest.approx(data["sessions"][-1]["overall"], abs=0.01)


def test_a_figure_that_cannot_be_drawn_is_named(m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    words = ["evaluate", "--run", trained, "--test", stripes.labelled, "--device", "cpu", "--figures", tmp_path / "f"]
    done = m2sd(*words)
    assert done.code == 0
    assert "no figure known-scores: no base images were held out" in done.err
    assert not (tmp_path / "f" / "known-scores.svg").exists()


def test_features_are_kept_only_where_they_are_drawn(trained: Path, stripes: Stripes) -> None:
    assert m2sd_cli.evaluate(run=trained, session=1, test=stripes.labelled, device="cpu").embedded is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--figures FILE", "it is a file; name a folder"),
        ("--figures RUN/training", "that is a folder of the run"),
        ("--figures ABSENT/figures", "no such folder as"),
        ("--latex RUN/session-000.json", "that is a file of the run"),
        ("--per-class ABSENT/x.csv", "no such folder as"),
        ("--per-class - --json", "both write to stdout"),
        ("--per-class - --latex -", "both write to stdout"),
        ("--per-class SAME --latex SAME", "both write this file"),
        ("--confusion SAME --latex LINK", "both write this file"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(
    m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path, words: str, says: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("same")
    places = {"FILE": tmp_path / "file", "RUN": run, "ABSENT": tmp_path / "absent"}
    places |= {"SAME": tmp_path / "same", "LINK": tmp_path / "link"}
    filled = [
        str(places.get(word.split("/")[0], word.split("/")[0])) + word[len(word.split("/")[0]) :]
        for word in words.split()
    ]
    before = tree(tmp_path)
    check_refusal(m2sd("evaluate", "--run", run, "--test", stripes.labelled, *filled), 2, says)
    assert tree(tmp_path) == before
