"""Several runs in one table: what goes together, what is told, and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from tests.helpers import Cli, Stripes, check_refusal, copy_base_session

CPU = ["--device", "cpu", "-q"]


def test_the_figures_are_those_of_each_evaluation(trained: Path, calibrated: Path, stripes: Stripes) -> None:
    study = m2sd_cli.study([trained, str(calibrated)], test=stripes.labelled, device="cpu")
    alone = [m2sd_cli.evaluate(run=each, test=stripes.labelled, device="cpu") for each in (trained, calibrated)]
    assert study.figures == [each.figures for each in alone]
    assert [each.run for each in study.runs] == [str(trained), str(calibrated)]
    assert [each.name for each in study.classes] == ["blue", "green", "red", "yellow", "purple", "white", "grey"]
    overall = [each.sessions[2].values for each in study.classes if 2 in each.sessions]
    for number, each in enumerate(alone):
        right = [values[number] for values in overall]
        known = [value for value in right if value is not None]
        assert sum(known) / len(known) == pytest.approx(each.figures.sessions[2].overall)
    assert "the 2 runs differ in held-out of stage 1: 0.05, 0.25" in study.differences
    assert "the runs were trained on different images of the base classes" in study.differences
    assert any(each.startswith("runs have the same seed") for each in study.differences)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ({}, {"closeness_weight": 0.0}, None),
        ({"closeness_weight": 0.0}, {}, None),
        ({}, {"closeness_weight": 0.5}, "0.0, 0.5"),
        ({"closeness_weight": 0.5}, {"closeness_weight": 0.0}, "0.5, 0.0"),
    ],
)
def test_an_option_that_an_earlier_version_did_not_have_is_at_its_default(
    trained: Path,
    calibrated: Path,
    stripes: Stripes,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, float],
    second: dict[str, float],
    differ: str | None,
) -> None:
    read, configs = RunFolder.read, {trained: first, calibrated: second}
    changed = []

    def earlier(folder: RunFolder, name: str, sha256: str | None = None) -> StoredManifest:
        stored = read(folder, name, sha256)
        if name == PRETRAIN:
            assert stored.manifest.config.pop("closeness_weight") == 0.0
            stored.manifest.config.update(configs[folder.path])
            changed.append(folder.path)
        return stored

    monkeypatch.setattr(RunFolder, "read", earlier)
    differences = m2sd_cli.study([trained, calibrated], test=stripes.labelled, device="cpu").differences
    assert {*changed} == {trained, calibrated}  # else the study has read them elsewhere
    told = [each for each in differences if "closeness" in each]
    assert told == ([] if differ is None else [f"the 2 runs differ in closeness-weight of stage 1: {differ}"])


def test_the_same_run_counts_once(trained: Path, run: Path, stripes: Stripes) -> None:
    with pytest.raises(UsageError, match="the same run as"):
        m2sd_cli.study([trained, run], test=stripes.labelled, device="cpu")
    with pytest.raises(UsageError, match="is one run"):
        m2sd_cli.study(str(trained))
    with pytest.raises(UsageError, match="name the runs"):
        m2sd_cli.study([])


def test_runs_of_other_sessions_or_data_are_refused(
    trained: Path, calibrated: Path, simulated: Path, tmp_path: Path
) -> None:
    short = copy_base_session(calibrated, tmp_path / "short")
    with pytest.raises(UsageError, match="their last sessions are 2 and 0"):
        m2sd_cli.study([trained, short])
    with pytest.raises(UsageError, match="of 'colours' and of 'demo-simulated'"):
        m2sd_cli.study([trained, simulated])


def test_other_classes_are_refused(trained: Path, calibrated: Path, stripes: Stripes, tmp_path: Path) -> None:
    other = copy_base_session(calibrated, tmp_path / "other")
    shots = Path(shutil.copytree(stripes.first_shots, tmp_path / "shots"))
    (shots / "white").rename(shots / "snow")
    m2sd_cli.increment(1, shots, run=other, device="cpu")
    m2sd_cli.increment(2, stripes.second_shots, run=other, device="cpu")
    with pytest.raises(UsageError, match="of other classes, such as 'snow'"):
        m2sd_cli.study([trained, other])


def test_runs_that_have_forgotten_other_classes_are_refused(trained: Path, calibrated: Path, tmp_path: Path) -> None:
    one, two = (Path(shutil.copytree(run, tmp_path / run.parent.name / "run")) for run in (trained, calibrated))
    m2sd_cli.forget("purple", run=one)
    m2sd_cli.forget("white", run=two)
    with pytest.raises(UsageError, match="one of them has forgotten 'purple'; study runs of the same classes"):
        m2sd_cli.study([one, two])


def test_other_views_and_other_new_names_are_told(
    calibrated: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (copy_base_session(calibrated, tmp_path / name) for name in ("one", "two"))
    for run, views, name in ((one, 1, "violet"), (two, 2, "purple-red")):
        m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu", views=views)
        m2sd_cli.rename("purple", name, run=run)
    differences = m2sd_cli.study([one, two], test=stripes.labelled, device="cpu").differences
    assert "the 2 runs differ in views of the sessions after session 0: 1, 2" in differences
    assert "the 2 runs differ in names of renamed classes: violet, purple-red" in differences


def test_the_command_writes_every_table(
    m2sd: Cli, trained: Path, calibrated: Path, stripes: Stripes, tmp_path: Path
) -> None:
    words = ["study", trained, calibrated, "--test", stripes.labelled, *CPU]
    files = {name: tmp_path / f"study.{name}" for name in ("csv", "markdown", "latex")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    done = m2sd(*words, *options, "--figures", tmp_path / "figures")
    assert done.code == 0, done.err
    assert "2 runs, mean +- standard deviation (n - 1)" in done.out
    data = json.loads(m2sd(*words, "--json").out)
    assert [each["run"] for each in data["runs"]] == [str(trained), str(calibrated)]
    assert {"seed", "data", "backbone", "recipe", "classifier"} <= data["runs"][0].keys()
    average = data["average"]
    assert f"AVG {average['mean']:.2f} +- {average['deviation']:.2f}" in done.out
    assert f"{average['mean']:.2f} ± {average['deviation']:.2f}" in files["markdown"].read_text(encoding="utf-8")
    assert f"${average['mean']:.2f} \\pm {average['deviation']:.2f}$" in files["latex"].read_text()
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert [float(each["mean"]) for each in rows if each["figure"] == "average"] == [average["mean"]]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"accuracy.svg", "forgetting.svg"}


def test_evaluate_of_several_runs_is_a_study(m2sd: Cli, trained: Path, calibrated: Path, stripes: Stripes) -> None:
    common = ["--test", stripes.labelled, *CPU]
    both = m2sd("evaluate", "--run", trained, "--run", calibrated, *common)
    assert (both.code, both.out) == (0, m2sd("study", trained, calibrated, *common).out)
    one = m2sd("evaluate", "--run", trained, "--run", calibrated, "--session", "1", *common)
    check_refusal(one, 2, "--session: it is of one run")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--csv RUN/session-000.json", "that is a file of the run"),
        ("--csv - --json", "both write to stdout"),
        ("--figures ABSENT/figures", "no such folder as"),
        ("--compare --test x", "leave one out"),
        ("--compare", "nothing is published on 'colours'"),
    ],
)
def test_refusals_come_before_any_work(
    m2sd: Cli, trained: Path, calibrated: Path, tmp_path: Path, words: str, says: str
) -> None:
    filled = [word.replace("RUN", str(calibrated)).replace("ABSENT", str(tmp_path / "x")) for word in words.split()]
    check_refusal(m2sd("study", trained, calibrated, *filled), 2, says)
