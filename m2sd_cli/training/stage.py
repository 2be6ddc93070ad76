"""What stages 1 and 2 have in common as work on a run folder: beginning, resuming, stopping."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from m2sd_cli.config import Config, shown, validate
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.errors import DamagedError, InterruptedTrainingError, RunError, TrainingError, UsageError
from m2sd_cli.inference.device import training_precision
from m2sd_cli.inference.team import ALONE, Team
from m2sd_cli.runs.manifest import EpochRecord, FileRecord, TrainingState
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.compilation import compilation_failed, not_compiled
from m2sd_cli.training.loop import Objective, Position, Training
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.progress import Progress, Silent
from m2sd_cli.training.records import data_record, skipped_records
from m2sd_cli.training.stopping import StopRequest

SAVE_EVERY = 300.0  # seconds


@dataclass(frozen=True)
class Machine:
    """Where and how a stage computes, and who watches."""

    device: torch.device
    precision: str = "auto"
    stop_after: float | None = None  # seconds
    progress: Progress = dataclasses.field(default_factory=Silent)
    save_every: float = SAVE_EVERY
    team: Team = ALONE
    compiled: bool = False


@dataclass(frozen=True)
class Finished:
    """What a training that reached its last epoch leaves behind."""

    seconds: float
    precision: str
    history: list[EpochRecord]


def saved_config(
    store: StateStore,
    stage: Literal["pretrain", "distill"],
    model: type[Config],
    options: Mapping[str, Any],
    precision: str,
) -> tuple[TrainingState, Config]:
    """The state to go on from, and the configuration that it began with.

    Args:
        store: of the run.
        stage, model: what is to be resumed.
        options: that were given.
        precision: that was given, or `auto`.

    Raises:
        RunError: there is no state, or it is the other stage's.
        DamagedError: its configuration makes no sense.
        UsageError: an option was given that differs from the one it began with.
    """
    if not store.exists():
        raise RunError(f"{store.run.path}: no interrupted training in it; leave --resume out to begin one")
    state = store.load()
    if state.stage != stage:
        raise RunError(f"{store.run.path}: the interrupted training is {state.stage}'s; 'm2sd {state.stage} --resume'")
    for name, value in options.items():
        if state.config.get(name) != value:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} {shown(value)}: the training began with {state.config.get(name)}; leave it out")
    newest = store.run.newest()
    if state.schema_version > 1 and state.head != (newest and newest.sha256):
        raise RunError(
            f"{store.run.path}: {newest.file if newest else 'the chain'} was written after this training began, which "
            f"would replace it; start over with --force if it may be lost"
        )
    if precision not in ("auto", state.precision):
        raise UsageError(f"--precision {precision}: the training began with {state.precision}; leave it out")
    try:
        return state, validate(model, state.config, source=str(store.run.training))
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
    machine: Machine,
    resumed: TrainingState | None,
) -> Finished | None:
    """Train to the last epoch, or until stopped.

    Returns:
        None if the time limit ended it; it can be resumed then.

    Raises:
        InterruptedTrainingError: a signal ended it, after the state was saved.
        RunError: the state to resume from belongs to other images or another pretrain.
        DamagedError: it is not a state of this training.
        TrainingError: the loss is no longer finite.
    """
    precision = resumed.precision if resumed else training_precision(machine.precision, machine.device)
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
                config=config.model_dump(),
                sums=position.sums,
                history=position.history,
                head=newest and newest.sha256,
                skipped=skipped_records(data.skipped),
            ),
            tensors,
        )

    # Counted from here: reading and decoding the images is part of the time that a cluster grants.
    stop = StopRequest(machine.stop_after)
    with stop.on_signals(), freed_memory_kept(machine.device):
        training = Training(
            stage=stage,
            module=module,
            objective=objective,
            data=data.train.for_training(data.augmentation),
            augmentation=data.augmentation,
            transform=data.transform,
            config=config,
            device=machine.device,
            precision=precision,
            progress=machine.progress,
            save=save,
            save_every=machine.save_every,
            team=machine.team,
            compiled=machine.compiled,
        )
        if resumed is not None:
            if resumed.data_digest != data_digest:
                raise RunError(f"{store.run.path}: the interrupted training began on other images than {data.name}'s")
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
                f"{stage}: the memory of {machine.device} is too small for batches of {config.batch_size} images; "
                f"lower --batch-size"
            ) from None
        except RuntimeError as error:
            if not compilation_failed(error):
                raise
            raise not_compiled(error) from None
    if ended:
        return Finished(training.position.seconds, precision, training.position.history)
    if machine.team.agree(stop.interrupted):
        raise InterruptedTrainingError("interrupted and saved; go on with the same command and --resume")
    return None
