"""Asking before --force removes taught sessions, which cannot be trained again."""

import sys
from pathlib import Path

import typer

from m2sd_cli.cli.output import printable
from m2sd_cli.errors import InterruptedCommandError, RunError


def confirm_removal(run: Path | None, force: bool, yes: bool) -> None:
    """Ask whether the taught sessions of a run may go, if there are any and --force would replace them.

    Raises:
        RunError: nobody can be asked, and --yes was not given.
        InterruptedCommandError: the answer is no.
    """
    if not force or yes:
        return
    import m2sd_cli

    folder = m2sd_cli.open_run(run)
    try:
        taught = folder.summary().describe_taught()
    except RunError:  # there is none, or one that cannot be read any more
        return
    if taught is None:
        return
    what = f"{folder.path}: --force removes {taught}"
    way = "train with another --run, and teach them there with 'm2sd sessions replay --from'"
    if not is_asked():
        raise RunError(f"{what}; --yes agrees, or to keep them {way}")
    if not typer.confirm(f"{printable(what)}; to keep them {way}. Remove them?", err=True):
        raise InterruptedCommandError("nothing removed")


def is_asked() -> bool:
    """Tell if somebody sits at a terminal and can answer."""
    return sys.stdin is not None and sys.stdin.isatty()
