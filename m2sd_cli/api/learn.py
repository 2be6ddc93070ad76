"""Session 0 of a folder of pictures in one go: a pretrained network as it is, and the means of the classes."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from m2sd_cli import progress
from m2sd_cli.api.distill import fit_distill
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.api.stage import refuse_shared_folder, remember_folder
from m2sd_cli.config import DistillConfig, PretrainConfig, resolve
from m2sd_cli.data.catalogue import find_info
from m2sd_cli.data.choosing import choose_training, count_held_out
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.remarks import remarks
from m2sd_cli.data.repeated import list_pictures, say_repeated
from m2sd_cli.data.skipping import check_pictures, say_skipped, skip_bad_pictures
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import M2sdError, PictureError, UsageError
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.device import choose_device
from m2sd_cli.inference.features import FEATURE_BATCH
from m2sd_cli.inference.session import load_session
from m2sd_cli.pairing import import_torchvision
from m2sd_cli.registry import BACKBONES
from m2sd_cli.reports.evaluation import evaluate_session
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.execution import Execution, executing
from m2sd_cli.training.initial_weights import IMAGENET, known_weights, located, prepared_for_weights, without_path
from m2sd_cli.training.job import Job
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.packaged_weights import weights_file
from m2sd_cli.training.records import base_records
from m2sd_cli.training.resuming import refuse_unless_new

BEST, FALLBACK = "efficientnet-lite0", "resnet18"
HELD_OUT = 0.05  # of each class, to calibrate with
HELD_OUT_OF_FEW = 0.2  # where the usual share is less than ENOUGH pictures
ENOUGH = 20  # pictures of which 95 % can be told


@dataclass(frozen=True)
class Learned:
    """The base session of a folder, and its answers to the pictures held out for testing."""

    stored: StoredManifest  # of session 0
    pictures: int  # learned from
    tested: int  # pictures
    right: int  # of these
    accuracies: dict[str, float]  # of each class that has pictures for testing
    remarks: list[str]
    seconds: float
    example: Path | None  # a picture to ask about, for testing if there is one

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
    device: str = "auto",
    skip_bad: bool = False,
    force: bool = False,
) -> Learned:
    """Make session 0 of a folder of pictures from a pretrained network, without training it.

    The chain is that of `pretrain` with 0 epochs and `distill` with 0 epochs.

    Args:
        folder: with FOLDER/CLASS/*.jpg, or train/CLASS and test/CLASS in it.
        run: the run folder.
        backbone: one that has weights of ImageNet; None for the best one whose weights are installed.
        image_size: pixels; None for that of the weights.
        classifier: of stage 3; None for the default of such networks.
        device: `auto` chooses.
        skip_bad: leave out pictures that cannot be read.
        force: replace what is in the run folder.

    Raises:
        M2sdError: one of its kinds; the chain is as it was, or has its stage 1 if there was none.
    """
    began = time.monotonic()
    name = str(folder)
    if find_info(name) is not None:
        raise UsageError(f"{name}: learn is for a folder of pictures; a data set has 'm2sd pretrain --data {name}'")
    opened = open_run(run)
    refuse_shared_folder(opened, name)
    with progress.stage("learn"), executing(Execution(choose_device(device)), opened, "learn") as execution:
        refuse_unless_new(StateStore(opened), _worth_keeping(opened), force)
        chosen = backbone or best_backbone()
        begin = {"backbone": chosen, "init": IMAGENET, "epochs": 0, "image_size": image_size}
        settings = located(resolve(PretrainConfig, {}, options=begin))
        init, weights = settings.init, known_weights(settings.backbone, settings.init)
        begin |= {"backbone": settings.backbone, "init": without_path(init)}
        data = prepared_for_weights(open_data(name, None, settings.image_size), weights, settings.image_size)
        if skip_bad or _worth_keeping(opened):  # which would be lost to a picture that turns out to be damaged
            data = skip_bad_pictures(data, check_pictures)
            if data.skipped and not skip_bad:
                raise PictureError(data.location / data.skipped[0].file, data.skipped[0].reason)
            say_skipped(data.skipped)
        settings = resolve(PretrainConfig, {}, options={**begin, "held_out": share_to_hold_out(data)})
        second = resolve(DistillConfig, {}, options={"epochs": 0, "classifier": classifier}, init=init)
        images = choose_training(data, settings.held_out, None)
        classes = base_records(images)
        say_repeated(list_pictures(images.train, images.classes, images.location))
        # Used at the end only, but a picture that cannot be read is to be found before anything is written.
        data.test.for_testing(data.transform, FEATURE_BATCH)
        first = fit_pretrain(Job(PRETRAIN, opened, images, classes, settings, execution, init=init))
        remember_folder(opened, images)
        stored = fit_distill(Job("distill", opened, images, classes, second, execution, parent=first))
        assert stored is not None, "no time limit ends it"
        noticed = remarks(data)
    tested, right, accuracies = 0, 0, {}
    source = data.test if len(data.test) else images.train
    example = source.paths[0] if isinstance(source, FileImages) else None
    if len(data.test):
        model = load_session(opened, 0, execution.device)
        with freed_memory_kept(execution.device):
            answers = evaluate_session([model], data.test, data.classes, name, keep=True).answers
        correct = answers.predicted == answers.labels
        tested, right = len(correct), int(correct.sum())
        for label in torch.unique(answers.labels[answers.labels >= 0]).tolist():
            accuracies[data.classes[label]] = float(correct[answers.labels == label].double().mean())
    seconds = time.monotonic() - began
    return Learned(stored, len(images.train), tested, right, accuracies, noticed, seconds, example)


def _worth_keeping(run: RunFolder) -> str | None:
    """Name the part of a run that may be replaced only when asked to; a stage 1 without training is none.

    Such a stage 1 is what is left of a `learn` that was cut off.
    """
    sessions = run.sessions()
    if sessions:
        return f"session {sessions[-1]} is in it"
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
        raise M2sdError(f"no pretrained network is installed: {adding}, or name one to download with --backbone")
    progress.say(f"with {FALLBACK}, whose weights are at hand; {adding} adds {BEST}, which is quicker and better")
    return FALLBACK


def share_to_hold_out(data: DataSet) -> float:
    """Choose the share of each class to calibrate with: a larger one of a small folder."""
    sizes = data.train.labels.bincount(minlength=data.base)
    return HELD_OUT if int(count_held_out(sizes, HELD_OUT).sum()) >= ENOUGH else HELD_OUT_OF_FEW
