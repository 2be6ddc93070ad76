"""The command `m2sd evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.comparison import OwnRow, comparison_data, comparison_lines, explain_comparison
from m2sd_cli.cli.evaluation_files import EvaluationFiles
from m2sd_cli.cli.option_sets import Classifying, Evaluating, LabelledImages, Printing, takes_option_sets, values
from m2sd_cli.cli.output import document, format_figure, note, results, table, unknown_tells_little
from m2sd_cli.cli.study import StudyFiles, print_study
from m2sd_cli.distributed.torchrun import is_distributed, is_main_process
from m2sd_cli.errors import UsageError

if TYPE_CHECKING:
    from m2sd_cli.reports.evaluation import Evaluation
    from m2sd_cli.reports.published import Comparison

NAMED = 10  # classes to name before "and more"


def _complete_sessions(context: typer.Context) -> list[str]:
    return ["all", *options.complete_sessions(context)]


@takes_option_sets
def evaluate(
    *,
    session: Annotated[
        str,
        typer.Option(
            "--session", help="Sessions to measure: all, or the number of one.", autocompletion=_complete_sessions
        ),
    ] = "all",
    images: LabelledImages,
    files: EvaluationFiles,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show published rows of the same data set and backbone, too.")
    ] = False,
    classifying: Classifying,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="Run folder: $M2SD_RUN, else ./m2sd-run. May be repeated, to average over runs.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    evaluating: Evaluating,
    printing: Printing,
) -> None:
    """Measure the accuracy after every session on the test images of all classes so far, in per cent.

    overall is the share of images that are answered rightly. base is the mean accuracy of the base classes, novel that
    of the new ones, HM the harmonic mean of both. AVG is the mean of overall over the sessions, AHM that of HM from
    session 1 on, PD the drop of overall from session 0 to the last. AVG and AHM leave sessions out that only rename,
    forget or extend classes.

    ECE is how far probabilities are from how often they are right: low is good. AUROC is how often an image of a known
    class scores higher than one of an unknown class: high is good, 50 is chance. FPR95 is the share of images of
    unknown classes that pass for known where 95 % of the known do: low is good.

    Examples:
      m2sd evaluate
      m2sd evaluate --test ./labelled --json
      m2sd evaluate --session 3 --confusion confusion.csv
      m2sd evaluate --figures figures --latex table.tex --compare
      m2sd evaluate --compare
      m2sd evaluate --classifier teen
      m2sd evaluate --classifier debiased --base-cost 1
      m2sd evaluate --run seed-0 --run seed-1
    """
    json, quiet = printing.json, printing.quiet
    if session != "all" and not session.isdecimal():
        raise UsageError(f"--session {session}: all, or the number of one session")
    if compare and images.test is not None:
        raise UsageError("--compare and --test: what is published is of the data set's own test images; leave one out")
    if compare and session != "all":
        raise UsageError(f"--compare and --session {session}: what is published is of all sessions; leave one out")

    if runs is not None and len(runs) > 1:
        of_one = {"--session": session != "all", "--confusion": files.confusion, "--per-class": files.per_class}
        for option, given in of_one.items():
            if given:
                raise UsageError(f"{option}: it is of one run; name one --run, or see 'm2sd study --csv'")
        if is_distributed():
            raise UsageError("--run: several runs are evaluated by one process; leave torchrun out, or name one run")
        arguments = values(images, classifying, evaluating) | {"compare": compare}
        print_study(runs, StudyFiles(latex=files.latex, figures=files.figures), arguments, printing)
        return

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    run = runs[0] if runs else None
    folder = m2sd_cli.open_run(run)
    files.check(folder, json)
    last = None if session == "all" else int(session)
    comparison = m2sd_cli.compare(run) if compare else None
    with reporting(quiet):
        evaluation = m2sd_cli.evaluate(
            run=run,
            session=last,
            keep_features=files.figures is not None,
            **values(images, classifying, evaluating),
        )
    try:
        if json:
            document(as_data(evaluation, last, comparison))
        else:
            lines = as_lines(evaluation, last)
            if comparison is not None:
                lines += comparison_lines([OwnRow("this run", [evaluation.figures], comparison)])
            if files.on_stdout:
                for line in lines:  # a table below another would be none that a spreadsheet reads
                    note(line, quiet)
            else:
                results(lines)
    finally:  # a file that cannot be written loses no figure, and a reader who leaves loses no file
        if is_main_process():
            files.write(evaluation, comparison, folder, own=images.test is not None, quiet=quiet)
    if comparison is not None:
        explain_comparison(comparison, quiet)
    note(f"classifier: {evaluation.classifier}", quiet)
    if not evaluation.confidence.calibrated:
        note("no ECE, AUROC and FPR95: no base images were held out to calibrate probabilities with", quiet)
    if evaluation.confidence.told is not None and evaluation.confidence.tells_little:
        note(unknown_tells_little(evaluation.confidence.told), quiet)
    if evaluation.untested:
        say = "none of them in --test DIR" if images.test is not None else "name labelled ones with --test DIR"
        note(f"without test images, left out: {_named(evaluation.untested)}; {say}", quiet)
    if evaluation.unknown:
        what = "only AUROC and FPR95 look at them" if evaluation.confidence.calibrated else "left out"
        note(f"test images of classes not taught, {what}: {_named(evaluation.unknown)}", quiet)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _trust(evaluation: "Evaluation") -> list[dict[str, float | None]]:
    """Return ECE, AUROC and FPR95 of each session."""
    if not evaluation.calibration:
        return [dict.fromkeys(("ece", "auroc", "fpr95")) for _ in evaluation.figures.sessions]
    return [{"ece": each.ece, "auroc": each.auroc, "fpr95": each.fpr95} for each in evaluation.calibration]


def as_lines(evaluation: "Evaluation", only: int | None) -> list[str]:
    """Format the table, with AVG, AHM and PD below it, or the row of the session that `only` names."""
    figures = evaluation.figures
    rows = [
        [
            str(each.session),
            str(each.classes),
            str(each.images),
            *map(format_figure, (each.overall, each.base, each.novel, each.harmonic)),
            *map(format_figure, trust.values()),
        ]
        for each, trust in zip(figures.sessions, _trust(evaluation), strict=True)
        if only is None or each.session == only
    ]
    header = ["session", "classes", "images", "overall", "base", "novel", "HM", "ECE", "AUROC", "FPR95"]
    lines = table(header, rows)
    if only is not None:
        return lines
    means = {"AVG": figures.average, "AHM": figures.average_harmonic, "PD": figures.drop}
    return [*lines, "  ".join(f"{name} {format_figure(value)}" for name, value in means.items())]


def as_data(evaluation: "Evaluation", only: int | None, comparison: "Comparison | None" = None) -> dict[str, object]:
    """Return the figures for JSON, unrounded."""
    from dataclasses import asdict

    figures = evaluation.figures
    content: dict[str, object] = {
        "sessions": [
            asdict(each) | trust
            for each, trust in zip(figures.sessions, _trust(evaluation), strict=True)
            if only is None or each.session == only
        ]
    }
    if only is None:
        content |= {
            "average": figures.average,
            "average_harmonic": figures.average_harmonic,
            "drop": figures.drop,
        }
    return content | {
        **comparison_data(comparison),
        "classifier": evaluation.classifier,
        "temperature": evaluation.confidence.temperature,
        "calibrated": evaluation.confidence.calibrated,
        "unknown_told": evaluation.confidence.told,
        "untested_classes": evaluation.untested,
        "unknown_classes": evaluation.unknown,
        "skipped": [asdict(each) for each in evaluation.skipped],
    }
