"""The command `m2sd doctor`."""

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import document, results
from m2sd_cli.errors import M2sdError


def doctor(run: options.Run = None, data_root: options.DataRoot = None, json: options.Json = False) -> None:
    """Tell whether a training would work here, and why not: versions, devices, memory, disk, data, run folder.

    Exit code 1 if it would fail; the reasons come first, each with the way out. Nothing is changed or downloaded.

    Examples:
      m2sd doctor
      m2sd doctor --run birds
      m2sd doctor --json
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting():
        found = m2sd_cli.doctor(run=run, data_root=data_root)
    if json:
        document(
            {
                "works": not found.problems,
                "problems": found.problems,
                "remarks": found.remarks,
                "findings": {each.name: each.facts for each in found.findings},
            }
        )
    else:
        width = max(len(each.name) for each in found.findings)
        results(f"does not work: {each}" for each in found.problems)
        results(f"{each.name.ljust(width)}  {each.line}" for each in found.findings)
        results(f"better: {each}" for each in found.remarks)
        if not found.problems:
            results(["a training works here"])
    if found.problems:
        raise typer.Exit(M2sdError.exit_code)
