"""Measurement of this machine."""

from pathlib import Path

from m2sd_cli.api.distill import distill
from m2sd_cli.api.pretrain import pretrain
from m2sd_cli.benchmark.machine import cores
from m2sd_cli.benchmark.report import Report
from m2sd_cli.benchmark.run import run_bench
from m2sd_cli.benchmark.settings import MOST_WORKERS, Settings, configure
from m2sd_cli.errors import InterruptedTrainingError, UsageError
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
        recipe: measure both stages as it has them, and tell how long its epochs would take; see `recipes.recipe_names`.
        backbone: a name in BACKBONES; None for the recipe's, else `resnet20`.
        image_size: pixels that the network sees; a recipe's is fixed, without one it is 32.
        batch_size: images a step of training; None for the recipe's, else 128.
        classes: base classes; a recipe's are fixed, without one there are 60.
        device, precision: `auto` chooses; for features and commands precision `auto` is fp32.
        seconds: that throughput is measured; the commands take as long as they do.
        rounds: how often each is measured; each command at most three times.
        against_reference: also measure a plain loop of the field's kind, torch's DataLoader and PIL in float32.
        workers: of that loop; None for one a core, at most eight.

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


def _make_run(run: Path, pictures: Path, settings: Settings) -> None:
    """Make a run with a base session, after a single step of training."""
    device, network = str(settings.device), settings.pretrain
    try:
        pretrain(
            str(pictures),
            run=run,
            device=device,
            precision=settings.precision,
            epochs=1,
            backbone=network.backbone,
            image_size=settings.image_size,
            learning_rate=network.learning_rate,
            held_out=0.0,
        )
        distill(str(pictures), run=run, device=device, epochs=0, views=settings.distill.views)
    except InterruptedTrainingError:
        raise InterruptedTrainingError("interrupted") from None
