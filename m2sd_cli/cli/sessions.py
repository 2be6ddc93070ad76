"""m2sd sessions"""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import document, note, printable, result, table
from m2sd_cli.errors import DamagedError, RunError, UsageError

app = typer.Typer(cls=Group, rich_markup_mode=None)
NAMED = 5  # classes to name in a row


@app.callback(invoke_without_command=True)
def sessions(context: typer.Context, run: options.Run = None, json: options.Json = False) -> None:
    """The chain of sessions: list, show, verify, undo.

    Examples:
      m2sd sessions

      m2sd sessions show 2

      m2sd sessions verify

      m2sd sessions undo --yes
    """
    if context.invoked_subcommand is None:
        list_sessions(run, json)
    else:
        options.refuse_before_subcommand(context)


@app.command("list", cls=Command)
def list_sessions(run: options.Run = None, json: options.Json = False) -> None:
    """List the chain of sessions.

    Example:
      m2sd sessions list --json
    """
    from m2sd_cli import api

    chain = api.open_run(run).chain()
    if json:
        document(
            {
                "sessions": [
                    {
                        "session": link.manifest.session,
                        "classes": [each.name for each in link.manifest.classes],
                        "classes_so_far": link.manifest.classes_so_far,
                        "shots": sum(each.shots for each in link.manifest.classes),
                        "data": link.manifest.data.name,
                        "created": link.manifest.created,
                        "sha256": link.record.sha256,
                    }
                    for link in chain
                ]
            }
        )
        return
    rows = []
    for number, link in enumerate(chain):
        classes = link.manifest.classes
        more = ", ..." if len(classes) > NAMED else ""
        rows.append(
            [
                str(number),
                str(len(classes)),
                str(sum(each.shots for each in classes)),
                link.manifest.created[:16].replace("T", " "),
                link.record.sha256[:12],
                ", ".join(each.name for each in classes[:NAMED]) + more,
            ]
        )
    for line in table(["session", "classes", "images", "created (UTC)", "sha256", "names"], rows):
        result(line)


@app.command("show", cls=Command)
def show(
    session: Annotated[int, typer.Argument(help="Its number.", show_default=False)], run: options.Run = None
) -> None:
    """Print the manifest of a session, as JSON.

    Example:
      m2sd sessions show 0
    """
    from m2sd_cli import api

    if session < 0:
        raise UsageError(f"{session}: sessions count from 0")
    link = api.open_run(run).session(session)
    document(link.manifest.model_dump(mode="json"))


@app.command("schema", cls=Command)
def schema() -> None:
    """Print the JSON Schema of a manifest.

    Example:
      m2sd sessions schema > manifest.schema.json
    """
    from m2sd_cli.runs.manifest import Manifest

    document(Manifest.model_json_schema())


@app.command("verify", cls=Command)
def verify(run: options.Run = None, json: options.Json = False) -> None:
    """Re-hash every file of the run, and name what is damaged.

    Example:
      m2sd sessions verify
    """
    from m2sd_cli import api

    folder = api.open_run(run)
    problems = folder.verify()
    if json:
        document({"sound": not problems, "problems": problems})
        if problems:
            raise typer.Exit(DamagedError.exit_code)
        return
    if problems:
        raise DamagedError(*problems)
    result(f"{folder.path}: every file is what it was when it was written")


@app.command("undo", cls=Command)
def undo(
    run: options.Run = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if it is damaged; the session before it is then taken as it is found."),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove the last session.

    Example:
      m2sd sessions undo --yes
    """
    from m2sd_cli import api

    folder = api.open_run(run)
    numbers = folder.sessions()
    if not numbers:
        raise RunError(f"{folder.path}: no session in it")
    last = numbers[-1]
    if not yes and not typer.confirm(f"Remove session {last} of {printable(str(folder.path))} for good?", err=True):
        note("nothing removed", quiet)
        return
    with folder.locked("sessions undo"):
        if folder.sessions()[-1:] != [last]:
            raise RunError(f"{folder.path}: another session was added or removed meanwhile; try again")
        folder.remove_sessions(first=last, damaged=force)
    note(f"removed session {last}", quiet)
