"""The command `m2sd distill`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command, note
from m2sd_cli.cli.plan import report_plan
from m2sd_cli.cli.removal import confirm_removal
from m2sd_cli.cli.training import report_training, stopped_in_time, training_arguments, training_options
from m2sd_cli.config.stages import DistillConfig


@training_options(DistillConfig)
def distill(
    data: options.FolderOfPretrain = None,
    run: options.Run = None,
    *,
    ignore_new: options.IgnoreNew = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Begin with a copy of another run's stage 1.", show_default=False, readable=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Stage 2: distil the network on mixed images, and make session 0 of it.

    Session 0 is the base session: the network with all base classes. The loss is a sum; a weight of 0 leaves its term
    out. Seed and recipe are those of pretrain, unless others are given; --recipe none leaves the recipe out.

    Examples:
      m2sd distill
      m2sd distill --epochs 40 --dry-run
      m2sd distill --epochs 0                       session 0 from stage 1 alone
      m2sd distill --from m2sd-run --run other --mixing mixup
    """
    arguments = training_arguments(DistillConfig, given)

    if arguments.pop("dry_run"):
        report_plan("distill", arguments, json, quiet, data=data, run=run, ignore_new=ignore_new, source=source)
        return
    confirm_removal(run, arguments["force"], arguments.pop("yes"))

    import m2sd_cli
    from m2sd_cli.api.recorded_data import next_session
    from m2sd_cli.api.tested_images import has_test_images
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet), stopped_in_time("distill", given["requeue"]):
        stored = m2sd_cli.distill(data, run=run, ignore_new=ignore_new, source=source, **arguments)
    folder, root = m2sd_cli.open_run(run), given["data_root"]
    following = None if stored is None else next_session(folder)
    tested = stored is None or has_test_images(folder)
    next_steps = [] if following is None else [command("increment", run, session=following, data_root=root)]
    if tested:
        next_steps.append(command("evaluate", run, data_root=root))
    report_training("distill", stored, folder, next_steps, json, quiet, given["force"])
    if not tested and not json:
        note(f"to test it, labelled photos, a folder a class in DIR: {command('evaluate', run, ' --test DIR')}", quiet)
    if following is None and not json:
        note(f"to teach new classes, a folder a class in DIR: {command('increment', run, ' --shots DIR')}", quiet)
