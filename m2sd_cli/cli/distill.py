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

    A weight of 0 leaves that loss out. The seed and the recipe are pretrain's unless given; --recipe none for none.

    Examples:
      m2sd distill
      m2sd distill --epochs 40 --dry-run
      m2sd distill --epochs 0                       session 0 from plain training
      m2sd distill --from m2sd-run --run other --mixing mixup
    """
    arguments = training_arguments(DistillConfig, given)

    if arguments.pop("dry_run"):
        report_plan("distill", arguments, json, quiet, data=data, run=run, ignore_new=ignore_new, source=source)
        return
    confirm_removal(run, arguments["force"], arguments.pop("yes"))

    import m2sd_cli
    from m2sd_cli.api.tested_images import has_test_images
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.training.records import LISTED

    with reporting(quiet), stopped_in_time("distill", given["requeue"]):
        stored = m2sd_cli.distill(data, run=run, ignore_new=ignore_new, source=source, **arguments)
    data_of = None if stored is None else stored.manifest.data
    folder = data_of is not None and data_of.kind == "folder" and data_of.split != LISTED
    root = given["data_root"]
    next_steps = [] if folder else [command("increment", run, data_root=root)]
    tested = stored is None or has_test_images(m2sd_cli.open_run(run))
    if tested:
        next_steps.append(command("evaluate", run, data_root=root))
    report_training("distill", stored, m2sd_cli.open_run(run), next_steps, json, quiet)
    if not tested and not json:
        note(f"to test it, labelled photos, a folder a class in DIR: {command('evaluate', run, ' --test DIR')}", quiet)
    if folder and not json:
        note(f"to teach new classes, a folder a class in DIR: {command('increment', run, ' --shots DIR')}", quiet)
