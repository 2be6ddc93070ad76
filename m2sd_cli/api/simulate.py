"""Comparison of classifiers over many draws of the shots, without test images."""

from collections.abc import Sequence
from pathlib import Path

import torch

from m2sd_cli import progress
from m2sd_cli.api.distill import base_classes
from m2sd_cli.api.recorded_data import find_folder, recorded_data, recorded_info
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.catalogue import SHOTS, SIMULATED
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_shot_pool
from m2sd_cli.data.protocol import apply_protocol
from m2sd_cli.data.skipping import check_images, say_skipped, skip_bad_shots
from m2sd_cli.data.sources import select_where
from m2sd_cli.errors import DamagedError, UsageError
from m2sd_cli.inference.classifier import choose_classifier, require_covariances
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import to_transform
from m2sd_cli.method.stage3 import KnownClasses, choices
from m2sd_cli.paths import expand_given, text_given
from m2sd_cli.reports.draws import Simulation, compare_classifiers, embed_source
from m2sd_cli.reports.rehearsal import rehearse, sample_images, why_not
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.reader import PRETRAIN


def simulate(
    *,
    run: Path | str | None = None,
    data: Path | str | None = None,
    draws: int = 20,
    classifiers: Sequence[str] | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    ignore_new: bool = False,
) -> Simulation:
    """Compare classifiers for a network over many draws of the shots; no test image has a say.

    Session 0 of a run on a simulated data set is taught the sessions after it anew with every draw. In a run of a
    folder a third of the base classes at a time play new ones. The run stays as it is.

    Args:
        run: the run folder.
        data: the folder of images of a run of one; None for where it was.
        draws: how many; of a folder in each third.
        classifiers: of CLASSIFIERS; None for all that the run can answer with.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: whether to draw no shots that cannot be read. Test images that stage 1 left out are left out anyway.
        ignore_new: leave out the images of a folder that pretrain did not have.

    Raises:
        M2sdError: one of its kinds.
    """
    if draws < 1:
        raise UsageError(f"--draws {draws}: at least 1")
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    chosen, exact = choose_device(device), inference_precision(precision)
    chain = folder.summary(0)
    base = chain.base.manifest
    assert base.parent is not None
    info = recorded_info(base)
    checkpoint = BaseCheckpoint.read(folder, chain.base)
    able = choices(base.backbone.similarity, checkpoint.statistics.class_covariances is not None)
    names = [choose_classifier(folder, chain, name) for name in dict.fromkeys(classifiers or able)]
    for name in names:
        require_covariances(name, checkpoint.statistics)
    stored = folder.read(PRETRAIN, base.parent.sha256)
    first = stored.manifest
    if info is None:
        image_folder = find_folder(folder, first, text_given(data))
        opened = recorded_data(first, image_folder, root, first.transform.crop, ignore_new)
        base_classes(folder, stored, opened)  # refuses other images than those that were learned
        return _rehearse(folder, chain, checkpoint, opened, names, draws, chosen, exact)
    if info.simulates is None:
        raise UsageError(
            f"this run is of {base.data.name}; to choose without its test images, pretrain on a data set of base "
            f"training images alone, --data {info.name}{SIMULATED}"
        )
    opened = recorded_data(first, text_given(data), root, None)
    info = apply_protocol(info, opened.protocol)
    checkpoint.backbone.to(chosen).to(memory_format=torch.channels_last)
    transform = to_transform(base.transform)
    tested = embed_source(checkpoint.backbone, opened.test, transform, exact, "features of test images")
    shots, location = open_shot_pool(info, root, opened.protocol)
    if skip_bad:
        shots = skip_bad_shots(shots, location, check_images)
        say_skipped(shots.skipped)
    pool = embed_source(checkpoint.backbone, shots.source, transform, exact, "features of shots")
    sizes = [min(opened.base + session * info.way, len(opened.classes)) for session in range(1 + opened.sessions)]
    try:
        means, statistics = checkpoint.means, checkpoint.statistics
        known = KnownClasses(means, means[:0], [], statistics, checkpoint.images, checkpoint.held_out, base.base_cost)
        figures = compare_classifiers(known, base.backbone, tested, pool, sizes, names, draws, info.shots)
    except ValueError as error:
        file = folder.path / base.checkpoint.file
        raise DamagedError(f"{file}: {error}; restore it from a backup") from None
    return Simulation(info.name, sizes, info.shots, base.transform.views, figures, shots.skipped)


def _rehearse(
    folder: RunFolder,
    chain: ChainSummary,
    checkpoint: BaseCheckpoint,
    data: DataSet,
    names: Sequence[str],
    draws: int,
    device: torch.device,
    precision: str,
) -> Simulation:
    """Compare classifiers for a run of a folder, whose base classes play new ones.

    Raises:
        UsageError: there are too few classes or images.
    """
    base = chain.base.manifest
    labels, transform = data.train.labels, to_transform(base.transform)
    chosen = sample_images(labels, data.base)
    source = select_where(data.train, chosen)
    reason = why_not(source.labels, data.base)
    if reason is not None:
        raise UsageError(f"{data.name}: {reason}")
    if _is_trained(folder, chain):
        progress.say("the network was trained on these classes: as new ones they look easier than others will be")
    backbone = checkpoint.backbone
    backbone.to(device).to(memory_format=torch.channels_last)
    known = embed_source(backbone, source, transform, precision, "features of base images")
    rehearsal = rehearse(known, data.base, base.backbone, names, draws, checkpoint.held_out, base.base_cost)
    sizes = [data.base - rehearsal.new[0], data.base]
    return Simulation(data.name, sizes, SHOTS, base.transform.views, rehearsal.draws(), playing=rehearsal.new)


def _is_trained(folder: RunFolder, chain: ChainSummary) -> bool:
    """Tell whether the network was trained on the base classes."""
    base = chain.base.manifest
    assert base.parent is not None
    return bool(base.config.get("epochs") or folder.read(PRETRAIN, base.parent.sha256).manifest.config.get("epochs"))
