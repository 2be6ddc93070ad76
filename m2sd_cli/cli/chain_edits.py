"""The commands `m2sd sessions repair`, `rename`, `forget` and `undo`, which change the end of a chain."""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import note, printable
from m2sd_cli.errors import RunError


def repair(run: options.Run = None, quiet: options.Quiet = False) -> None:
    """Make a lost or damaged head.json anew, from the sessions that are there.

    It takes the longest chain whose files all fit each other. Only head.json held the hash of the newest manifest, so
    that one cannot be checked: look at it with 'm2sd sessions show'.

    Example:
      m2sd sessions repair
    """
    import m2sd_cli

    folder = m2sd_cli.open_run(run)
    folder.require_folder()
    with folder.locked("sessions repair", damaged=True):
        stored = folder.repair()
    note(f"{folder.path}: {stored.record.file} is the newest now, taken as it is found", quiet)


def rename(
    old: Annotated[str, typer.Argument(help="Name of the class.", show_default=False)],
    new: Annotated[str, typer.Argument(help="Its name from now on.", show_default=False)],
    run: options.Run = None,
    quiet: options.Quiet = False,
) -> None:
    """Rename a class, by a new session. Earlier sessions stay as they were; labelled photos may have either name.

    Example:
      m2sd sessions rename heron "grey heron"
    """
    import m2sd_cli

    stored = m2sd_cli.rename(old, new, run=run)
    edit = stored.manifest.edits[0]
    note(f"session {stored.manifest.session}: {edit.name} is {edit.new_name} now", quiet)


def forget(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="Name of the class.", show_default=False)],
    run: options.Run = None,
    quiet: options.Quiet = False,
) -> None:
    """Forget a class, by a new session: no image is answered with it any more, and its name is free.

    Earlier sessions stay as they were, and keep the features of its shots; 'm2sd sessions undo' brings it back.

    Example:
      m2sd sessions forget heron
    """
    import m2sd_cli

    stored = m2sd_cli.forget(name, run=run)
    known = len(m2sd_cli.open_run(run).summary(stored.manifest.session).classes.known)
    count = "1 class" if known == 1 else f"{known} classes"
    note(f"session {stored.manifest.session}: forgot {stored.manifest.edits[0].name}; {count} now", quiet)


def undo(
    run: options.Run = None,
    yes: options.Yes = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Remove it even if it is damaged; the session before it is not checked then."),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Take back the newest session: what it taught, renamed or forgot. This cannot be undone.

    Example:
      m2sd sessions undo --yes
    """
    import m2sd_cli

    folder = m2sd_cli.open_run(run)
    numbers = folder.sessions()
    if not numbers:
        folder.require_folder()
        raise RunError(f"{folder.path}: no session in it, so nothing to undo")
    last = numbers[-1]
    if not yes and not typer.confirm(f"Remove session {last} of {printable(str(folder.path))} for good?", err=True):
        note("nothing removed", quiet)
        return
    with folder.locked("sessions undo", damaged=force):
        if folder.sessions()[-1:] != [last]:
            raise RunError(f"{folder.path}: another session was added or removed meanwhile; try again")
        folder.remove_sessions(first=last, damaged=force)
    note(f"removed session {last}", quiet)
