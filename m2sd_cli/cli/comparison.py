"""Published figures beside those of a run, or of several."""

from typing import TYPE_CHECKING

from m2sd_cli.cli.output import format_mean, note, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2sd_cli.reports.metrics import Figures
    from m2sd_cli.reports.published import Comparison


def comparison_lines(runs: "Sequence[Figures]", comparison: "Comparison", name: str = "this run") -> list[str]:
    """Format a table with a row for one run or several, one for each published method, and the sources below it.

    The figures of later sessions are left out of the row of runs that have other sessions than the official ones.

    Args:
        runs: figures of the same number of sessions each; the row has mean and deviation of several.
        comparison: of the first run.
        name: of the row.
    """
    from m2sd_cli.reports.published import MARKS, TRAINED_W, explain_marks

    ends = [(each.sessions[0], each.sessions[-1], each) for each in runs]
    later = [(last.overall, each.average, each.drop, last.novel, last.harmonic) for _, last, each in ends]
    figures = list(zip(*([first.overall, *rest] for (first, _, _), rest in zip(ends, later, strict=True)), strict=True))
    shown = [_over(values) if comparison.comparable or not number else "-" for number, values in enumerate(figures)]
    rows = [[name, "-", comparison.backbone, *shown, ""]]
    for number, each in enumerate(comparison.rows, start=1):
        row, mark = each.row, MARKS[each.method.epoch_chosen_on_test]
        base = f"{row.base}{TRAINED_W}" if each.method.trained_w_in_session_0 else row.base
        published = (base, row.last, row.average, row.drop, row.novel, row.harmonic)
        rows.append(
            [
                f"{each.method.name}{mark}",
                str(each.method.year),
                row.backbone,
                *("-" if value is None else str(value) for value in published),
                f"[{number}]",
            ]
        )
    header = ["method", "year", "backbone", "session 0", "last", "AVG", "PD", "novel", "HM", "source"]
    sources = [f"[{number}] {each.source}" for number, each in enumerate(comparison.rows, start=1)]
    return ["", *table(header, rows), *explain_marks(comparison.rows, name), *sources]


def _over(values: "Sequence[float | None]") -> str:
    from m2sd_cli.reports.study import Sample

    summary = Sample([*values]).summary
    return "-" if summary is None else format_mean(summary)


def explain_comparison(comparison: "Comparison", quiet: bool, who: str = "this run") -> None:
    """Say which published figures are left out, and why.

    Args:
        comparison: of a run.
        quiet: says nothing.
        who: the run.
    """
    if comparison.others:
        note(f"published on {comparison.data} with other backbones, not shown: {comparison.others} rows", quiet)
    explain_run(comparison, quiet, who)


def explain_run(comparison: "Comparison", quiet: bool, who: str) -> None:
    """Say in what a run differs from the published ones.

    Args: those of `explain_comparison`.
    """
    if comparison.other_base:
        note(f"{who} has {' and '.join(comparison.other_base)}: no published figure can be compared", quiet)
    elif not comparison.comparable:
        note(
            f"{who} has other sessions than the {comparison.official} official ones after session 0; "
            f"only its session 0 can be compared",
            quiet,
        )
    for predicate in comparison.other_training:
        note(f"{who} {predicate}", quiet)


def comparison_data(comparison: "Comparison | None") -> dict[str, object]:
    """Return the comparison for JSON; nothing if there is none."""
    if comparison is None:
        return {}
    return {
        "comparable": comparison.comparable,
        "other_base": comparison.other_base,
        "other_training": comparison.other_training,
        "published": [each.as_data() for each in comparison.rows],
    }
