"""The command `m2sd learn`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, as_word, command, document, duration, note, results
from m2sd_cli.cli.removal import confirm_removal
from m2sd_cli.reading import counted
from m2sd_cli.tables import BACKBONES, CLASSIFIERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2sd_cli.api.learn import Learned
    from m2sd_cli.runs.manifest import ChoiceRecord, Manifest, NetworksRecord, TuningRecord


def learn(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Photos (jpg, png, ...), a folder a class; or train/CLASS and test/CLASS.", show_default=False
        ),
    ],
    run: options.Run = None,
    backbone: Annotated[
        str | None,
        options.named(
            BACKBONES,
            "With weights of ImageNet: {choices}.",
            show_default="the best one installed",
            only=lambda entry: entry.imagenet is not None,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size", help="Side of the photos in pixels; by default that of the weights.", show_default=False
        ),
    ] = None,
    classifier: Annotated[
        str | None, options.named(CLASSIFIERS, show_default="the one that is best for the classes")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="Train the network, too, for so long, a trial included; the result is kept only if it is better. It "
            "takes six classes of ten photos.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    skip_bad: options.SkipBad = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --minutes.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the old model. Classes taught later are lost. With --minutes the old model goes first.",
        ),
    ] = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn the classes of a folder of photos in a minute, by a network that was trained on the photos of ImageNet.

    A fifth of each class is kept to test with. A few photos more are held out to recognise unknown ones. Classifiers
    are tried with some of the classes in the place of new ones; one that wins throughout is taken instead of the usual
    one. Nothing is trained without --minutes. The photos are only read. New classes are taught by m2sd increment.

    Examples:
      m2sd learn ./photos                photos/heron/1.jpg, photos/owl/2.jpg
      m2sd learn ./photos --run birds    a model of its own, in ./birds
      m2sd learn ./photos --run tuned --minutes 30     trained too, if better
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
                "held_out": learned.held_out,
                "tested": learned.tested,
                "accuracy": learned.right / learned.tested if learned.tested else None,
                "accuracy_by_class": learned.accuracies,
                "remarks": learned.remarks,
                "seconds": round(learned.seconds, 3),
            }
        )
        return
    results(_say_learned(learned))
    if manifest.choice is not None:
        results(_say_choice(manifest.choice, manifest))
    if manifest.tuning is not None:
        results(_say_tuning(manifest.tuning, len(manifest.classes)))
    for remark in learned.remarks:
        note(f"note: {remark}", quiet)
    if learned.example is not None:
        note(f"next: {command('predict', run, f' {as_word(learned.example)}')}", quiet)
    note(f"to teach new classes, a folder a class in DIR: {command('increment', run, ' --shots DIR')}", quiet)


def _say_learned(learned: "Learned") -> "Iterator[str]":
    """Write the size of a base session, and its answers to photos that it has not learned."""
    manifest = learned.stored.manifest
    kept = ((learned.tested, "to test with"), (learned.held_out, "to recognise unknown ones"))
    aside = "".join(f", {count} {purpose}" for count, purpose in kept if count)
    photos = learned.pictures + learned.tested + learned.held_out
    yield (
        f"{len(manifest.classes)} classes from {counted(photos, 'photo')} in {duration(learned.seconds)}, "
        f"with {manifest.backbone.name}" + (f": {learned.pictures} learned{aside}" if aside else "")
    )
    if learned.tested:
        share = 100 * learned.right / learned.tested
        yield f"accuracy now: {share:.1f} % of the {counted(learned.tested, 'photo')} to test with"
        hard = [f"{name} {100 * accuracy:.1f} %" for name, accuracy in learned.worst if accuracy < 1]
        if hard:
            yield f"hardest: {', '.join(hard)}"


def _say_choice(choice: "ChoiceRecord", manifest: "Manifest") -> "Iterator[str]":
    """Write the choice of a classifier, and the figures of the rehearsal in which new classes were taught."""
    from m2sd_cli.method.stage3 import default_classifier

    own = manifest.classifier or ""
    if choice.reason is not None:
        yield f"classifier: {own}, the usual one; others were not tried: {choice.reason}"
        return
    chosen = choice.figures[own]
    yield (
        f"accuracy to expect with new classes of {choice.shots} photos: about {chosen.last:.0f} %, "
        f"{chosen.base:.0f} % of the old and {chosen.novel:.0f} % of the new ones"
    )
    usual = default_classifier(manifest.backbone.similarity, trained=False)
    why = f"no other was better all {choice.parts} times"
    if own != usual:
        why = f"it was better than {usual}, the usual one for photos, all {choice.parts} times"
    yield f"  tried {choice.parts} times, with a third of your classes in the place of new ones"
    yield f"classifier: {own}; {why}"


def _say_tuning(tuning: "TuningRecord", classes: int) -> "Iterator[str]":
    """Write the decision on fine-tuning, and the figures that were compared."""
    if tuning.reason is not None:
        yield f"fine-tuning: none, the network is as it was: {tuning.reason}"
        return
    assert tuning.trial_base is not None
    assert tuning.trial_harmonic is not None
    if tuning.held_out is None:
        yield "fine-tuning is not kept: it was not better in a trial, so the network is as it was, in less time"
    elif tuning.tuned:
        yield "fine-tuning is kept: it was better in a trial, and not worse on photos held out"
    else:
        yield "fine-tuning is not kept: better in a trial, it was worse on photos held out; the network is as it was"
    yield (
        f"  trial without {tuning.left_out} of the classes, accuracy on the other {classes - tuning.left_out}: "
        f"{_compare(tuning.trial_base)}"
    )
    yield f"  these {tuning.left_out} taught as new, harmonic mean of both kinds: {_compare(tuning.trial_harmonic)}"
    if tuning.held_out is not None:
        yield f"  all classes, accuracy on photos held out: {_compare(tuning.held_out)}"


def _compare(figures: "NetworksRecord") -> str:
    """Write a figure with fine-tuning, and the one without."""
    return f"{figures.tuned:.1f} %, without fine-tuning {figures.frozen:.1f} %"
