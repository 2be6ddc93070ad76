"""Published figures beside those of a run, or of several."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import format_mean, note, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m2sd_cli.reports.metrics import Figures
    from m2sd_cli.reports.published import Comparison


@dataclass(frozen=True)
class OwnRow:
    """A row of a comparison: one run, or several over seeds."""

    name: str
    runs: "Sequence[Figures]"  # of the same number of sessions each
    comparison: "Comparison"  # of these runs

    def cells(self) -> list[str]:
        """Format it, with mean and deviation of several runs, and later sessions if they are the official ones."""
        every = [
            (
                each.sessions[0].overall,
                each.sessions[-1].overall,
                each.average,
                each.drop,
                each.sessions[-1].novel,
                each.sessions[-1].harmonic,
            )
            for each in self.runs
        ]
        first, *later = map(_over, zip(*every, strict=True))
        if not self.comparison.comparable:
            later = ["-"] * len(later)
        return [self.name, "-", self.comparison.backbone, first, *later, ""]


def comparison_lines(own: "Sequence[OwnRow]") -> list[str]:
    """Format a table with our rows and one for each published method, and the sources below it.

    Args:
        own: at least one; the published methods are those of the first.
    """
    from m2sd_cli.reports.published import explain_marks

    comparison = own[0].comparison
    rows = [each.cells() for each in own]
    for number, each in enumerate(comparison.rows, start=1):
        row = each.row
        published = (each.marked_base, row.last, row.average, row.drop, row.novel, row.harmonic)
        rows.append(
            [
                f"{each.method.name}{each.mark}",
                str(each.method.year),
                row.backbone,
                *("-" if value is None else str(value) for value in published),
                f"[{number}]",
            ]
        )
    header = ["method", "year", "backbone", "session 0", "last", "AVG", "PD", "novel", "HM", "source"]
    sources = [f"[{number}] {each.source}" for number, each in enumerate(comparison.rows, start=1)]
    name = own[0].name if len(own) == 1 else "our rows"
    return ["", *table(header, rows), *explain_marks(comparison.rows, name), *sources]


def _over(values: "Sequence[float | None]") -> str:
    from m2sd_cli.reports.study import Sample

    summary = Sample([*values]).summary
    return "-" if summary is None else format_mean(summary)


def explain_comparison(comparison: "Comparison", quiet: bool) -> None:
    """Say which published figures are left out, and why.

    Args:
        comparison: of a run.
        quiet: says nothing.
    """
    _tell_others(comparison, quiet)
    for predicate in _predicates(comparison):
        note(f"this run {predicate}", quiet)


def explain_comparisons(comparisons: "Mapping[str, Comparison]", quiet: bool) -> None:
    """Say it of several runs, each thing once.

    Args:
        comparisons: by the name of the run, at least one.
        quiet: says nothing.
    """
    _tell_others(next(iter(comparisons.values())), quiet)
    runs: dict[str, list[str]] = {}
    for name, comparison in comparisons.items():
        for predicate in _predicates(comparison):
            runs.setdefault(predicate, []).append(name)
    for predicate, names in runs.items():
        note(f"{'the run' if len(names) == 1 else 'each of the runs'} {', '.join(names)} {predicate}", quiet)


def _tell_others(comparison: "Comparison", quiet: bool) -> None:
    if comparison.others:
        note(f"published on {comparison.data} with other backbones, not shown: {comparison.others} rows", quiet)


def _predicates(comparison: "Comparison") -> list[str]:
    """Return predicates of sentences on what sets a run apart from the published ones."""
    told = []
    if comparison.other_base:
        told.append(f"has {' and '.join(comparison.other_base)}: no published figure can be compared")
    elif not comparison.comparable:
        told.append(
            f"has other sessions than the {comparison.official} official ones after session 0; only its session 0 can "
            f"be compared"
        )
    return told + comparison.other_training


def comparison_data(comparison: "Comparison | None") -> dict[str, object]:
    """Return the comparison for JSON; nothing if there is none."""
    if comparison is None:
        return {}
    return {**apart_data(comparison), "published": [each.as_data() for each in comparison.rows]}


def apart_data(comparison: "Comparison") -> dict[str, object]:
    """Return for JSON what sets a run apart from the published ones."""
    return {
        "comparable": comparison.comparable,
        "other_base": comparison.other_base,
        "other_training": comparison.other_training,
    }
