"""Session 0 of a folder of images in one go: a pretrained network, as it is or fine-tuned, and the class means."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from m2sd_cli import progress
from m2sd_cli.api.base_session import fit_distill
from m2sd_cli.api.fine_tuning import FineTuning, refuse_minutes
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.api.stage import refuse_shared_folder, remember_folder, require_one_beginning
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.option import flag, shown
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import get_info
from m2sd_cli.data.choosing import choose_training, count_held_out
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.layout import require_folder
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.remarks import remarks
from m2sd_cli.data.repeated import list_images, say_repeated
from m2sd_cli.data.skipping import check_images, say_skipped, skip_bad_images
from m2sd_cli.data.sources import FileImages, select_where
from m2sd_cli.errors import InterruptedTrainingError, M2sdError, RunError, UsageError
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.device import choose_device
from m2sd_cli.inference.features import FEATURE_BATCH
from m2sd_cli.inference.session import load_session
from m2sd_cli.pairing import import_torchvision
from m2sd_cli.reports.evaluation import evaluate_session
from m2sd_cli.runs.folder import TUNING, RunFolder, open_run
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.tables import BACKBONES
from m2sd_cli.training.epochs import end_log
from m2sd_cli.training.execution import Execution, executing
from m2sd_cli.training.initial_weights import (
    IMAGENET,
    known_weights,
    prepared_for_weights,
    separate_origin,
    without_path,
)
from m2sd_cli.training.job import Job
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.packaged_weights import weights_file
from m2sd_cli.training.records import base_records, classes_digest, name_changes
from m2sd_cli.training.resuming import refuse_unless_new

BEST, FALLBACK = "efficientnet-lite0", "resnet18"
HELD_OUT = 0.05  # of each class, to calibrate with
HELD_OUT_OF_FEW = 0.2  # where the usual share is less than ENOUGH images
ENOUGH = 20  # images of which 95 % can be told


@dataclass(frozen=True)
class Learned:
    """The base session of a folder, and its answers to the images held out for testing."""

    stored: StoredManifest  # of session 0
    pictures: int  # learned from
    held_out: int  # images to recognise unknown ones
    tested: int  # images
    right: int  # of these
    accuracies: dict[str, float]  # of each class that has images for testing
    remarks: list[str]
    seconds: float
    example: Path | None  # an image to ask about, for testing if there is one

    @property
    def worst(self) -> list[tuple[str, float]]:
        """The three classes with the lowest accuracy, the lowest first."""
        return sorted(self.accuracies.items(), key=lambda each: each[1])[:3]


def learn(
    folder: Path | str,
    *,
    run: Path | str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    classifier: str | None = None,
    minutes: float | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    resume: bool = False,
    force: bool = False,
) -> Learned:
    """Make session 0 of a folder of images from a pretrained network, as it is or fine-tuned where that is better.

    The chain is that of `pretrain` and `distill`, with 0 epochs where the network stays as it is.

    Args:
        folder: with FOLDER/CLASS/*.jpg, or train/CLASS and test/CLASS in it.
        run: the run folder.
        backbone: one that has weights of ImageNet; None for the best one whose weights are installed.
        image_size: pixels; None for that of the weights.
        classifier: of stage 3; None for the default of such networks.
        minutes: to spend on fine-tuning, see `fine_tuning`; None for none.
        device: `auto` chooses.
        skip_bad: leave out images that cannot be read.
        resume: go on with an interrupted fine-tuning, or fine-tune the network that a `learn` left as it was.
        force: replace what is in the run folder.

    Raises:
        M2sdError: one of its kinds; the chain is as it was. After InterruptedTrainingError it is that of the network
            as it is, and the fine-tuning is saved.
    """
    began = time.monotonic()
    require_one_beginning(resume, False, force)
    if resume and minutes is None:
        raise UsageError("--resume: goes on with --minutes alone; give those that it began with")
    name = str(folder)
    if not os.path.isdir(name) and get_info(name) is not None:
        raise UsageError(f"{name}: learn is for a folder of photos; a data set has 'm2sd pretrain --data {name}'")
    require_folder(Path(name))
    if get_info(name) is not None:
        name = os.path.join(os.curdir, name)  # the folder, and no data set of its name
    opened = open_run(run)
    refuse_shared_folder(opened, name)
    asked = Execution(choose_device(device), force=force)
    with progress.stage("learn"), executing(asked, opened, "learn") as execution:
        if not resume:
            kept = None if force else _worth_keeping(opened, minutes)
            refuse_unless_new(StateStore(opened), kept, force, "before any --minutes begin")
        chosen = backbone or best_backbone()
        begin = {"backbone": chosen, "init": IMAGENET, "epochs": 0, "image_size": image_size}
        settings = separate_origin(resolve(PretrainConfig, Sources({}, options=begin)))
        init, weights = settings.init, known_weights(settings.backbone, settings.init)
        if weights is None:
            others = ", ".join(each for each, entry in BACKBONES.entries.items() if entry.imagenet)
            raise UsageError(f"--backbone {chosen}: it has no weights of ImageNet to learn with; choose {others}")
        begin |= {"backbone": settings.backbone, "init": without_path(init)}
        data = prepared_for_weights(open_data(name, None, settings.image_size), weights, settings.image_size)
        if skip_bad:
            data = skip_bad_images(data, check_images)
            say_skipped(data.skipped)
        settings = resolve(PretrainConfig, Sources({}, options={**begin, "held_out": share_to_hold_out(data)}))
        second = resolve(DistillConfig, Sources({}, options={"epochs": 0, "classifier": classifier}, init=init))
        images = choose_training(data, settings.held_out, None)
        classes = base_records(images)
        if minutes is not None:  # the remarks at the end tell it, too, but this is long before them
            say_repeated(list_images(images.train, images.classes, images.location))
        # Used at the end only, but an image that cannot be read is to be found before anything is written.
        known = data.test.labels < data.base  # not those of classes that are taught later
        tests = data.test if bool(known.all()) else select_where(data.test, known)
        tests.for_testing(data.transform, FEATURE_BATCH)
        if minutes is not None:
            refuse_minutes(minutes, images, execution)
        if resume:
            stored = _resumed(opened, settings, images, classifier, minutes)
        else:
            with opened.at_once():
                first = fit_pretrain(Job(PRETRAIN, opened, images, classes, settings, execution, init=init))
                made = fit_distill(Job("distill", opened, images, classes, second, execution, parent=first))
            end_log(opened, PRETRAIN, 0)
            assert made is not None, "no time limit ends it"
            stored = made
            remember_folder(opened, images)
            opened.remove_tuning()  # of an earlier one
        if minutes is not None and stored.manifest.tuning is None:
            try:
                stored = FineTuning(opened, images, settings, init, minutes, execution).decide()
            except KeyboardInterrupt:  # between trainings, which save and say the same
                raise InterruptedTrainingError(f"interrupted; {execution.way_on}") from None
        noticed = remarks(data)
    tested, right, accuracies = 0, 0, {}
    source = tests if len(tests) else images.train
    example = source.paths[0] if isinstance(source, FileImages) else None
    if len(tests):
        model = load_session(opened, 0, execution.device)
        with freed_memory_kept(execution.device):
            answers = evaluate_session([model], tests, data.classes, name, keep=True).answers
        correct = answers.predicted == answers.labels
        tested, right = len(correct), int(correct.sum())
        for label in torch.unique(answers.labels).tolist():
            accuracies[data.classes[label]] = float(correct[answers.labels == label].double().mean())
    seconds = time.monotonic() - began
    held_out = 0 if images.held_out is None else len(images.held_out)
    return Learned(stored, len(images.train), held_out, tested, right, accuracies, noticed, seconds, example)


def _resumed(
    run: RunFolder, settings: PretrainConfig, data: DataSet, classifier: str | None, minutes: float | None
) -> StoredManifest:
    """Find the session 0 that a fine-tuning goes on from, or that it has ended with.

    Raises:
        RunError: there is none, or classes were taught since, or the network was trained by other commands.
        UsageError: an option is another one, or the images are others.
    """
    sessions = run.sessions()
    if not sessions:
        raise RunError(f"{run.path}: no network of 'm2sd learn' in it to go on with; leave --resume out")
    first = run.pretrain().manifest
    base = run.session(0)
    began: dict[str, object] = {name: first.config.get(name) for name in ("backbone", "image_size")}
    asked: dict[str, object] = {name: getattr(settings, name) for name in began}
    if classifier is not None:
        began["classifier"], asked["classifier"] = base.manifest.classifier, classifier
    if base.manifest.tuning is not None:
        began["minutes"], asked["minutes"] = base.manifest.tuning.minutes, minutes
    for name, value in asked.items():
        if value != began[name]:
            given = "without it; leave it out" if began[name] is None else f"with {shown(began[name])}; give it that"
            raise UsageError(f"{flag(name)}: it began {given}, or start over with --force")
    changes = base_records(data), first.classes
    if classes_digest(changes[0]) != classes_digest(changes[1]):
        raise UsageError(f"{data.name}: it began with other images: {name_changes(*changes)}; --force starts over")
    if base.manifest.tuning is not None:
        return base
    if len(sessions) > 1:
        raise RunError(
            f"{run.path}: session {sessions[-1]} was taught, and would be replaced; 'm2sd sessions undo' removes it, "
            f"and --force starts over"
        )
    if not _is_frozen(run):
        raise RunError(
            f"{run.path}: its network was not made by 'm2sd learn'; start over with --force, or another --run"
        )
    return base


def _is_frozen(run: RunFolder) -> bool:
    """Tell if neither stage of a run has trained the network."""
    return not any(stored.manifest.config.get("epochs") for stored in (run.pretrain(), run.session(0)))


def _worth_keeping(run: RunFolder, minutes: float | None = None) -> str | None:
    """Name the part of a run that may be replaced only when asked to; a stage 1 alone is none without training.

    Args:
        run: the run folder.
        minutes: that are asked for; --resume can spend them on the network that a `learn` left as it was.
    """
    sessions = run.sessions()
    if sessions:
        resuming = ""
        if (run.tuning / TUNING).is_file() and sessions == [0]:
            resuming = ", and a fine-tuning that --resume goes on with"
        elif minutes is not None and sessions == [0] and run.session(0).manifest.tuning is None and _is_frozen(run):
            resuming = ", which --resume fine-tunes"
        return f"session {sessions[-1]} is in it{resuming}"
    return "a finished pretrain is in it" if run.has_pretrain() and run.pretrain().manifest.config["epochs"] else None


def best_backbone() -> str:
    """Name the best backbone whose weights of ImageNet are on this machine.

    Raises:
        M2sdError: there is none.
    """
    weights = BACKBONES[BEST].imagenet
    assert weights is not None
    if weights_file(weights.name) is not None:
        return BEST
    url = import_torchvision("models").ResNet18_Weights.IMAGENET1K_V1.url  # takes a second
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    adding = install_extra("photos")
    if not file.is_file():
        raise M2sdError(f"no pretrained network is installed: {adding}, or --backbone {FALLBACK} downloads one")
    progress.say(f"with {FALLBACK}, whose weights are at hand; {adding} adds {BEST}, which is quicker and better")
    return FALLBACK


def share_to_hold_out(data: DataSet) -> float:
    """Choose the share of each class to calibrate with: a larger one of a small folder."""
    sizes = data.train.labels.bincount(minlength=data.base)
    return HELD_OUT if int(count_held_out(sizes, HELD_OUT).sum()) >= ENOUGH else HELD_OUT_OF_FEW
