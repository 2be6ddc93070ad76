"""The command `m2sd report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.option_sets import Evaluating, takes_option_sets, values
from m2sd_cli.cli.output import note


@dataclass(frozen=True, kw_only=True)
class Images:
    """The options that name photos for the page."""

    test: options.LabelledFolder = None
    shots: options.ShotFolders = None


@takes_option_sets
def report(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="The page to write; one that is there is replaced.", readable=False)
    ] = Path("report.html"),
    images: Images,
    session: options.SessionChoice = None,
    data: options.FolderOfPretrain = None,
    classifier: options.Classifier = None,
    run: options.Run = None,
    evaluating: Evaluating,
    quiet: options.Quiet = False,
) -> None:
    """Write one page of a model: what it knows, its figures, its mistakes and why, and how it was made.

    The page is one file of HTML without a script, which needs no network: to be sent, printed and kept. It shows
    photos, which are looked for where they were. What the run cannot tell is left out, and the page says why.

    Examples:
      m2sd report
      m2sd report --run birds --test ./labelled --out birds.html
      m2sd report --run birds --shots 1=./new-birds
    """
    folders = options.shot_folders(images.shots or [])

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import check_output, write_output

    check_output("--out", out, m2sd_cli.open_run(run))
    with reporting(quiet):
        page = m2sd_cli.report(
            run=run,
            session=session,
            test=images.test,
            data=data,
            shots=folders,
            classifier=classifier,
            **values(evaluating),
        )
    content = page.encode()
    write_output(out, content)
    note(f"page: {out}, {len(content) / 1e6:.1f} MB; open it with a browser", quiet)
