"""The files that `m2sd evaluate` writes: tables and figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from m2sd_cli.cli import options
from m2sd_cli.cli.output import note, older_file
from m2sd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from m2sd_cli.reports.evaluation import Evaluation
    from m2sd_cli.reports.published import Comparison
    from m2sd_cli.runs.folder import RunFolder


def require_places_apart(tables: "Mapping[str, Path]", json: bool) -> bool:
    """Refuse to write two things to stdout or to one file.

    Args:
        tables: files by the option that names them.
        json: whether the result is printed as JSON.

    Returns:
        True if one of the tables is written there.

    Raises:
        UsageError: there are two.
    """
    from m2sd_cli.output_files import is_special, is_stdout

    to_stdout = [f"{option} {path}" for option, path in tables.items() if is_stdout(path)]
    both = [*to_stdout, "--json"] if json else to_stdout
    if len(both) > 1:
        raise UsageError(f"{both[0]} and {both[1]}: both write to stdout; name a file")
    taken: dict[Path, str] = {}
    for option, path in tables.items():
        if is_special(path):  # two tables may go to /dev/null
            continue
        first = taken.setdefault(path.resolve(), option)
        if first != option:
            raise UsageError(f"{first} and {option} {path}: both write this file; name two")
    return bool(to_stdout)


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """The files that were asked for; None for one that was not."""

    confusion: Annotated[
        Path | None, options.output_file("--confusion", "Write the confusion matrix to this CSV file.")
    ] = None
    per_class: Annotated[
        Path | None,
        options.output_file("--per-class", "Write precision, recall and F1 of every class to this CSV file."),
    ] = None
    latex: Annotated[
        Path | None,
        options.output_file("--latex", "Write a table for LaTeX, with published rows if --compare is given."),
    ] = None
    figures: Annotated[Path | None, options.output_file("--figures", "Write the figures into this folder, as SVG.")] = (
        None  # a folder
    )

    @property
    def tables(self) -> dict[str, Path]:
        """The files of tables by option."""
        every = {"--confusion": self.confusion, "--per-class": self.per_class, "--latex": self.latex}
        return {option: path for option, path in every.items() if path is not None}

    def check(self, run: "RunFolder", json: bool) -> None:
        """Refuse what cannot be written, before any work is done for it.

        Raises:
            UsageError: a file cannot be written, or two things would be written to one place.
        """
        from m2sd_cli.output_files import check_output, check_output_folder

        for option, path in self.tables.items():
            check_output(option, path, run)
        require_places_apart(self.tables, json)
        if self.figures is not None:
            check_output_folder("--figures", self.figures, run)

    @property
    def on_stdout(self) -> bool:
        """Tell whether one of the tables is written to stdout."""
        from m2sd_cli.output_files import is_stdout

        return any(map(is_stdout, self.tables.values()))

    def write(
        self, evaluation: "Evaluation", comparison: "Comparison | None", run: "RunFolder", own: bool, quiet: bool
    ) -> None:
        """Write them all.

        Args:
            evaluation: with the features if there are figures.
            comparison: whose rows the table for LaTeX gets, too.
            run: the run folder.
            own: whether the test images were a person's own.
            quiet: say nothing of it.

        Raises:
            M2sdError: a file cannot be written.
        """
        from m2sd_cli.output_files import write_output
        from m2sd_cli.reports.confusion import confusion_csv
        from m2sd_cli.reports.per_class import class_figures, per_class_csv

        answers, names = evaluation.answers, evaluation.classes
        contents: dict[str, Iterable[bytes]] = {}
        if self.confusion is not None:
            contents["--confusion"] = confusion_csv(names, answers.labels, answers.predicted)
        if self.per_class is not None:
            contents["--per-class"] = per_class_csv(
                class_figures(answers.labels, answers.predicted, names, evaluation.taught)
            )
        if self.latex is not None:
            contents["--latex"] = [_latex(evaluation, comparison, run).encode()]
        titles = {"--confusion": "confusion matrix", "--per-class": "figures of each class", "--latex": "table"}
        for option, content in contents.items():
            path = self.tables[option]
            write_output(path, content)
            note(f"{titles[option]}: {path}", quiet)
        if self.figures is not None:
            self._draw(evaluation, run, own, quiet)

    def _draw(self, evaluation: "Evaluation", run: "RunFolder", own: bool, quiet: bool) -> None:
        import m2sd_cli
        from m2sd_cli.output_files import make_output_folder, write_output
        from m2sd_cli.reports.figures.svg import standalone

        assert self.figures is not None
        make_output_folder(self.figures)
        written = []
        for name, drawn in m2sd_cli.draw_figures(evaluation, run=run.path, own_images=own):
            if isinstance(drawn, str):
                write_output(self.figures / f"{name}.svg", standalone(drawn).encode())
                written.append(name)
            else:
                note(f"no figure {name}: {drawn}{older_file(self.figures / f'{name}.svg')}", quiet)
        note(f"figures in {self.figures}: {', '.join(written)}", quiet)


def _latex(evaluation: "Evaluation", comparison: "Comparison | None", run: "RunFolder") -> str:
    from m2sd_cli.reports.latex import latex_table
    from m2sd_cli.reports.method_rows import published_rows, run_row

    rows = [] if comparison is None else published_rows(comparison, len(evaluation.figures.sessions))
    return latex_table([*rows, run_row(run.path.resolve().name, [evaluation.figures])])
