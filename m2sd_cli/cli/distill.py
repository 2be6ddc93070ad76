"""The command `m2sd distill`."""

from typing import Any

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command
from m2sd_cli.cli.training import report_training, training_arguments, training_options
from m2sd_cli.config import DistillConfig


@training_options(DistillConfig)
def distill(
    data: options.FolderOfPretrain = None,
    run: options.Run = None,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Stage 2: distil the network on mixed images, and make session 0 of it.

    A weight of 0 leaves that loss out. The seed and the recipe are pretrain's unless given; --recipe none for none.

    Examples:
      m2sd distill
      m2sd distill --data ./photos --epochs 40
      m2sd distill --epochs 0                       session 0 from plain training
    """
    arguments = training_arguments(DistillConfig, given)

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        stored = m2sd_cli.distill(data, run=run, **arguments)
    folder = stored is not None and stored.manifest.data.kind == "folder"
    increment = command("increment", run, f" --session 1{' --shots DIR' if folder else ''}")
    next_steps = [increment, command("evaluate", run)]
    report_training("distill", stored, m2sd_cli.open_run(run), next_steps, json, quiet)
