"""What stages 1 and 2 have in common as work on a run folder: beginning, resuming, stopping."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from m2sd_cli.config import Config, DistillConfig, PretrainConfig, in_full, recorded_config, shown
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DamagedError, InterruptedTrainingError, RunError, TrainingError, UsageError
from m2sd_cli.inference.device import training_precision
from m2sd_cli.inference.features import FEATURE_BATCH, held_out_sample
from m2sd_cli.runs.manifest import EpochRecord, FileRecord, Manifest, TrainingState
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.compilation import compilation_failed, not_compiled
from m2sd_cli.training.determinism import is_not_deterministic
from m2sd_cli.training.loop import Objective, Position, Training
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.progress import Progress, Silent
from m2sd_cli.training.records import data_record, skipped_records
from m2sd_cli.training.stopping import StopRequest

SAVE_EVERY = 300.0  # seconds
FLAGS = {"compile": "compiled", "deterministic": "deterministic"}  # options without a value, and their fields


@dataclass(frozen=True)
class Execution:
    """Where and how a stage computes, and who watches."""

    device: torch.device
    precision: str = "auto"
    stop_after: float | None = None  # seconds
    progress: Progress = dataclasses.field(default_factory=Silent)
    save_every: float = SAVE_EVERY
    group: ProcessGroup = SINGLE_PROCESS
    compiled: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: several processes cannot compile.
        """
        if self.compiled and self.group.size > 1:
            raise UsageError("--compile: for one process only; leave it out, or begin without torchrun")

    def as_begun(self, state: TrainingState) -> "Execution":
        """To compute as an interrupted training did, on whatever device."""
        return dataclasses.replace(
            self, precision=state.precision, compiled=state.compiled, deterministic=state.deterministic
        )


@dataclass(frozen=True)
class Finished:
    """What a training that reached its last epoch leaves behind."""

    seconds: float
    precision: str
    history: list[EpochRecord]


def require_same(begun: TrainingState | Manifest, options: Mapping[str, Any], execution: Execution) -> None:
    """A training is gone on with as it began, and one that has finished is not another one.

    Args:
        begun: what is left of it.
        options: that were given.
        machine: with the precision that was given, or `auto`; it may be another device.

    Raises:
        UsageError: something was given that could change the result; the message names the option.
    """
    asked: dict[str, Any] = dict(options)
    if execution.precision != "auto":
        asked["precision"] = execution.precision
    asked |= {name: True for name, field in FLAGS.items() if getattr(execution, field)}
    stage = begun.stage if isinstance(begun, TrainingState) else begun.kind
    began = in_full(PretrainConfig, begun.config) if stage == "pretrain" else in_full(DistillConfig, begun.config)
    began |= {"precision": begun.precision, "recipe": begun.recipe or "none"}
    began |= {name: getattr(begun, field) for name, field in FLAGS.items()}
    for name, value in asked.items():
        was = began.get(name)
        if was != value:
            option = "--" + name.replace("_", "-") + ("" if name in FLAGS else f" {shown(value)}")
            how = "without it" if was is None or was is False else f"with {was}"
            raise UsageError(f"{option}: the training began {how}; leave it out, or start over with --force")


def load_state(store: StateStore, stage: Literal["pretrain", "distill"]) -> TrainingState:
    """The state to go on from.

    Raises:
        RunError: there is no state, it is the other stage's, or the chain has changed since.
    """
    if not store.exists():
        raise RunError(f"{store.run.path}: no interrupted training in it; leave --resume out to begin one")
    state = store.load()
    if state.stage != stage:
        raise RunError(f"{store.run.path}: the interrupted training is {state.stage}'s; 'm2sd {state.stage} --resume'")
    newest = store.run.newest()
    if state.schema_version > 1 and state.head != (newest and newest.sha256):
        raise RunError(
            f"{store.run.path}: {newest.file if newest else 'the chain'} was written after this training began, which "
            f"would replace it; start over with --force if it may be lost"
        )
    return state


def begun_config(store: StateStore, state: TrainingState, model: type[Config]) -> Config:
    """The configuration that a training began with.

    Raises:
        DamagedError: it makes no sense.
    """
    try:
        return recorded_config(model, state.config, str(store.run.training))
    except UsageError as error:
        raise DamagedError(
            f"{store.run.training}: not a state to go on from: {error}; start over with --force"
        ) from None


def refuse_unless_new(store: StateStore, finished: str | None, force: bool) -> None:
    """A new training must not silently replace a finished or an interrupted one.

    Args:
        finished: the sentence that says what would be replaced, or None.

    Raises:
        RunError: there is something, and no `force`.
    """
    if force:
        return
    if finished is not None:
        raise RunError(f"{store.run.path}: {finished}; --force replaces it once the new training has finished")
    if store.exists():
        raise RunError(
            f"{store.run.path}: an interrupted {store.load().stage} is in it; go on with --resume, or start over "
            f"with --force"
        )


def train(
    stage: Literal["pretrain", "distill"],
    store: StateStore,
    module: nn.Module,
    objective: Objective,
    data: DataSet,
    data_digest: str,
    parent: FileRecord | None,
    config: Config,
    execution: Execution,
    resumed: TrainingState | None,
    recipe: str | None = None,
) -> Finished | None:
    """Train to the last epoch, or until stopped.

    Returns:
        None if the time limit ended it; it can be resumed then.

    Raises:
        DataError: a picture cannot be read, be it of those that are held out.
        InterruptedTrainingError: a signal ended it, after the state was saved.
        RunError: the state to resume from belongs to other images or another pretrain.
        DamagedError: it is not a state of this training.
        TrainingError: the loss is no longer finite.
    """
    precision = training_precision(execution.precision, execution.device)
    newest = store.run.newest()

    def save(position: Position, tensors: dict[str, Tensor]) -> None:
        store.save(
            TrainingState(
                stage=stage,
                parent=parent.sha256 if parent else None,
                data=data_record(data),
                data_digest=data_digest,
                tensors=FileRecord(file="none", sha256="0" * 64),
                step=position.step,
                seconds=position.seconds,
                precision=precision,
                compiled=execution.compiled,
                deterministic=execution.deterministic,
                recipe=recipe,
                config=dataclasses.asdict(config),
                sums=position.sums,
                history=position.history,
                head=newest and newest.sha256,
                skipped=skipped_records(data.skipped),
            ),
            tensors,
        )

    # Counted from here: decoding the images is part of the time that a cluster grants.
    stop = StopRequest(execution.stop_after)
    with stop.on_signals(), freed_memory_kept(execution.device):
        with execution.group.local_main_first():
            if data.held_out is not None:
                # Looked at after training only, but a picture that cannot be read is to be found before it.
                held_out_sample(data.held_out).for_testing(data.transform, FEATURE_BATCH)
            images = data.train.for_training(data.augmentation)
        training = Training(
            stage=stage,
            module=module,
            objective=objective,
            data=images,
            augmentation=data.augmentation,
            transform=data.transform,
            config=config,
            device=execution.device,
            precision=precision,
            progress=execution.progress,
            save=save,
            save_every=execution.save_every,
            group=execution.group,
            compiled=execution.compiled,
        )
        if resumed is not None:
            if resumed.data_digest != data_digest:
                raise RunError(
                    f"{store.run.path}: the interrupted training began on other images than those of {data.name}; "
                    f"give it the same --data"
                )
            if resumed.parent != (parent.sha256 if parent else None):
                raise RunError(f"{store.run.path}: the interrupted training began from another pretrain")
            position = Position(resumed.step, resumed.seconds, dict(resumed.sums), list(resumed.history))
            try:
                training.restore(position, store.tensors(resumed))
            except ValueError as error:
                raise DamagedError(
                    f"{store.run.training}: not the state of this training: {error}; start over with --force"
                ) from None
        try:
            ended = training.run(stop)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"{stage}: the memory of {execution.device} is too small for batches of {config.batch_size} images; "
                f"lower --batch-size"
            ) from None
        except RuntimeError as error:
            if is_not_deterministic(error):
                raise TrainingError(f"--deterministic: {str(error).split(',')[0]}; begin without it") from None
            if not compilation_failed(error):
                raise
            raise not_compiled(error) from None
    if ended:
        return Finished(training.position.seconds, precision, training.position.history)
    if execution.group.any(stop.interrupted):
        raise InterruptedTrainingError("interrupted and saved; go on with the same command and --resume")
    return None
