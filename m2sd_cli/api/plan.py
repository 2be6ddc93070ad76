"""The course of a training that has not begun, by the time of a few steps that leave nothing behind."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from m2sd_cli.api import distill as distilling
from m2sd_cli.api import pretrain as pretraining
from m2sd_cli.api.course import StagePlan, expected_distill, measure, measure_distill
from m2sd_cli.api.recorded_data import find_folder
from m2sd_cli.api.stage import Request, refuse_shared_folder, take_arguments
from m2sd_cli.config.merging import DEFAULT_ORIGIN
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import NO_INIT, Config, DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS, DataSetInfo, find_info
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import locate
from m2sd_cli.data.skipping import say_skipped
from m2sd_cli.data.sources import FileImages, TrainingImages
from m2sd_cli.distributed.process_group import process_group
from m2sd_cli.errors import DataError
from m2sd_cli.method.network import Network
from m2sd_cli.paths import expand
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.distill import (
    load_network,
)
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.initial_weights import is_published, require_weights
from m2sd_cli.training.job import Job
from m2sd_cli.training.pretrain import pretrain_objective
from m2sd_cli.training.records import data_record

BATCHES = 2  # of images that are read to time steps
AUGMENTATIONS = ("auto_augment", "colour", "cutout")


@dataclass(frozen=True)
class Plan:
    """A training that has not begun.

    Attributes:
        augmentation: of training images: the crop, and what the options add.
        parameters: of the network, without those that only a training has.
        options: value and origin of each option by name.
        run: the run folder.
        content: of the run folder.
        decoding_seconds: of the images to train on; 0 if they are in memory or in the cache of a built-in data set.
        stages: the asked one; after stage 1 also stage 2, with the options that it would have.
    """

    data: str
    classes: int
    images: int
    held_out: int
    test: int
    image_size: int
    augmentation: dict[str, Any]
    backbone: str
    parameters: int
    options: dict[str, tuple[Any, str]]
    device: str
    precision: str
    run: Path
    content: list[str]
    decoding_seconds: float
    stages: list[StagePlan]


def plan(
    stage: Literal["pretrain", "distill"],
    data: Path | str | None = None,
    *,
    run: Path | str | None = None,
    force: bool = False,
    skip_bad: bool = False,
    ignore_new: bool = False,
    source: Path | str | None = None,
    **arguments: Any,
) -> Plan:
    """Tell what `pretrain` or `distill` would do with the same arguments, and time a few steps of it.

    Nothing is written to the run folder, no image is kept, nothing is downloaded. Built-in data sets of files keep
    their decoded images in the cache, as for every command.

    Args:
        stage: the function that would be called.
        data, run, force, skip_bad, ignore_new, source: as for this function.
        arguments: others of it.

    Raises:
        M2sdError: one of its kinds, as the training would; or the data set would have to be downloaded.
    """
    request, asked = take_arguments(data, arguments)
    request = replace(request, ignore_new=ignore_new)
    folder = open_run(run)
    origin = None if source is None else RunFolder(expand(source, "--from"))
    with process_group(asked.device) as (group, device):
        execution = replace(asked, device=device, group=group)
        if stage == "pretrain":
            return _plan_pretrain(request, folder, execution, force, skip_bad)
        return _plan_distill(request, folder, origin, execution, force)


def _plan_pretrain(request: Request, folder: RunFolder, execution: Execution, force: bool, skip_bad: bool) -> Plan:
    followed = find_recipe(request.recipe)
    name = pretraining.require_data(request, followed)
    refuse_shared_folder(folder, name)
    info = find_info(name)
    require_present(info, request.data_root)
    job = pretraining.begin(request, followed, folder, execution, force, skip_bad)
    say_skipped(job.data.skipped)
    defaults = info.defaults if info else FOLDER_DEFAULTS
    second = expected_distill(job, defaults, followed)
    return _plan(job, *time_stages(job, [second]))


def require_present(info: DataSetInfo | None, data_root: Path | None) -> None:
    """Refuse a data set that would have to be downloaded first.

    Raises:
        DataError: it would.
    """
    if info is not None and info.download is not None and locate(info, data_root) is None:
        raise DataError(
            f"{info.name}: not on this machine, and --dry-run downloads nothing; "
            f"'m2sd data download {info.name}' gets it, or name its parent folder with --data-root"
        )


def time_stages(job: Job[PretrainConfig], seconds: Sequence[DistillConfig]) -> tuple[Network, float, list[StagePlan]]:
    """Time a few steps of stage 1, and of each stage 2 after it.

    Args:
        job: stage 1.
        seconds: configurations of stage 2.

    Returns:
        the network, the seconds in which its images are decoded, and the stages.
    """
    require_weights(job.config.backbone, job.init)
    # The time of a step does not depend on the weights: published ones are not downloaded for it.
    begun = replace(job, init=None) if job.init is not None and is_published(job.init) else job
    network = pretraining.begin_network(begun)
    largest = max(each.batch_size for each in (job.config, *seconds))
    images, decoding = _read_few(job.data, largest)
    objective = pretrain_objective(network, job.config)
    stages = [measure("pretrain", network, objective, images, job)]
    execution = replace(job.execution, time_budget=None)
    for second in seconds:
        then = Job("distill", job.run, job.data, job.classes, second, execution)
        # Training turns modules of a network to its precision: the next one begins anew, as in a command of its own.
        stages.append(measure_distill(pretraining.begin_network(begun), images, then))
    return network, decoding, stages


def _plan_distill(
    request: Request, folder: RunFolder, origin: RunFolder | None, execution: Execution, force: bool
) -> Plan:
    parent = distilling.find_stage_1(folder, origin)
    if origin is not None and request.data is None:
        request = replace(request, data=find_folder(origin, parent.manifest, None))
    job = distilling.begin(request, folder, parent, execution, force)
    network = load_network(origin or folder, parent)
    images, seconds = _read_few(job.data, job.config.batch_size)
    return _plan(job, network, seconds, [measure_distill(network, images, job)])


def _plan(job: Job[Config], network: Network, seconds: float, stages: list[StagePlan]) -> Plan:
    data, config, origins = job.data, job.config, dict(job.origins)
    values = {name: getattr(config, name) for name in options_of(type(config))}
    if "image_size" in values and values["image_size"] is None:
        built_in = data_record(data).kind != "folder"
        source = "data set" if built_in else "initial weights" if job.init not in (None, NO_INIT) else DEFAULT_ORIGIN
        values["image_size"], origins["image_size"] = data.augmentation.size, source
    if job.execution.time_budget is not None:
        values["epochs"], origins["epochs"] = stages[0].epochs, "time budget"
    return Plan(
        data=data.name,
        classes=data.base,
        images=len(data.train),
        held_out=len(data.held_out) if data.held_out is not None else 0,
        test=len(data.test),
        image_size=data.augmentation.size,
        augmentation=asdict(data.augmentation) | {name: values[name] for name in AUGMENTATIONS},
        backbone=config.backbone if isinstance(config, PretrainConfig) else _backbone(job),
        parameters=sum(each.numel() for each in network.parameters()),
        options={name: (value, origins[name]) for name, value in values.items()},
        device=str(job.execution.device),
        precision=job.execution.exact_precision,
        run=job.run.path,
        content=_content(job.run),
        decoding_seconds=seconds,
        stages=stages,
    )


def _backbone(job: Job[Config]) -> str:
    assert job.parent is not None
    return job.parent.manifest.backbone.name


def _content(folder: RunFolder) -> list[str]:
    """List what a run folder has of a chain."""
    found = ["a finished pretrain"] if folder.has_pretrain() else []
    sessions = folder.sessions()
    found += [f"session{'s 0 to' if len(sessions) > 1 else ''} {sessions[-1]}"] if sessions else []
    store = StateStore(folder)
    return [*found, f"an interrupted {store.load().stage}"] if store.exists() else found


def _read_few(data: DataSet, batch_size: int) -> tuple[TrainingImages, float]:
    """Read the first images, without keeping any in the cache, and estimate the seconds that all of them take."""
    count = min(len(data.train), BATCHES * batch_size)
    indices = torch.arange(count)
    few = data.train.select(indices, data.train.labels[indices])
    if not isinstance(few, FileImages):
        return few.for_training(data.augmentation), 0.0
    side = data.augmentation.store or data.augmentation.size
    began = time.monotonic()
    squashed = replace(data.transform, resize=side, crop=side, squash=True, views=1)
    pixels = torch.cat([batch for batch, _ in few.batches(squashed, batch_size)])
    seconds = (time.monotonic() - began) / count * len(data.train)
    return TrainingImages(pixels.permute(0, 2, 3, 1).contiguous(), torch.ones(count), few.labels), seconds
