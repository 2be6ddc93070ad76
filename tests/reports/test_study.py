"""Mean and deviation over runs, and the tables of them."""

import csv
from statistics import mean, stdev

import pytest
import torch

from m2sd_cli.reports.evaluation import ClassAccuracies, Evaluation
from m2sd_cli.reports.figures.accuracy import draw_accuracy, draw_forgetting
from m2sd_cli.reports.figures.svg import LeftOutError
from m2sd_cli.reports.markdown import escape_markdown, markdown_table
from m2sd_cli.reports.method_rows import MethodRow, run_row
from m2sd_cli.reports.metrics import Figures, SessionFigures, summarise
from m2sd_cli.reports.study import (
    OF_CHAIN,
    OF_SESSION,
    Sample,
    StudiedRun,
    Study,
    class_curves,
    study_chain,
    study_classes,
    study_csv,
    study_sessions,
)
from tests.reports.figures.test_figures import elements, parse


def run(first: float, last: float) -> Figures:
    return summarise(
        [
            SessionFigures(0, 2, 4, first, first, None, None, 100.0, None),
            SessionFigures(1, 3, 6, last, last + 1, last - 1, last - 0.5, 99.0, first - last),
        ]
    )


RUNS = [run(80.0, 60.0), run(84.0, 63.0), run(85.0, 60.5)]
CURVES = [{"red": {0: 80.0, 1: 70.0}, "=a,b": {1: value}} for value in (50.0, 60.0, 70.0)]


def made() -> Study:
    studied = [StudiedRun(f"seed-{n}", "0" * 64, n, n, "colours", "resnet20", None, "means") for n in range(3)]
    return Study(studied, RUNS, study_sessions(RUNS), study_chain(RUNS), study_classes(CURVES), [])


def test_every_figure_has_mean_deviation_and_the_value_of_every_run() -> None:
    study = made()
    for number, session in enumerate(study.sessions):
        assert session.figures.keys() == OF_SESSION.keys()
        for name, sample in session.figures.items():
            values = [getattr(each.sessions[number], name) for each in RUNS]
            assert sample.values == values
            if None in values:
                assert sample.summary is None
            else:
                assert sample.summary is not None
                assert (sample.summary.mean, sample.summary.deviation) == (mean(values), stdev(values))
    for name in OF_CHAIN:
        assert study.chain[name].values == [getattr(each, name) for each in RUNS]


def test_one_run_has_no_deviation_and_a_figure_that_a_run_lacks_no_mean() -> None:
    one = Sample([3.0]).summary
    assert one is not None
    assert (one.mean, one.deviation) == (3.0, None)
    assert Sample([3.0, None]).summary is None


def test_every_figure_is_a_line_of_the_csv() -> None:
    rows = list(csv.DictReader(b"".join(study_csv(made())).decode().splitlines()))
    assert len(rows) == 2 * len(OF_SESSION) + len(OF_CHAIN) + 3
    overall = next(row for row in rows if (row["figure"], row["session"]) == ("overall", "1"))
    assert [float(overall[f"seed-{n}"]) for n in range(3)] == [60.0, 63.0, 60.5]
    assert float(overall["deviation"]) == pytest.approx(stdev([60.0, 63.0, 60.5]))
    of_class = next(row for row in rows if row["class"] == "=a,b")
    assert (of_class["figure"], of_class["session"], float(of_class["mean"])) == ("accuracy", "1", 60.0)
    assert next(row for row in rows if row["figure"] == "harmonic")["mean"] == ""


def test_a_class_that_a_run_does_not_know_has_no_mean() -> None:
    only, shared = study_classes([{"a": {0: 1.0}, "b": {0: 2.0}}, {"b": {0: 4.0, 1: 3.0}}])
    assert (only.name, only.sessions[0].values, only.sessions[0].summary) == ("a", [1.0, None], None)
    assert [shared.sessions[0].values, shared.sessions[1].values] == [[2.0, 4.0], [None, 3.0]]


def test_a_class_keeps_its_curve_where_it_is_renamed_and_where_another_takes_its_name() -> None:
    """Class 1 is forgotten after session 0; class 2 has its name from session 1 on, and class 0 another one."""
    parts = [
        ClassAccuracies(["red", "heron"], [0, 1], 0, [torch.tensor([10.0, torch.nan])]),
        ClassAccuracies(["crimson", "heron"], [0, 2], 1, [torch.tensor([20.0, 30.0])]),
    ]
    evaluation = object.__new__(Evaluation)
    object.__setattr__(evaluation, "accuracies", parts)
    object.__setattr__(evaluation, "classes", ["crimson", "heron"])
    assert class_curves(evaluation) == {
        "crimson": {0: 10.0, 1: 20.0},
        "heron (class 1, forgotten)": {0: None},
        "heron": {1: 30.0},
    }


def test_forgotten_classes_of_one_name_keep_a_curve_each() -> None:
    """Class 1 is forgotten as heron after session 0; class 2 is renamed to it, and forgotten after session 1."""
    parts = [
        ClassAccuracies(["red", "heron"], [0, 1], 0, [torch.tensor([10.0, 20.0])]),
        ClassAccuracies(["red", "heron"], [0, 2], 1, [torch.tensor([30.0, 40.0])]),
        ClassAccuracies(["red"], [0], 2, [torch.tensor([50.0])]),
    ]
    evaluation = object.__new__(Evaluation)
    object.__setattr__(evaluation, "accuracies", parts)
    object.__setattr__(evaluation, "classes", ["red"])
    assert class_curves(evaluation) == {
        "red": {0: 10.0, 1: 30.0, 2: 50.0},
        "heron (class 1, forgotten)": {0: 20.0},
        "heron (class 2, forgotten)": {1: 40.0},
    }


def test_the_markdown_table_has_a_cell_for_each_of_its_heads() -> None:
    lines = markdown_table([MethodRow("a|b <i>", [None, 1.0], None, 2.0, 3.0), run_row("ours", RUNS)]).splitlines()
    assert lines[0] == "| method | 0 | 1 | AVG | PD | HM |"
    assert lines[2] == "| a\\|b \\<i\\> | - | 1.00 | - | 2.00 | 3.00 |"
    assert lines[3].startswith("| ours | 83.00 ± 2.65 | 61.17 ± 1.61 |")
    assert escape_markdown("[x](y)\n") == r"\[x\]\(y\)\\x0a"


def test_bands_reach_one_deviation_from_the_mean() -> None:
    drawn = draw_accuracy(RUNS)
    assert len(elements(drawn, "band")) == 4
    assert "mean and deviation" in drawn
    assert not elements(draw_accuracy(RUNS[:1]), "band")
    band = elements(drawn, "band")[0]["d"].removeprefix("M").split("L")
    line = elements(drawn, "l0")[0]["d"].removeprefix("M").split("L")
    heights = [float(point.split()[1]) for point in band]
    middle = [float(point.split()[1]) for point in line]
    upper, lower = heights[:2], heights[:1:-1]
    assert [(a + b) / 2 for a, b in zip(upper, lower, strict=True)] == pytest.approx(middle, abs=0.01)
    share = (middle[1] - upper[1]) / (middle[1] - middle[0])
    assert share == pytest.approx(stdev([60.0, 63.0, 60.5]) / (83.0 - mean([60.0, 63.0, 60.5])), abs=0.01)


def test_forgetting_is_drawn_where_something_could_be_forgotten() -> None:
    assert len(list(parse(draw_forgetting(RUNS)).iter())) > 6
    with pytest.raises(LeftOutError, match="no session was taught"):
        draw_forgetting([summarise([RUNS[0].sessions[0]])])
