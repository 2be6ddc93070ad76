"""Results of a measurement. The fields are those of the JSON document, so that their names end in units."""

from dataclasses import dataclass

from m2sd_cli.benchmark.timing import Measurements


@dataclass(frozen=True)
class Conditions:
    """Conditions of a measurement."""

    recipe: str | None
    backbone: str
    image_size_pixels: int
    classes: int
    device: str
    training_precision: str
    feature_precision: str
    seconds: float
    rounds: int
    compiled: bool
    reference_workers: int | None


@dataclass(frozen=True)
class Throughput:
    """Throughput of one workload; the figure of a round is the mean over its steps."""

    batch_size_images: int
    steps_per_round: int
    images_per_second: Measurements
    step_milliseconds: Measurements
    peak_memory_bytes: int | None  # tensors on CUDA, the whole process on a CPU
    flop_per_step: int
    flop_per_second: float
    peak_format: str | None  # the arithmetic whose peak the share is of
    share_of_peak: float | None


@dataclass(frozen=True)
class Duration:
    """Time that the epochs of a recipe's stage would take, extrapolated from the measured steps."""

    epochs: int
    steps: int
    seconds: Measurements


@dataclass(frozen=True)
class Latency:
    """Time and memory of a command, from the start of its process to the end."""

    seconds: Measurements
    peak_resident_bytes: int | None


@dataclass(frozen=True)
class Report:
    """The results of a measurement."""

    conditions: Conditions
    versions: dict[str, str]
    device_name: str
    cores: int
    threads: int  # of torch
    throughput: dict[str, Throughput]  # pretrain, distill, features, and reference if it was asked for
    distill_to_pretrain_step_time_ratio: Measurements
    pretrain_to_reference_throughput_ratio: Measurements | None
    durations: dict[str, Duration]  # of the recipe's stages, if there is one
    processes: dict[str, Latency]  # import_torch, help, increment, predict; none of a network of this process
