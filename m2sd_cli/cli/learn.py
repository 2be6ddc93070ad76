"""The command `m2sd learn`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, as_word, command, document, duration, note, results
from m2sd_cli.cli.removal import confirm_removal
from m2sd_cli.registry import BACKBONES, CLASSIFIERS

if TYPE_CHECKING:
    from m2sd_cli.runs.manifest import ChoiceRecord, NetworksRecord, TuningRecord


def learn(
    folder: Annotated[
        Path, typer.Argument(help="DIR with DIR/CLASS/*.jpg, or train/CLASS and test/CLASS.", show_default=False)
    ],
    run: options.Run = None,
    backbone: Annotated[
        str | None,
        options.named(BACKBONES, "With weights of ImageNet: {choices}.", show_default="the best one installed"),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Pixels; those of the weights by default.", show_default=False)
    ] = None,
    classifier: Annotated[
        str | None, options.named(CLASSIFIERS, show_default="the one that is best for the classes")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Fine-tune for so long, where a trial says that it pays.", show_default=False),
    ] = None,
    device: options.Device = "auto",
    skip_bad: options.SkipBad = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --minutes.")] = False,
    force: options.Force = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn the classes of a folder of photos, in a minute: session 0 from a pretrained network.

    Some photos of each class are held out: some to test with, a few to tell the unknown by. The classifier is the one
    that is best where some of the classes play new ones. Nothing is trained without --minutes.

    Examples:
      m2sd learn ./photos         photos/heron/1.jpg, photos/stork/1.jpg, ...

      m2sd learn ./photos --run birds --force

      m2sd learn ./photos --minutes 30     tuned, if better
    """
    confirm_removal(run, force, yes)

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        learned = m2sd_cli.learn(
            folder,
            run=run,
            backbone=backbone,
            image_size=image_size,
            classifier=classifier,
            minutes=minutes,
            device=device,
            skip_bad=skip_bad,
            resume=resume,
            force=force,
        )
    manifest = learned.stored.manifest
    if json:
        document(
            {
                "run": as_text(m2sd_cli.open_run(run).path),
                "manifest": learned.stored.record.file,
                "backbone": manifest.backbone.name,
                "classifier": manifest.classifier,
                "choice": manifest.choice and manifest.choice.model_dump(),
                "tuning": manifest.tuning and manifest.tuning.model_dump(),
                "classes": len(manifest.classes),
                "pictures": learned.pictures,
                "tested": learned.tested,
                "accuracy": learned.right / learned.tested if learned.tested else None,
                "accuracy_by_class": learned.accuracies,
                "remarks": learned.remarks,
                "seconds": round(learned.seconds, 3),
            }
        )
        return
    results(
        [
            f"{len(manifest.classes)} classes from {learned.pictures} photos in {duration(learned.seconds)}, "
            f"with {manifest.backbone.name}"
        ]
    )
    if learned.tested:
        share = 100 * learned.right / learned.tested
        results([f"{share:.1f} % of {learned.tested} photos that were held out are answered rightly"])
        hard = [f"{name} {100 * accuracy:.1f} %" for name, accuracy in learned.worst if accuracy < 1]
        if hard:
            results([f"hardest: {', '.join(hard)}"])
    if manifest.choice is not None:
        results(_say_choice(manifest.choice, manifest.classifier))
    if manifest.tuning is not None:
        results([_say_tuning(manifest.tuning, len(manifest.classes))])
    for remark in learned.remarks:
        note(f"note: {remark}", quiet)
    if learned.example is not None:
        note(f"next: {command('predict', run, f' {as_word(learned.example)}')}", quiet)
    note(f"to teach new classes, a folder a class in DIR: {command('increment', run, ' --shots DIR')}", quiet)


def _say_choice(choice: "ChoiceRecord", classifier: str | None) -> list[str]:
    """Write the choice of a classifier and its figures, those of the others in a line of their own."""
    if choice.reason is not None:
        return [f"classifier: {classifier}, compared with no other: {choice.reason}"]
    own = classifier or ""
    chosen = choice.figures[own]
    others = sorted(choice.figures.keys() - {own}, key=lambda name: -choice.figures[name].harmonic)
    beside = [f"{name} {choice.figures[name].base:.1f} and {choice.figures[name].novel:.1f} %" for name in others]
    return [
        f"classifier: {own} ({chosen.base:.1f} % of known, {chosen.novel:.1f} % of new classes right, where a third of "
        f"yours played new ones with {choice.shots} photos)",
        f"beside it: {', '.join(beside)}",
    ]


def _say_tuning(tuning: "TuningRecord", classes: int) -> str:
    """Write the decision on fine-tuning and its figures in one line."""
    if tuning.reason is not None:
        return f"fine-tuning: none, the network is as it was: {tuning.reason}"
    assert tuning.trial_base is not None
    assert tuning.trial_harmonic is not None
    trial = (
        f"in a trial without {tuning.left_out} of {classes} classes {_say_figures(tuning.trial_base)} of the others are"
        f" answered rightly, HM with those as new ones {_say_figures(tuning.trial_harmonic)}"
    )
    if tuning.held_out is None:
        return f"fine-tuning: not kept, and no more time spent: {trial}"
    word = "kept" if tuning.tuned else "not kept"
    return f"fine-tuning: {word}: of the photos held out {_say_figures(tuning.held_out)}; {trial}"


def _say_figures(figures: "NetworksRecord") -> str:
    """Write the figure with fine-tuning, and the one without."""
    return f"{figures.tuned:.1f} % (without {figures.frozen:.1f} %)"
