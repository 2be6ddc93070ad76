"""The command `m2sd pretrain`."""

from typing import Annotated, Any

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command
from m2sd_cli.cli.plan import report_plan
from m2sd_cli.cli.removal import confirm_removal
from m2sd_cli.cli.training import report_training, stopped_in_time, training_arguments, training_options
from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS, SIMULATED, find_info


@training_options(PretrainConfig)
def pretrain(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help=f"{', '.join(DATA_SETS.entries)}, one of these with {SIMULATED}, or a folder of photos.",
            show_default=False,
            autocompletion=options.complete_data_sets,
        ),
    ] = None,
    run: options.Run = None,
    *,
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Stage 1: train the network on the base classes, which have many images each.

    An option that is not given, even --data, comes from --config, else from --recipe, else from the data set's
    defaults.

    Examples:
      m2sd pretrain --data cifar100
      m2sd pretrain --recipe cifar100-resnet20 --seed 1
      m2sd pretrain --data ./photos --image-size 96 --epochs 30
      m2sd pretrain --data cifar100 --dry-run
      m2sd pretrain --resume --stop-after 9m
      m2sd pretrain --data cifar100 --requeue     in a job of a cluster
    """
    arguments = training_arguments(PretrainConfig, given)
    if data is not None:
        find_info(data)  # a misspelt name is answered before torch is imported

    if arguments.pop("dry_run"):
        report_plan("pretrain", arguments, json, quiet, data=data, run=run, skip_bad=skip_bad)
        return
    confirm_removal(run, arguments["force"], arguments.pop("yes"))

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet), stopped_in_time("pretrain", given["requeue"]):
        stored = m2sd_cli.pretrain(data, run=run, skip_bad=skip_bad, **arguments)
    frozen = stored is not None and stored.manifest.config["epochs"] == 0
    next_step = command(
        "distill", run, " --epochs 0" if frozen else "", config=given["config"], data_root=given["data_root"]
    )
    report_training("pretrain", stored, m2sd_cli.open_run(run), [next_step], json, quiet, given["force"])
