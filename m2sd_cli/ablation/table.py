"""Means and deviations over the seeds from the results of runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from m2sd_cli.ablation.records import Budget, Result
from m2sd_cli.ablation.rows import baseline
from m2sd_cli.errors import DamagedError
from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.spreadsheet import csv_line
from m2sd_cli.reports.study import Sample, StudiedRun, StudiedSession, Study, study_chain, study_sessions

ACCURACIES: Final = ("average", "last", "base", "novel", "harmonic", "session_0")


@dataclass(frozen=True)
class RowSummary:
    """A row of the table over its seeds; the fields are those of JSON."""

    row: str
    what: str
    seeds: int
    accuracies: dict[str, MeanAndDeviation | None]  # by the names of ACCURACIES, in per cent
    # The mean of the differences to the row of `baseline`, seed by seed, in points: runs of a seed share stage 1, so
    # that their differences vary less than the runs. None without a seed that both rows have, and of the baseline.
    above: dict[str, MeanAndDeviation | None] | None
    pairs: int  # seeds that both rows have
    seconds: MeanAndDeviation  # of stage 2
    ms_per_step: MeanAndDeviation
    sessions: list[StudiedSession]  # none if an earlier version made a result


def summarise(results: Sequence[Result], described: Mapping[str, str]) -> list[RowSummary]:
    """Summarise each row that has a result, in the order of the rows.

    Args:
        results: of runs.
        described: the description of every row.
    """
    by_row = {name: [each for each in results if each.row == name] for name in described}
    by_row = {name: runs for name, runs in by_row.items() if runs}
    if not by_row:
        return []
    first = baseline(list(by_row))
    others = {each.seed: each for each in by_row[first]}
    return [_summary(name, described[name], runs, {} if name == first else others) for name, runs in by_row.items()]


def _summary(name: str, what: str, runs: list[Result], others: dict[int, Result]) -> RowSummary:
    pairs = [(each, others[each.seed]) for each in runs if each.seed in others]
    return RowSummary(
        row=name,
        what=what,
        seeds=len(runs),
        accuracies={figure: Sample([getattr(each, figure) for each in runs]).summary for figure in ACCURACIES},
        above={
            figure: Sample([_difference(*(getattr(each, figure) for each in pair)) for pair in pairs]).summary
            for figure in ACCURACIES
        }
        if pairs
        else None,
        pairs=len(pairs),
        seconds=MeanAndDeviation.of([each.seconds for each in runs]),
        ms_per_step=MeanAndDeviation.of([each.ms_per_step for each in runs]),
        sessions=_sessions(runs),
    )


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _sessions(runs: Sequence[Result]) -> list[StudiedSession]:
    figures = [each.figures for each in runs]
    known = [each for each in figures if each is not None]
    return study_sessions(known) if len(known) == len(figures) else []


@dataclass(frozen=True)
class RowStudy:
    """A row of a table as a study of its seeds."""

    row: str
    what: str
    study: Study


def study_rows(budget: Budget, results: Sequence[Result]) -> list[RowStudy]:
    """Put the recorded figures of the runs of every row side by side.

    Args:
        budget: of the table.
        results: of runs, by seed.

    Raises:
        DamagedError: a result of an earlier version has the last session alone.
    """
    studies = []
    for name, what in budget.described().items():
        runs = [each for each in results if each.row == name]
        figures = [each.figures for each in runs]
        known = [each for each in figures if each is not None]
        if len(known) < len(figures):
            raise DamagedError(
                f"row {name}: an earlier version kept the figures of the last session alone; remove its files "
                f"result.json, and the same 'm2sd ablation' evaluates the runs again"
            )
        if runs:
            study = Study(
                runs=[_studied(budget, each) for each in runs],
                figures=known,
                sessions=study_sessions(known),
                chain=study_chain(known),
                classes=[],
                differences=[],
            )
            studies.append(RowStudy(name, what, study))
    return studies


def rows_csv(studies: Sequence[RowStudy]) -> Iterator[bytes]:
    """Write every figure of every row in a line: mean, deviation with n - 1, and the value of each seed, unrounded."""
    seeds = sorted({run.seed_of_distill for each in studies for run in each.study.runs})
    yield csv_line("row", "figure", "session", "mean", "deviation", *(f"seed {seed}" for seed in seeds))
    for each in studies:
        samples = [
            (name, session.session, sample)
            for session in each.study.sessions
            for name, sample in session.figures.items()
        ]
        own = [run.seed_of_distill for run in each.study.runs]
        for name, number, sample in [*samples, *((name, None, sample) for name, sample in each.study.chain.items())]:
            values = dict(zip(own, sample.values, strict=True))
            summary = sample.summary
            both = (None, None) if summary is None else (summary.mean, summary.deviation)
            yield csv_line(each.row, name, number, *both, *(values.get(seed) for seed in seeds))


def _studied(budget: Budget, result: Result) -> StudiedRun:
    return StudiedRun(
        run=f"seed-{result.seed}/{result.row}",
        sha256=result.sha256 or "",
        seed=0 if budget.shared_stage_1 else result.seed,
        seed_of_distill=result.seed,
        data=budget.data,
        backbone=result.backbone or "",
        recipe=budget.recipe,
        classifier=result.classifier or "",
    )
