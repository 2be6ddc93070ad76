"""The command `m2sd sessions`."""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.chain_edits import forget, rename, repair, undo
from m2sd_cli.cli.chain_lines import NAMED, outline
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import document, result, results, table
from m2sd_cli.cli.replay import replay
from m2sd_cli.cli.reproduce import reproduce
from m2sd_cli.errors import DamagedError, UsageError

app = typer.Typer(cls=Group, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def sessions(context: typer.Context, run: options.Run = None, json: options.Json = False) -> None:
    """List, show, verify, reproduce, undo, replay and repair the sessions of a run; rename and forget classes.

    The sessions of a run are a chain: each names the one before it by its hash.

    Examples:
      m2sd sessions
      m2sd sessions show 2
      m2sd sessions show pretrain --curves
      m2sd sessions verify
      m2sd sessions reproduce
      m2sd sessions undo --yes
      m2sd sessions rename heron "grey heron"
      m2sd sessions forget heron
      m2sd sessions replay --from old-birds --run birds
      m2sd sessions repair
    """
    if context.invoked_subcommand is None:
        list_sessions(run, json)
    else:
        options.refuse_before_subcommand(context)


@app.command("list", cls=Command)
def list_sessions(run: options.Run = None, json: options.Json = False) -> None:
    """List the sessions of a run, from the base session on.

    Example:
      m2sd sessions list --json
    """
    import m2sd_cli
    from m2sd_cli.runs.classes import ChainClasses

    chain = m2sd_cli.open_run(run).chain()
    classes, sizes = ChainClasses(), []
    for stored in chain:
        classes.add(stored.manifest)
        sizes.append(classes.count)
    if json:
        document(
            {
                "sessions": [
                    {**outline(stored), "classes_so_far": known} for stored, known in zip(chain, sizes, strict=True)
                ]
            }
        )
        return
    rows = []
    for number, stored in enumerate(chain):
        taught = stored.manifest.classes
        more = ", ..." if len(taught) > NAMED else ""
        named = [each.name for each in taught[:NAMED]]
        named += [each.name + (f" -> {each.new_name}" if each.new_name else "") for each in stored.manifest.edits]
        rows.append(
            [
                str(number),
                stored.manifest.kind,
                str(len(taught)),
                str(sum(each.shots for each in taught)),
                stored.manifest.classifier or "means",
                stored.manifest.created[:16].replace("T", " "),
                stored.record.sha256[:12],
                ", ".join(named) + more,
            ]
        )
    results(table(["session", "kind", "classes", "images", "classifier", "created (UTC)", "sha256", "names"], rows))


def _complete_stages(context: typer.Context) -> list[str]:
    return ["pretrain", *options.complete_sessions(context)]


@app.command("show", cls=Command)
def show(
    session: Annotated[
        str,
        typer.Argument(
            help="Number of the session, or pretrain for stage 1.",
            show_default=False,
            autocompletion=_complete_stages,
        ),
    ],
    run: options.Run = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Print its training instead: a table of the epochs, with curves.")
    ] = False,
) -> None:
    """Print the manifest of a session or of stage 1 as JSON: all that it was made of and by.

    Examples:
      m2sd sessions show 0
      m2sd sessions show pretrain --curves
    """
    if session != "pretrain" and not session.isdecimal():
        raise UsageError(f"{session}: pretrain for stage 1, or the number of a session, from 0 on")

    import m2sd_cli
    from m2sd_cli.cli.curves import curve_lines

    folder = m2sd_cli.open_run(run)
    manifest = (folder.pretrain() if session == "pretrain" else folder.session(int(session))).manifest
    if not curves:
        document(manifest.model_dump(mode="json"))
    elif manifest.history:
        for line in curve_lines(manifest.history):
            result(line)
    else:
        raise UsageError(f"--curves: {session} was not trained; stage 1 is 'pretrain', and stage 2 made session 0")


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
    """Compare every file of the chain with its hash, and name the damaged ones.

    A training that is not finished is checked by --resume.

    Example:
      m2sd sessions verify
    """
    import m2sd_cli

    folder = m2sd_cli.open_run(run)
    problems = folder.verify()
    if json:
        document({"sound": not problems, "problems": problems})
        if problems:
            raise typer.Exit(DamagedError.exit_code)
        return
    if problems:
        raise DamagedError(*problems)
    result(f"{folder.path}: every file is what it was when it was written")


app.command("reproduce", cls=Command)(reproduce)
app.command("replay", cls=Command)(replay)
app.command("repair", cls=Command)(repair)
app.command("rename", cls=Command)(rename)
app.command("forget", cls=Command)(forget)
app.command("undo", cls=Command)(undo)
