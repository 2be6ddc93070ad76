"""m2sd evaluate"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import document, name_skipped, note, result, table
from m2sd_cli.errors import UsageError
from m2sd_cli.launch import speaks

if TYPE_CHECKING:
    from m2sd_cli.reports.evaluation import Evaluation
    from m2sd_cli.reports.metrics import Figures

NAMED = 10  # classes to name before "and more"


def evaluate(
    session: Annotated[str, typer.Option("--session", help="all, or the number of one session.")] = "all",
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Your own labelled pictures, DIR/CLASS/*.jpg.", show_default=False, readable=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="The folder of pretrain; not needed for a built-in data set.", show_default=False),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            "--confusion", help="Write the confusion matrix to this CSV file.", show_default=False, readable=False
        ),
    ] = None,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Accuracy after every session on the test images of all classes so far, in per cent.

    overall counts images; base and novel are means over classes, HM is their harmonic mean.

    Examples:
      m2sd evaluate

      m2sd evaluate --test ./labelled --json

      m2sd evaluate --session 3 --confusion confusion.csv
    """
    if session != "all" and not session.isdecimal():
        raise UsageError(f"--session {session}: all, or the number of one session")
    if confusion is not None and not confusion.parent.is_dir():
        raise UsageError(f"--confusion {confusion}: no such folder as {confusion.parent}")

    from m2sd_cli import api
    from m2sd_cli.reports.confusion import confusion_csv
    from m2sd_cli.runs.files import write_atomically

    if confusion is not None and api.open_run(run).owns(confusion):
        raise UsageError(f"--confusion {confusion}: that is a file of the run; name another one")
    last = None if session == "all" else int(session)
    evaluation = api.evaluate(
        run=run,
        session=last,
        test=test,
        data=data,
        data_root=data_root,
        device=device,
        precision=precision,
        confusion=confusion is not None,
        skip_bad=skip_bad,
    )
    name_skipped(evaluation.skipped, quiet)
    if confusion is not None and evaluation.confusion is not None and speaks():
        write_atomically(confusion, confusion_csv(evaluation.classes, evaluation.confusion))
        note(f"confusion matrix: {confusion}", quiet)
    if json:
        document(as_data(evaluation, last))
    else:
        for line in as_lines(evaluation.figures, last):
            result(line)
    if evaluation.untested:
        note(f"without test images, left out: {_named(evaluation.untested)}", quiet)
    if evaluation.unknown:
        note(f"test images of classes not taught, left out: {_named(evaluation.unknown)}", quiet)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def as_lines(figures: "Figures", only: int | None) -> list[str]:
    """The table, and AVG and PD below it; just the row of one session if `only` names it."""

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [
        [
            str(each.session),
            str(each.classes),
            str(each.images),
            *map(figure, (each.overall, each.base, each.novel, each.harmonic)),
        ]
        for each in figures.sessions
        if only is None or each.session == only
    ]
    lines = table(["session", "classes", "images", "overall", "base", "novel", "HM"], rows)
    return lines if only is not None else [*lines, f"AVG {figure(figures.average)}  PD {figure(figures.drop)}"]


def as_data(evaluation: "Evaluation", only: int | None) -> dict[str, object]:
    """The figures as JSON has them, unrounded."""
    from dataclasses import asdict

    figures = evaluation.figures
    content: dict[str, object] = {
        "sessions": [asdict(each) for each in figures.sessions if only is None or each.session == only]
    }
    if only is None:
        content |= {"average": figures.average, "drop": figures.drop}
    return content | {
        "untested_classes": evaluation.untested,
        "unknown_classes": evaluation.unknown,
        "skipped": [asdict(each) for each in evaluation.skipped],
    }
