"""Whole measurement: each workload alone, then all of them in turn, then the commands."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from m2sd_cli.benchmark.chips import Peak, peak
from m2sd_cli.benchmark.flops import count_flops
from m2sd_cli.benchmark.machine import device_name, peak_memory
from m2sd_cli.benchmark.processes import MakeRun, measure_processes
from m2sd_cli.benchmark.report import Conditions, Duration, Report, Throughput
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.timing import Measurements, Workload, alternate, ratios, steps_for
from m2sd_cli.benchmark.workload import FeatureExtraction, distill_stage, pretrain_stage, random_images
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.errors import TrainingError
from m2sd_cli.host import cores
from m2sd_cli.progress import say
from m2sd_cli.training.compilation import compilation_failed, not_compiled
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.records import versions

PRETRAIN, DISTILL, FEATURES, REFERENCE = "pretrain", "distill", "features", "reference"
WARM_UP = 2  # steps; the first one makes the state of the optimiser
COMPILED_WARM_UP = 4  # steps: to compile, to record the graphs, and to run them
Make = Callable[[], Workload]


@dataclass(frozen=True)
class Survey:
    """Properties of a workload that has warmed up, measured while no other is in memory."""

    images: int  # a step
    steps: int  # a round
    flops: int  # a step
    peak_bytes: int | None


def run_bench(settings: Settings, make_run: MakeRun) -> Report:
    """Measure throughput, then the time that commands take.

    Raises:
        M2sdError: the device's memory is too small, or a command failed.
    """
    data = random_images(settings)
    makers = _makers(settings, data)
    plain = _makers(replace(settings, compile=False), data)
    block = settings.seconds / settings.rounds / len(makers)
    try:
        surveys = {name: _survey(name, make, plain[name], block, settings) for name, make in makers.items()}
        with freed_memory_kept(settings.device):  # as the commands do
            seconds = _rounds(makers, surveys, settings)
    except RuntimeError as error:
        if compilation_failed(error):
            raise not_compiled(error) from None
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise TrainingError(
            f"the memory of {settings.device} is too small for batches of {settings.pretrain.batch_size} images of "
            f"{settings.image_size} pixels; lower --batch-size"
        ) from None
    chip = device_name(settings.device)
    against = seconds.get(REFERENCE)
    return Report(
        conditions=Conditions(
            recipe=settings.recipe,
            backbone=settings.pretrain.backbone,
            image_size_pixels=settings.image_size,
            classes=settings.classes,
            device=str(settings.device),
            training_precision=settings.training_precision,
            feature_precision=settings.feature_precision,
            seconds=settings.seconds,
            rounds=settings.rounds,
            reference_workers=settings.workers,
            compiled=settings.compile,
        ),
        versions=versions(),
        device_name=chip,
        cores=cores(),
        threads=torch.get_num_threads(),
        throughput={
            name: _throughput(surveys[name], seconds[name], _peak(name, chip, settings))
            for name in (PRETRAIN, DISTILL, FEATURES, REFERENCE)
            if name in makers
        },
        distill_to_pretrain_step_time_ratio=ratios(seconds[DISTILL], seconds[PRETRAIN]),
        # Both take batches of one size: the ratio of their speeds is the inverse ratio of their times.
        pretrain_to_reference_throughput_ratio=ratios(against, seconds[PRETRAIN]) if against else None,
        durations={
            name: Duration(plan.epochs, plan.steps, Measurements.of([plan.steps * each for each in seconds[name]]))
            for name, plan in settings.schedules.items()
        },
        processes=measure_processes(settings, make_run),
    )


def _makers(settings: Settings, data: TrainingImages) -> dict[str, Make]:
    """Return a maker of each workload, least memory first, since not every C library gives memory back."""
    makers: dict[str, Make] = {
        FEATURES: partial(FeatureExtraction, settings),
        PRETRAIN: partial(pretrain_stage, settings, data),
        DISTILL: partial(distill_stage, settings, data),
    }
    if settings.workers is not None:
        from m2sd_cli.benchmark.reference import ReferenceLoop  # imports torchvision, which takes seconds

        makers[REFERENCE] = partial(ReferenceLoop, settings, data, settings.workers)
    return makers


@contextmanager
def _memory_of_its_own(device: torch.device) -> Iterator[None]:
    """Keep freed memory as the commands do, and give it back at the end: no later workload is charged for it."""
    with freed_memory_kept(device):
        yield
        gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _survey(name: str, make: Make, plain: Make, seconds: float, settings: Settings) -> Survey:
    """Examine one workload alone; `plain` makes it uncompiled, since torch counts no FLOPs of a compiled one."""
    say(f"{name}: warm-up")
    with _memory_of_its_own(settings.device):
        flops = _flops(plain)
    with _memory_of_its_own(settings.device):
        survey = _examine(make, flops, seconds, settings)
    if name == REFERENCE and settings.device.type == "cpu":
        survey = replace(survey, peak_bytes=None)  # the memory of its worker processes is not counted
    return survey


def _flops(make: Make) -> int:
    with closing(make()) as workload:
        workload.prepare(1)
        return count_flops(partial(workload.run, 1))


def _examine(make: Make, flops: int, seconds: float, settings: Settings) -> Survey:
    with closing(make()) as workload:
        workload.prepare(WARM_UP)
        workload.run(COMPILED_WARM_UP if settings.compile else WARM_UP)
        steps: list[int] = []
        peak_bytes = peak_memory(settings.device, lambda: steps.append(steps_for(workload, seconds)))
    if settings.compile and settings.device.type == "cuda":
        peak_bytes = None  # the memory of CUDA graphs is not counted among the tensors
    return Survey(workload.images, steps[0], flops, peak_bytes)


def _rounds(makers: Mapping[str, Make], surveys: Mapping[str, Survey], settings: Settings) -> dict[str, list[float]]:
    with ExitStack() as stack:
        workloads: dict[str, Workload] = {}
        for name, make in makers.items():
            workloads[name] = stack.enter_context(closing(make()))
            workloads[name].prepare(WARM_UP)
            workloads[name].run(COMPILED_WARM_UP if settings.compile else WARM_UP)
        say(f"{', '.join(makers)}: {settings.rounds} rounds in turn")
        return alternate(workloads, {name: each.steps for name, each in surveys.items()}, settings.rounds)


def _peak(name: str, chip: str, settings: Settings) -> Peak | None:
    if name == FEATURES:
        return peak(chip, settings.feature_precision, tf32=False)
    tf32 = bool(torch.backends.cudnn.allow_tf32)
    return peak(chip, "fp32" if name == REFERENCE else settings.training_precision, tf32)


def _throughput(survey: Survey, seconds: list[float], limit: Peak | None) -> Throughput:
    speed = Measurements.of([survey.images / each for each in seconds])
    achieved = survey.flops * speed.median / survey.images
    return Throughput(
        batch_size_images=survey.images,
        steps_per_round=survey.steps,
        images_per_second=speed,
        step_milliseconds=Measurements.of([1000 * each for each in seconds]),
        peak_memory_bytes=survey.peak_bytes,
        flop_per_step=survey.flops,
        flop_per_second=achieved,
        peak_format=limit.format if limit else None,
        share_of_peak=achieved / limit.flop_per_second if limit else None,
    )
