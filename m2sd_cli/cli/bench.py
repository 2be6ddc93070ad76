"""The command `m2sd bench`."""

from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import document, duration, results, table
from m2sd_cli.reading import counted
from m2sd_cli.tables import BACKBONES

if TYPE_CHECKING:
    from m2sd_cli.benchmark.report import Report
    from m2sd_cli.benchmark.timing import Measurements

COMMANDS = {
    "import_torch": 'python -c "import torch"',
    "help": "m2sd --help",
    "increment": "m2sd increment, 5 classes x 5 images",
    "predict": "m2sd predict, 1 image",
}


def bench(
    recipe: options.RecipeName = None,
    backbone: Annotated[
        str | None, options.named(BACKBONES, "Backbone: {choices}.", "the recipe's, or resnet20")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Side of the images in pixels.", show_default="32, without a recipe"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images of a step.", show_default="the recipe's, or 128")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="Number of base classes.", show_default="60, without a recipe")
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds in which throughput is measured.")] = 30.0,
    rounds: Annotated[int, typer.Option("--rounds", help="Number of measurements of each thing, in turn.")] = 5,
    against_reference: Annotated[
        bool,
        typer.Option("--against-reference", help="Compare stage 1 with a plain loop of PIL, DataLoader and float32."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Processes of the DataLoader of that loop.", show_default="one for each core, at most 8"
        ),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile both stages first, as with pretrain --compile.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure training, features and commands on random images. It takes some minutes on two cores.

    Figures are medians over the rounds, with least and most. Ratios are taken in each round, so that a busy machine
    hardly changes them. Memory is that of CUDA's tensors; on a CPU it is that of the whole process. At most 256 MiB of
    images are made. With --recipe both stages have its options, and two lines tell how long its epochs would take.

    Examples:
      m2sd bench
      m2sd bench --recipe cifar100-resnet20
      m2sd bench --backbone resnet18 --image-size 224 --batch-size 64
      m2sd bench --against-reference --json
    """
    from dataclasses import asdict

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        report = m2sd_cli.bench(
            recipe=recipe,
            backbone=backbone,
            image_size=image_size,
            batch_size=batch_size,
            classes=classes,
            device=device,
            precision=precision,
            seconds=seconds,
            rounds=rounds,
            against_reference=against_reference,
            workers=workers,
            compile=compile,
        )
    if json:
        document(asdict(report))
    else:
        results(as_lines(report))


def as_lines(report: "Report") -> list[str]:
    """Format the conditions, the throughput, the ratios, the durations of a recipe, and the commands."""
    done = report.conditions
    lines = [
        f"{report.device_name}, {counted(report.cores, 'core')}, torch {report.versions['torch']} with "
        f"{counted(report.threads, 'thread')}",
        f"{done.backbone}, {done.image_size_pixels} px, {done.classes} classes; training in {done.training_precision}, "
        f"features in {done.feature_precision}",
        "",
        *_throughput(report),
        "",
        f"distill / pretrain, time of a step: {_ratio(report.distill_to_pretrain_step_time_ratio)}",
    ]
    if report.pretrain_to_reference_throughput_ratio is not None:
        ratio = _ratio(report.pretrain_to_reference_throughput_ratio)
        lines.append(f"pretrain / reference with --workers {done.reference_workers}, images/s: {ratio}")
    for name, each in report.durations.items():
        median, least, most = map(duration, (each.seconds.median, each.seconds.min, each.seconds.max))
        lines.append(f"{name} of {done.recipe}, {each.epochs} epochs, {each.steps} steps: {median} ({least} to {most})")
    return [*lines, "", *_commands(report)] if report.processes else lines


def _throughput(report: "Report") -> list[str]:
    rows = [
        [
            name,
            str(each.batch_size_images),
            f"{each.images_per_second.median:.0f}",
            f"{each.step_milliseconds.median:.1f}",
            f"{each.step_milliseconds.min:.1f}",
            f"{each.step_milliseconds.max:.1f}",
            _mebibytes(each.peak_memory_bytes),
            f"{each.flop_per_step / 1e9:.1f}",
            f"{each.flop_per_second / 1e9:.1f}",
            "-" if each.share_of_peak is None else f"{100 * each.share_of_peak:.1f}",
        ]
        for name, each in report.throughput.items()
    ]
    header = ["", "batch", "images/s", "ms/step", "least", "most", "MiB", "GFLOP/step", "GFLOP/s", "% of peak"]
    return table(header, rows)


def _commands(report: "Report") -> list[str]:
    rows = [
        [
            COMMANDS[name],
            f"{each.seconds.median:.2f}",
            f"{each.seconds.min:.2f}",
            f"{each.seconds.max:.2f}",
            _mebibytes(each.peak_resident_bytes),
        ]
        for name, each in report.processes.items()
    ]
    return table(["process", "s", "least", "most", "MiB"], rows)


def _ratio(ratio: "Measurements") -> str:
    return f"{ratio.median:.2f} ({ratio.min:.2f} to {ratio.max:.2f})"


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f}"
