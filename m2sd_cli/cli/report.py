"""The command `m2sd report`."""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import note


def report(
    out: Annotated[Path, typer.Option("--out", help="The page to write.", readable=False)] = Path("report.html"),
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Your own labelled pictures, DIR/CLASS/*.jpg.", show_default=False, readable=False),
    ] = None,
    shots: options.ShotFolders = None,
    session: options.SessionChoice = None,
    data: options.FolderOfPretrain = None,
    classifier: options.Classifier = None,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    skip_bad: options.SkipBad = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one page of a run: what it knows, its figures, its mistakes and why, and how it was made.

    The page is one file of HTML without a script, which needs no network: to be sent, printed and kept. Folders of
    pictures are looked for where they were. What the run cannot tell is left out, and the page says why.

    Examples:
      m2sd report
      m2sd report --run birds --test ./labelled --out birds.html
      m2sd report --run birds --shots 1=./new-birds
    """
    folders = options.shot_folders(shots or [])

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import check_output, write_output

    check_output("--out", out, m2sd_cli.open_run(run))
    with reporting(quiet):
        page = m2sd_cli.report(
            run=run,
            session=session,
            test=test,
            data=data,
            data_root=data_root,
            shots=folders,
            device=device,
            precision=precision,
            skip_bad=skip_bad,
            classifier=classifier,
        )
    content = page.encode()
    write_output(out, content)
    note(f"page: {out}, {len(content) / 1e6:.1f} MB; open it with a browser", quiet)
