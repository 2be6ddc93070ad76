"""The command `m2sd sessions replay`."""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.chain_lines import NAMED, outline
from m2sd_cli.cli.option_sets import Computing, takes_option_sets, values
from m2sd_cli.cli.output import command, document, note


@takes_option_sets
def replay(
    *,
    source: Annotated[
        Path, typer.Option("--from", help="Run folder whose sessions to teach.", show_default=False, readable=False)
    ],
    shots: Annotated[
        list[Path] | None,
        typer.Option("--shots", help="Folder with shots; may be repeated.", show_default=False, readable=False),
    ] = None,
    run: options.Run = None,
    computing: Computing,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach the sessions of another run again, to the network of this run, for example after a new training.

    Shots are found by their SHA-256 in the folders named, and where the other run remembers them. Official sessions of
    a built-in data set need none.

    Examples:
      m2sd sessions replay --from old-birds --run birds
      m2sd sessions replay --from old-birds --run birds --shots ./new-birds
    """
    import m2sd_cli
    from m2sd_cli.api.tested_images import has_test_images
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        taught = m2sd_cli.replay(source, run=run, shots=shots or [], **values(computing))
    if json:
        document({"sessions": [outline(stored) for stored in taught]})
        return
    for stored in taught:
        manifest = stored.manifest
        known = [each.name for each in manifest.classes] + [each.name for each in manifest.edits]
        names = ", ".join(known[:NAMED]) + (", ..." if len(known) > NAMED else "")
        note(f"session {manifest.session}: {manifest.kind}: {names}", quiet)
    if has_test_images(m2sd_cli.open_run(run)):
        note(f"next: {command('evaluate', run, data_root=computing.data_root)}", quiet)
