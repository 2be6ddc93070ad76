"""The option --dry-run of both training commands."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from m2sd_cli.cli.output import as_text, document, duration, note, result, results, table
from m2sd_cli.config.option import as_word, flag, options_of
from m2sd_cli.config.stages import MODELS
from m2sd_cli.errors import UsageError

if TYPE_CHECKING:
    from m2sd_cli.api.course import StagePlan
    from m2sd_cli.api.plan import Plan

# Arguments of a training that a plan does not have, as they change nothing that it tells.
UNUSED = ("resume", "requeue", "stop_after", "save_every", "tensorboard", "yes")


def report_plan(
    stage: Literal["pretrain", "distill"], arguments: dict[str, Any], json: bool, quiet: bool, **own: Any
) -> None:
    """Print what a training would do, instead of doing it.

    Args:
        stage: the command.
        arguments: of the training function, as `training_arguments` returns them.
        json: prints a JSON document instead.
        quiet: leaves the hints out.
        own: arguments that only one of the commands has.

    Raises:
        UsageError: the training is to be resumed.
    """
    for name in ("resume", "requeue"):
        if arguments[name]:
            raise UsageError(f"--dry-run and {flag(name)}: choose one; a training that goes on says how long it takes")
    from m2sd_cli.api.plan import plan
    from m2sd_cli.cli.progress import reporting

    given = {name: value for name, value in arguments.items() if name not in UNUSED}
    with reporting(quiet):
        planned = plan(stage, **own, **given)
    if json:
        options = {name: {"value": value, "origin": origin} for name, (value, origin) in planned.options.items()}
        document({"stage": stage, **asdict(planned), "run": as_text(planned.run), "options": options})
        return
    results(_described(planned))
    for line in table(["option", "value", "origin"], _rows(stage, planned)):
        result(line)
    results(_expected(planned))
    note(f"{stage} --dry-run: nothing was trained, and nothing written to {planned.run}", quiet)


def _described(planned: "Plan") -> list[str]:
    """Describe images, network and run folder."""
    augmented = planned.augmentation
    crop = f"crop after padding by {augmented['padding']}" if augmented["padding"] is not None else "resized crop"
    parts = [f"random {crop}", *(["mirror image"] if augmented["flip"] else [])]
    parts += [f"{flag(name)} {augmented[name]}" for name in ("auto_augment",) if augmented[name] != "none"]
    parts += [f"{flag(name)} {augmented[name]:g}" for name in ("colour", "cutout") if augmented[name]]
    content = f"{' and '.join(planned.content)} in it" if planned.content else "nothing in it yet"
    return [
        f"data: {planned.data}, {planned.classes} base classes of {planned.image_size} pixels; {planned.images} images "
        f"to train on, {planned.held_out} held out, {planned.test} to test on",
        f"augmentation: {', '.join(parts)}",
        f"network: {planned.backbone}, {planned.parameters:,} parameters; {planned.precision} on {planned.device}",
        f"run: {planned.run}, {content}",
    ]


def _rows(stage: str, planned: "Plan") -> list[list[str]]:
    known = options_of(MODELS[stage])
    return [
        [flag(name), known[name].shown_default if value is None else as_word(value), origin]
        for name, (value, origin) in planned.options.items()
    ]


def _expected(planned: "Plan") -> list[str]:
    """Describe the time and the memory of each stage."""
    lines = []
    if planned.decoding_seconds:
        lines.append(f"images: about {duration(planned.decoding_seconds)} to decode, unless the cache has them")
    return [*lines, *map(_course, planned.stages)]


def _course(stage: "StagePlan") -> str:
    from m2sd_cli.data.cache import as_size

    if not stage.epochs:
        return f"{stage.stage}: no training, the network stays as it is"
    memory = f", {as_size(stage.peak_memory)} of memory" if stage.peak_memory else ""
    epochs = f"{stage.epochs} epoch{'s' if stage.epochs > 1 else ''} of {stage.epoch_steps} steps"
    return f"{stage.stage}: {epochs}, about {duration(stage.seconds)} of training{memory}"
