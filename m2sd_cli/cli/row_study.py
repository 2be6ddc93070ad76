"""The command `m2sd study` of an ablation: its rows, by the figures that it has kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import m2sd_cli
from m2sd_cli.ablation.records import BUDGET, read_budget, read_results
from m2sd_cli.ablation.table import RowStudy, rows_csv, study_rows
from m2sd_cli.cli.comparison import OwnRow, apart_data, comparison_data, comparison_lines, explain_comparisons
from m2sd_cli.cli.option_sets import Printing
from m2sd_cli.cli.output import as_text, document, table
from m2sd_cli.cli.progress import reporting
from m2sd_cli.cli.study import StudyFiles, as_data, cell, print_lines, run_rows
from m2sd_cli.config.option import flag
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.reports.method_rows import published_rows, row_of_length, run_row
from m2sd_cli.reports.study import OF_CHAIN, OF_SESSION

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_ablation(runs: list[Path], files: StudyFiles, given: dict[str, Any], printing: Printing) -> None:
    """Study an ablation, whose figures are kept.

    Args:
        runs: the arguments of the command, one of which is an ablation.
        files: to write.
        given: options of `m2sd_cli.study`.
        printing: options of the output.

    Raises:
        UsageError: something else was named with it, or an option of evaluation was given.
        M2sdError: there is no figure yet, or a file cannot be read or written.
    """
    out = next(run for run in runs if (run / BUDGET).is_file())
    runs_of_it = f"its runs, as {as_text(out)}/seed-*/ROW"
    if len(runs) > 1:
        raise UsageError(f"{out}: an ablation; name it alone, or {runs_of_it}")
    usual = {"device": "auto", "precision": "auto", "skip_bad": False, "ignore_new": False}
    for name, value in given.items():
        if name != "compare" and value != usual.get(name):  # a cost of 0 is one
            raise UsageError(f"{flag(name)}: {out} is an ablation, whose figures are kept; name {runs_of_it}")
    _print_rows(out, files, given["compare"], printing)


def _print_rows(out: Path, files: StudyFiles, compare: bool, printing: Printing) -> None:
    """Study the rows of an ablation by the figures that it has kept, write the files and print the result.

    Args:
        out: the folder of the ablation.
        files: to write.
        compare: take along what is published for the data set and backbone of the first run.
        printing: options of the output.

    Raises:
        M2sdError: there is no figure yet, or a file cannot be read or written.
    """
    json, quiet = printing.json, printing.quiet
    budget = read_budget(out)
    with reporting(quiet):
        found = read_results(out, list(budget.described()))
    if not found:
        raise RunError(f"{out}: no run of this ablation has ended yet; go on with the same 'm2sd ablation'")
    on_stdout = files.check((out / f"seed-{each.seed}" / each.row for each in found), json)
    studies = study_rows(budget, found)
    sessions = max(len(each.study.sessions) for each in studies)
    runs = {each.row: each.study.runs[0].run for each in studies if compare}
    comparisons = {row: m2sd_cli.compare(out / run) for row, run in runs.items()}
    comparison = comparisons[studies[0].row] if compare else None
    compared = len(studies[0].study.sessions)  # a row of another way has more sessions, or fewer
    rows = [] if comparison is None else published_rows(comparison, compared)
    rows += [run_row(_name(each), each.study.figures) for each in studies]
    rows = [row_of_length(row, sessions) for row in rows]
    try:
        if json:
            data = {"ablation": as_text(out), "budget": budget.as_data()}
            content = [
                {"row": each.row, "what": each.what, **as_data(each.study)}
                | (apart_data(comparisons[each.row]) if compare else {})
                for each in studies
            ]
            document({**data, "rows": content, **comparison_data(comparison)})
        else:
            lines = rows_as_lines(studies)
            if compare:
                lines += comparison_lines(
                    [OwnRow(_name(each), each.study.figures, comparisons[each.row]) for each in studies]
                )
            print_lines(lines, on_stdout, quiet)
    finally:  # as in a study of runs
        files.write(rows_csv(studies), rows, quiet)
        files.draw({f"{each.row}-": each.study for each in studies}, quiet)
    if compare:
        explain_comparisons({runs[row]: each for row, each in comparisons.items()}, quiet)


def _name(row: "RowStudy") -> str:
    """Return the name of a row in a table of methods, with the number of seeds if there are several."""
    seeds = len(row.study.runs)
    return row.row if seeds == 1 else f"{row.row} ({seeds} seeds)"


def rows_as_lines(studies: "Sequence[RowStudy]") -> list[str]:
    """Format the accuracy of every row after every session, its other figures, and every run."""
    sessions = max(len(each.study.sessions) for each in studies)
    lines = ["accuracy after each session, mean +- standard deviation (n - 1)", ""]
    cells = [
        [each.row, str(len(each.study.runs)), *(cell(session.figures["overall"]) for session in each.study.sessions)]
        for each in studies
    ]
    full = [[*row, *["-"] * (sessions + 2 - len(row))] for row in cells]
    lines += table(["row", "seeds", *map(str, range(sessions))], full)
    lines += ["", "all sessions, and after the last one"]
    rows = [
        [
            each.row,
            *(cell(each.study.chain[name]) for name in OF_CHAIN),
            *(cell(each.study.sessions[-1].figures[name]) for name in OF_SESSION),
        ]
        for each in studies
    ]
    head = [*OF_CHAIN.values(), *OF_SESSION.values()]
    lines += [*table(["row", *head], rows), "", "each run"]
    return [*lines, *table(["run", "seed", *head], [row for each in studies for row in run_rows(each.study)])]
