"""Asking before --force removes taught sessions, which cannot be trained again."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from m2sd_cli.cli.output import printable
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import DamagedError, InterruptedCommandError, RunError
from m2sd_cli.reading import counted

if TYPE_CHECKING:
    from m2sd_cli.runs.folder import RunFolder


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
    taught, way = _describe_taught(folder)
    if taught is None:
        return
    what = f"{folder.path}: --force removes {taught}"
    if not is_asked():
        raise RunError(f"{what}; --yes agrees, or to keep them {way}")
    if not typer.confirm(f"{printable(what)}; to keep them {way}. Remove them?", err=True):
        raise InterruptedCommandError("nothing removed")


def _describe_taught(folder: "RunFolder") -> tuple[str | None, str]:
    """Count the taught sessions in words, also of a damaged run, None without such; and tell a way to keep them."""
    way = "train with another --run, and teach them there with 'm2sd sessions replay --from'"
    try:
        return folder.summary().describe_taught(), way
    except DamagedError:
        try:
            taught = len(folder.sessions()) - 1  # by head.json alone
        except RunError:
            return None, way
        way = "train with another --run, and restore from a backup what 'm2sd sessions verify' names"
        return (f"{counted(taught, 'taught session')} of a damaged run" if taught > 0 else None), way
    except RunError:  # there is none
        return None, way


def is_asked() -> bool:
    """Tell if somebody sits at a terminal and can answer; of several processes each would ask."""
    return sys.stdin is not None and sys.stdin.isatty() and not is_distributed()
