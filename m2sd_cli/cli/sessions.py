"""The command `m2sd sessions`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import command, document, note, printable, result, results, table
from m2sd_cli.errors import DamagedError, M2sdError, RunError, UsageError

if TYPE_CHECKING:
    from m2sd_cli.runs.reader import StoredManifest

app = typer.Typer(cls=Group, rich_markup_mode=None)
NAMED = 5  # classes to name in a row


@app.callback(invoke_without_command=True)
def sessions(context: typer.Context, run: options.Run = None, json: options.Json = False) -> None:
    """List, show, verify, reproduce, undo, replay and repair the chain of sessions; rename and forget classes.

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
    """List the chain of sessions.

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
                    {**_outline(stored), "classes_so_far": known} for stored, known in zip(chain, sizes, strict=True)
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


def _outline(stored: "StoredManifest") -> dict[str, object]:
    manifest = stored.manifest
    return {
        "session": manifest.session,
        "kind": manifest.kind,
        "classes": [each.name for each in manifest.classes],
        "edits": [each.model_dump() for each in manifest.edits],
        "shots": sum(each.shots for each in manifest.classes),
        "classifier": manifest.classifier,
        "data": manifest.data.name,
        "created": manifest.created,
        "sha256": stored.record.sha256,
    }


def _complete_stages(context: typer.Context) -> list[str]:
    return ["pretrain", *options.complete_sessions(context)]


@app.command("show", cls=Command)
def show(
    session: Annotated[
        str,
        typer.Argument(
            help="pretrain for stage 1, or a number.",
            show_default=False,
            autocompletion=_complete_stages,
        ),
    ],
    run: options.Run = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Print the epochs of its training instead, as a table with curves.")
    ] = False,
) -> None:
    """Print the manifest of stage 1 or of a session, as JSON, or the curves of its training.

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
    """Re-hash every file of the chain, and name what is damaged; --resume checks a training under way.

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


@app.command("reproduce", cls=Command)
def reproduce(
    run: options.Run = None,
    session: Annotated[
        int | None, typer.Option("--session", help="The last one to run; the newest by default.", show_default=False)
    ] = None,
    data: options.FolderOfPretrain = None,
    shots: options.ShotFolders = None,
    init: Annotated[
        str | None, typer.Option("--init", help="The file of weights that pretrain began from.", show_default=False)
    ] = None,
    data_root: options.DataRoot = None,
    device: Annotated[str, typer.Option("--device", help="As elsewhere; auto: the recorded one, if present.")] = "auto",
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Keep what comes out in this new folder.", show_default=False, readable=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run all stages once more from what their manifests say, and compare the weights. The run is only read.

    It takes as long as it took. The data have to be at hand, and are compared first. The statistics are batch norm's.

    Examples:
      m2sd sessions reproduce
      m2sd sessions reproduce --data ./photos --shots 1=./new-birds
    """
    folders = options.shot_folders(shots or [])

    from m2sd_cli.api.reproduce import reproduce as run_again
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        done = run_again(
            run=run,
            session=session,
            data=data,
            data_root=data_root,
            shots=folders,
            init=init,
            device=device,
            keep=keep,
        )
    if json:
        document(
            {
                "same": done.same,
                "stages": [
                    {
                        "stage": each.name,
                        "recorded": each.recorded,
                        "reproduced": each.reproduced,
                        "same": each.same,
                        "largest_difference": each.difference,
                        "largest_difference_of_weights": each.weights,
                        "largest_difference_of_statistics": each.statistics,
                    }
                    for each in done.stages
                ],
                "circumstances": done.provenance,
            }
        )
        if not done.same:
            raise typer.Exit(M2sdError.exit_code)
        return
    rows = [
        [
            each.name,
            each.recorded[:12],
            each.reproduced[:12],
            _compared(each.weights, each.same),
            _compared(each.statistics, each.same),
        ]
        for each in done.stages
    ]
    results(table(["stage", "recorded", "reproduced", "weights", "statistics"], rows))
    if not done.same:
        differing = sum(not each.same for each in done.stages)
        why = "; ".join(done.provenance) or "versions, device, CPU and threads are the recorded ones"
        raise M2sdError(f"{differing} of {len(done.stages)} differ; {why}")


def _compared(difference: float | None, same: bool) -> str:
    if same or difference == 0:
        return "same"
    return "other tensors" if difference is None else f"differs by {difference:.1e}"


@app.command("replay", cls=Command)
def replay(
    source: Annotated[
        Path, typer.Option("--from", help="The run whose sessions to teach.", show_default=False, readable=False)
    ],
    shots: Annotated[
        list[Path] | None,
        typer.Option("--shots", help="A folder with shots; may be repeated.", show_default=False, readable=False),
    ] = None,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach the sessions of another run again, to the network of this one, as after training it anew.

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
        taught = m2sd_cli.replay(
            source, run=run, shots=shots or [], data_root=data_root, device=device, precision=precision
        )
    if json:
        document({"sessions": [_outline(stored) for stored in taught]})
        return
    for stored in taught:
        manifest = stored.manifest
        known = [each.name for each in manifest.classes] + [each.name for each in manifest.edits]
        names = ", ".join(known[:NAMED]) + (", ..." if len(known) > NAMED else "")
        note(f"session {manifest.session}: {manifest.kind}: {names}", quiet)
    if has_test_images(m2sd_cli.open_run(run)):
        note(f"next: {command('evaluate', run, data_root=data_root)}", quiet)


@app.command("repair", cls=Command)
def repair(run: options.Run = None, quiet: options.Quiet = False) -> None:
    """Make a lost or damaged head.json of what is there.

    It takes the longest chain whose files all fit each other. Its newest manifest, which only the head vouched for, is
    taken as it is found: look at it with 'm2sd sessions show'.

    Example:
      m2sd sessions repair
    """
    import m2sd_cli
    from m2sd_cli.runs.chain import NO_FOLDER

    folder = m2sd_cli.open_run(run)
    if not folder.path.is_dir():
        raise RunError(f"{folder.path}: {NO_FOLDER}")
    with folder.locked("sessions repair", damaged=True):
        stored = folder.repair()
    note(f"{folder.path}: {stored.record.file} is the newest now, taken as it is found", quiet)


@app.command("rename", cls=Command)
def rename(
    old: Annotated[str, typer.Argument(help="The class.", show_default=False)],
    new: Annotated[str, typer.Argument(help="Its name from now on.", show_default=False)],
    run: options.Run = None,
    quiet: options.Quiet = False,
) -> None:
    """Rename a class: a new session. Earlier ones stay as they were; labelled pictures may have either name.

    Example:
      m2sd sessions rename heron "grey heron"
    """
    import m2sd_cli

    stored = m2sd_cli.rename(old, new, run=run)
    edit = stored.manifest.edits[0]
    note(f"session {stored.manifest.session}: {edit.name} is {edit.new_name} now", quiet)


@app.command("forget", cls=Command)
def forget(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="The class.", show_default=False)],
    run: options.Run = None,
    quiet: options.Quiet = False,
) -> None:
    """Forget a class: a new session, from which on nothing is answered with it and its name is free.

    Earlier sessions stay as they were, and keep the features of its shots; 'm2sd sessions undo' brings it back.

    Example:
      m2sd sessions forget heron
    """
    import m2sd_cli

    stored = m2sd_cli.forget(name, run=run)
    known = len(m2sd_cli.open_run(run).summary(stored.manifest.session).classes.known)
    count = "1 class" if known == 1 else f"{known} classes"
    note(f"session {stored.manifest.session}: forgot {stored.manifest.edits[0].name}; {count} now", quiet)


@app.command("undo", cls=Command)
def undo(
    run: options.Run = None,
    yes: options.Yes = False,
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
    import m2sd_cli

    folder = m2sd_cli.open_run(run)
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
