"""Measurement of this machine."""

from pathlib import Path

from m2sd_cli.api.distill import distill
from m2sd_cli.api.pretrain import pretrain
from m2sd_cli.benchmark.report import Report
from m2sd_cli.benchmark.run import run_bench
from m2sd_cli.benchmark.settings import MOST_WORKERS, Settings, configure
from m2sd_cli.errors import InterruptedTrainingError, UsageError
from m2sd_cli.host import cores
from m2sd_cli.recipes import find_recipe


def bench(
    *,
    recipe: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    classes: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    seconds: float = 30.0,
    rounds: int = 5,
    against_reference: bool = False,
    workers: int | None = None,
    compile: bool = False,
) -> Report:
    """Measure this machine: throughput of both stages and of features on random images, and the time of commands.

    The workloads take turns, round after round, so that ratios do not depend on other work of the machine.

    Args:
        recipe: the recipe whose stages to measure, and whose epochs to estimate; see `recipes.recipe_names`.
        backbone: a name in BACKBONES; None for the recipe's, else `resnet20`.
        image_size: the side of an image in pixels; a recipe has its own, without one it is 32.
        batch_size: the images a step of training; None for those of the recipe, else 128.
        classes: the number of base classes; a recipe has its own, without one there are 60.
        device, precision: `auto` chooses; for features and commands precision `auto` is fp32.
        seconds: the time for measuring throughput; the commands need time of their own.
        rounds: the number of measurements of each; a command is measured at most three times.
        against_reference: also measure a plain training loop with torch's DataLoader and PIL in float32.
        workers: the worker processes of that loop; None for one a core, at most eight.
        compile: compile the networks with torch.compile first.

    Raises:
        M2sdError: one of its kinds.
    """
    if workers is not None and not against_reference:
        raise UsageError(f"--workers {workers}: these are the reference loop's; add --against-reference")
    if against_reference and workers is None:
        workers = min(MOST_WORKERS, cores())
    settings = configure(
        backbone=backbone,
        image_size=image_size,
        batch_size=batch_size,
        classes=classes,
        device=device,
        precision=precision,
        seconds=seconds,
        rounds=rounds,
        workers=workers,
        compile=compile,
        recipe=find_recipe(recipe),
    )
    return run_bench(settings, _make_run)


def _make_run(run: Path, images: Path, settings: Settings) -> None:
    """Make a run with a base session, after a single step of training."""
    device, network = str(settings.device), settings.pretrain
    try:
        pretrain(
            str(images),
            run=run,
            device=device,
            precision=settings.precision,
            epochs=1,
            backbone=network.backbone,
            image_size=settings.image_size,
            learning_rate=network.learning_rate,
            held_out=0.0,
        )
        distill(str(images), run=run, device=device, epochs=0, views=settings.distill.views)
    except InterruptedTrainingError:
        raise InterruptedTrainingError("interrupted") from None
