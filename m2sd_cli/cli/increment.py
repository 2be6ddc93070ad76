"""The command `m2sd increment`."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_word, command, document, note
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.tables import CLASSIFIERS


def increment(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photos of the one class that --class names, or folders of them.", show_default=False, readable=False
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Name of the class of the photos.", show_default=False),
    ] = None,
    session: Annotated[
        int | None, typer.Option("--session", help="Number of the session.", show_default="the next one")
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            "--shots",
            help="Photos of the new classes: DIR with DIR/CLASS/*.jpg; without it, the data set's own session.",
            show_default=False,
            readable=False,  # whether it is tells the command itself, as of every folder
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Built-in data set whose session to teach, if it is not that of pretrain.",
            show_default=False,
            autocompletion=options.complete_data_sets,
        ),
    ] = None,
    classifier: Annotated[
        str | None, options.named(CLASSIFIERS, "Classifier from this session on: {choices}; by default the one before.")
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            "--views",
            help="Views of each shot: 2 adds its mirror image, more add shifted crops.",
            show_default="1; with --extend that of the classes",
        ),
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add the shots to classes that are known already, base classes too.")
    ] = False,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach new classes from a few photos each: stage 3. Takes a moment; nothing old is needed or changed.

    A class that is known already is refused without --extend.

    Examples:
      m2sd increment --shots ./new-birds     new-birds/heron/1.jpg, ...
      m2sd increment --class heron 1.jpg 2.jpg
      m2sd increment --extend --shots ./more     more photos of known classes
      m2sd increment                     benchmarks: the data set's next session
      m2sd increment --session 1 --classifier teen --views 4
    """
    if len(name or []) > 1:
        raise UsageError("--class: one at a time; several come with --shots DIR, a folder a class in DIR")
    if name and (shots or data):
        raise UsageError("--class and --shots or --data: choose one")
    if images and not name and os.path.isdir(images[0]):
        word = as_word(images[0])
        raise UsageError(
            f"{images[0]}: --shots {word} teaches the classes whose folders are in it, --class CLASS {word} its "
            f"photos as one class"
        )
    if bool(name) != bool(images):
        raise UsageError("--class CLASS and photos belong together: m2sd increment --class heron 1.jpg 2.jpg")

    import m2sd_cli
    from m2sd_cli.api.recorded_data import next_session
    from m2sd_cli.api.tested_images import has_test_images
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.data.image_files import find_images

    with reporting(quiet):
        stored = m2sd_cli.increment(
            session,
            {name[0]: images} if name and images else shots,
            run=run,
            data=data,
            data_root=data_root,
            device=device,
            precision=precision,
            skip_bad=skip_bad,
            classifier=classifier,
            views=views,
            extend=extend,
        )
    classes, session = stored.manifest.classes, stored.manifest.session
    known = len(m2sd_cli.open_run(run).summary(session).classes.known)
    if json:
        document(
            {
                "session": session,
                "manifest": stored.record.file,
                "classes": [{"index": each.index, "name": each.name, "shots": each.shots} for each in classes],
                "classes_so_far": known,
                "classifier": stored.manifest.classifier,
                "views": stored.manifest.views,
                "seconds": stored.manifest.seconds,
            }
        )
        return
    names = ", ".join(f"{each.name} ({each.shots})" for each in classes[:10])
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    verb = "extended" if extend else "learned"
    note(f"session {session}: {verb} {names}{more}; {known} classes now", quiet)
    own = images or ([shots] if shots else [])
    bad = {os.path.basename(each.file) for each in stored.manifest.skipped}
    example, following = None, None
    with suppress(M2sdError):  # the session is taught, and a remark on it is no failure
        example = next((path for path in find_images(own) if path.name not in bad), None) if own else None
    asked = [] if example is None else [command("predict", run, f" {as_word(example)}")]
    folder = m2sd_cli.open_run(run)
    with suppress(M2sdError):  # as above; a data set of another package is known with its --plugin alone
        following = None if data else next_session(folder)
    taught = [] if following is None else [command("increment", run, session=following, data_root=data_root)]
    tested = [command("evaluate", run, data_root=data_root)] if has_test_images(folder) else []
    next_steps = [*asked, *taught, *tested]
    if next_steps:
        note(f"next: {', or '.join(next_steps)}", quiet)
