"""The command `m2sd study`, and `m2sd evaluate` of several runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.comparison import OwnRow, comparison_data, comparison_lines, explain_comparisons
from m2sd_cli.cli.evaluation_files import require_places_apart
from m2sd_cli.cli.option_sets import Classifying, Evaluating, LabelledImages, Printing, takes_option_sets, values
from m2sd_cli.cli.output import document, format_figure, format_mean, note, older_file, printable, results, table
from m2sd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from m2sd_cli.reports.method_rows import MethodRow
    from m2sd_cli.reports.study import Sample, StudiedSession, Study


BUDGET = "ablation.json"  # that of m2sd_cli.ablation.records, which takes a while to import


@dataclass(frozen=True, kw_only=True)
class StudyFiles:
    """The files that were asked for; None for one that was not."""

    csv: Annotated[Path | None, options.output_file("--csv", "Write every figure of every run to this CSV file.")] = (
        None
    )
    markdown: Annotated[Path | None, options.output_file("--markdown", "Write a table in Markdown.")] = None
    latex: Annotated[Path | None, options.output_file("--latex", "Write a table for LaTeX.")] = None
    figures: Annotated[
        Path | None, options.output_file("--figures", "Write curves with bands into this folder, as SVG.")
    ] = None  # a folder

    @property
    def tables(self) -> dict[str, Path]:
        """The files of tables by option."""
        every = {"--csv": self.csv, "--markdown": self.markdown, "--latex": self.latex}
        return {option: path for option, path in every.items() if path is not None}

    def check(self, runs: "Iterable[Path]", json: bool) -> bool:
        """Refuse what cannot be written, before any work is done for it.

        Args:
            runs: run folders, whose own files are not overwritten.
            json: whether the result is printed as JSON.

        Returns:
            True if a table is written to stdout.

        Raises:
            UsageError: a file cannot be written, or two things would be written to stdout.
        """
        from m2sd_cli.output_files import check_output, check_output_folder
        from m2sd_cli.runs.folder import open_run

        for run in map(open_run, runs):
            for option, path in self.tables.items():
                check_output(option, path, run)
            if self.figures is not None:
                check_output_folder("--figures", self.figures, run)
        return require_places_apart(self.tables, json)

    def write(self, csv: "Iterable[bytes]", rows: "Sequence[MethodRow]", quiet: bool) -> None:
        """Write the tables.

        Args:
            csv: every figure.
            rows: of the tables for a paper.
            quiet: says nothing of it.

        Raises:
            M2sdError: a file cannot be written.
        """
        from m2sd_cli.output_files import write_output
        from m2sd_cli.reports.latex import latex_table
        from m2sd_cli.reports.markdown import markdown_table

        contents: dict[str, Callable[[], Iterable[bytes]]] = {
            "--csv": lambda: csv,
            "--markdown": lambda: [markdown_table(rows).encode()],
            "--latex": lambda: [latex_table(rows).encode()],
        }
        for option, path in self.tables.items():
            write_output(path, contents[option]())
            note(f"table: {path}", quiet)

    def draw(self, studies: "Mapping[str, Study]", quiet: bool) -> None:
        """Write the curves, each study's under its name.

        Args:
            studies: by the beginnings of the names of their files.
            quiet: says nothing of it.

        Raises:
            M2sdError: a file cannot be written.
        """
        for beginning, study in studies.items():
            if self.figures is not None:
                self._draw(study, self.figures, beginning, quiet)

    @staticmethod
    def _draw(study: "Study", folder: Path, beginning: str, quiet: bool) -> None:
        from m2sd_cli.output_files import make_output_folder, write_output
        from m2sd_cli.reports.figures.accuracy import draw_accuracy, draw_forgetting
        from m2sd_cli.reports.figures.svg import LeftOutError, standalone

        make_output_folder(folder)
        comparison = study.comparison
        published = comparison.rows if comparison is not None and comparison.comparable else []
        drawings: dict[str, Callable[[], str]] = {
            "accuracy": lambda: draw_accuracy(study.figures, published),
            "forgetting": lambda: draw_forgetting(study.figures),
        }
        written = []
        for name, draw in drawings.items():
            try:
                write_output(folder / f"{beginning}{name}.svg", standalone(draw()).encode())
                written.append(f"{beginning}{name}")
            except LeftOutError as reason:
                note(f"no figure {beginning}{name}: {reason}{older_file(folder / f'{beginning}{name}.svg')}", quiet)
        note(f"figures in {folder}: {', '.join(written)}", quiet)


@takes_option_sets
def study(
    *,
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders, one for each seed; or the folder of an ablation.", show_default=False
        ),
    ],
    images: LabelledImages,
    files: StudyFiles,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show published rows of the same data set and backbone, too.")
    ] = False,
    classifying: Classifying,
    evaluating: Evaluating,
    printing: Printing,
) -> None:
    """Evaluate runs that differ in seed, and average every figure, in per cent, over them.

    It prints mean +- standard deviation, which divides by n - 1, and then each run. --csv and --json
    have every figure of every run after every session, and the accuracy of every class.

    top-5 counts images whose class is among the five best. Forgetting is how far classes of earlier sessions are below
    their best accuracy so far, on average. Runs of other data or with other sessions are refused; other differences
    between them, as in options, are named.

    Of an ablation all rows are shown, with the figures that it has kept of every run after every session. Its runs can
    be named one by one, too; then they are evaluated, class by class.

    Examples:
      m2sd study seed-0 seed-1 seed-2
      m2sd study seed-* --compare --latex table.tex --figures curves
      m2sd study seed-* --csv - > figures.csv
      m2sd study seed-* --classifier teen --json
      m2sd study m2sd-ablation --latex table.tex
      m2sd study m2sd-ablation/seed-*/m2sd
    """
    if compare and images.test is not None:
        raise UsageError("--compare and --test: what is published is of the data set's own test images; leave one out")
    given = values(images, classifying, evaluating) | {"compare": compare}
    if any((run / BUDGET).is_file() for run in runs):
        from m2sd_cli.cli.row_study import print_ablation

        print_ablation(runs, files, given, printing)
        return
    print_study(runs, files, given, printing)


def print_study(runs: list[Path], files: StudyFiles, given: dict[str, Any], printing: Printing) -> None:
    """Study runs, write the files and print the result.

    Args:
        given: options of `m2sd_cli.study`.
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.reports.study import study_csv

    json, quiet = printing.json, printing.quiet
    on_stdout = files.check(runs, json)
    with reporting(quiet):
        done = m2sd_cli.study(runs, **given)
    try:
        if json:
            document(as_data(done))
        else:
            print_lines(as_lines(done), on_stdout, quiet)
    finally:  # a file that cannot be written loses no figure, and a reader who leaves loses no file
        files.write(study_csv(done), _rows(done), quiet)
        files.draw({"": done}, quiet)
    for each in done.differences:
        note(each, quiet)
    if done.comparisons:
        explain_comparisons(done.comparisons, quiet)


def print_lines(lines: list[str], on_stdout: bool, quiet: bool) -> None:
    """Print lines where the result goes, or beside a table that is written there."""
    if not on_stdout:
        results(lines)
        return
    for line in lines:
        note(line, quiet)


def _name(study: "Study") -> str:
    """Return the name of the row of all runs."""
    return "these runs" if len(study.runs) > 1 else printable(study.runs[0].run)


def _rows(study: "Study") -> "list[MethodRow]":
    from m2sd_cli.reports.method_rows import published_rows, run_row

    published = [] if study.comparison is None else published_rows(study.comparison, len(study.sessions))
    return [*published, run_row(_name(study), study.figures)]


def cell(sample: "Sample") -> str:
    """Format mean and deviation of a figure."""
    summary = sample.summary
    return "-" if summary is None else format_mean(summary)


def as_lines(study: "Study") -> list[str]:
    """Format the figures over the runs, session by session, and those of each run after the last session."""
    from m2sd_cli.reports.study import OF_CHAIN, OF_SESSION

    first = study.runs[0]
    count = len(study.runs)
    over = "1 run" if count == 1 else f"{count} runs, mean +- standard deviation (n - 1)"
    lines = [f"{printable(first.data)}, {first.backbone}, {first.recipe or 'no recipe'}: {over}", ""]
    rows = [
        [str(each.session), str(each.classes), str(each.images[0]), *map(cell, each.figures.values())]
        for each in study.sessions
    ]
    lines += table(["session", "classes", "images", *OF_SESSION.values()], rows)
    lines.append("  ".join(f"{title} {cell(study.chain[name])}" for name, title in OF_CHAIN.items()))
    last = study.sessions[-1]
    head = ["run", "seed", *OF_CHAIN.values(), *OF_SESSION.values()]
    lines += ["", f"each run, after session {last.session}", *table(head, run_rows(study))]
    if study.comparison is None:
        return lines
    return [*lines, *comparison_lines([OwnRow(_name(study), study.figures, study.comparison)])]


def run_rows(study: "Study") -> list[list[str]]:
    """Format the figures of each run after the last session."""
    last = study.sessions[-1]
    return [
        [
            printable(each.run),
            str(each.seed) if each.seed == each.seed_of_distill else f"{each.seed}, {each.seed_of_distill}",
            *(format_figure(sample.values[number]) for sample in study.chain.values()),
            *(format_figure(sample.values[number]) for sample in last.figures.values()),
        ]
        for number, each in enumerate(study.runs)
    ]


def _sample_data(sample: "Sample") -> dict[str, object]:
    from dataclasses import asdict

    summary = sample.summary
    both = {"mean": None, "deviation": None} if summary is None else asdict(summary)
    return {**both, "values": sample.values}


def session_data(session: "StudiedSession") -> dict[str, object]:
    """Return the figures of a session for JSON, unrounded."""
    return {
        "session": session.session,
        "classes": session.classes,
        "images": session.images,
        **{name: _sample_data(figure) for name, figure in session.figures.items()},
    }


def as_data(study: "Study") -> dict[str, object]:
    """Return all figures for JSON, unrounded."""
    from dataclasses import asdict

    content: dict[str, object] = {
        "runs": [asdict(each) for each in study.runs],
        "deviation": "standard deviation of the sample, which divides by n - 1",
        "sessions": list(map(session_data, study.sessions)),
        **{name: _sample_data(figure) for name, figure in study.chain.items()},
        "classes": [
            {
                "name": each.name,
                "sessions": [{"session": number, **_sample_data(figure)} for number, figure in each.sessions.items()],
            }
            for each in study.classes
        ],
        "differences": study.differences,
    }
    return content | comparison_data(study.comparison)
