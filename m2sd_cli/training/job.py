"""The inputs and the saved position of a stage that is trained."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Generic, Literal

from torch import Tensor

from m2sd_cli.config.stages import Config, PretrainConfig
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.errors import RunError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import ClassRecord, EpochRecord, FileRecord, OptionsTables, TrainingState, WeightsRecord
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import (
    classes_digest,
    data_record,
    machines,
    name_changes,
    plugins_record,
    skipped_records,
    split_record,
)


@dataclass(frozen=True)
class Fitted(Generic[Config]):
    """The outcome of a training that reached its last epoch, with the epochs that a budget of time left it."""

    config: Config
    seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)


@dataclass
class Position:
    """The progress of a training, beside its tensors."""

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch under way, weighted by images
    history: list[EpochRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Job(Generic[Config]):
    """The inputs of a stage that is begun, resumed or run once more."""

    stage: Literal["pretrain", "distill"]
    run: RunFolder  # locked
    data: DataSet
    classes: list[ClassRecord]  # the base classes with their images
    config: Config
    execution: Execution
    recipe: str | None = None  # that the configuration follows
    options_file: OptionsTables = field(default_factory=dict)  # of --config, of stage 1
    init: str | None = None  # the weights that stage 1 begins from, if not random ones
    weights: WeightsRecord | None = None  # the record of these weights
    init_sha256: str | None = None  # of their file
    parent: StoredManifest | None = None  # of stage 2: the manifest of stage 1
    state: TrainingState | None = None  # to resume from
    origins: Mapping[str, str] = field(default_factory=dict)  # source of each option, of a training that begins

    def saver(self) -> Callable[[Position, dict[str, Tensor]], None]:
        """Return the function that saves a position with its tensors in the run folder."""
        store, newest, execution = StateStore(self.run), self.run.newest(), self.execution
        begun = TrainingState(
            stage=self.stage,
            parent=self.parent and self.parent.record.sha256,
            data=data_record(self.data),
            data_digest=classes_digest(self.classes),
            classes=self.classes,
            tensors=FileRecord(file="none", sha256="0" * 64),
            step=0,
            seconds=0,
            precision=execution.exact_precision,
            compiled=execution.compile,
            deterministic=execution.deterministic,
            recipe=self.recipe,
            options_file=self.options_file,
            weights=self.weights,
            init_sha256=self.init_sha256,
            split=split_record(self.data) if self.stage == "pretrain" else None,
            config=asdict(self.config),
            sums={},
            history=[],
            head=newest and newest.sha256,
            machines=machines(execution, self.state),
            skipped=skipped_records(self.data.skipped),
            plugins=self._plugins(),
        )

        def save(position: Position, tensors: dict[str, Tensor]) -> None:
            store.save(begun.model_copy(update=vars(position)), tensors)

        return save

    def _plugins(self) -> dict[str, str]:
        data, config = data_record(self.data), self.config
        if isinstance(config, PretrainConfig):
            return plugins_record(data, config.backbone, config=config)
        backbone = None if self.parent is None else self.parent.manifest.backbone.name
        return plugins_record(data, backbone, config.classifier, config)

    def require_same_images(self, state: TrainingState) -> None:
        """Refuse a state that belongs to other images or another stage 1.

        Raises:
            RunError: the state does.
        """
        if state.data_digest != classes_digest(self.classes):
            changed = f": {name_changes(self.classes, state.classes)}" if state.classes else ""
            raise RunError(
                f"{self.run.path}: the interrupted training began on other images than those of {self.data.name}; "
                f"give it the same --data{changed}"
            )
        if state.parent != (self.parent and self.parent.record.sha256):
            raise RunError(
                f"{self.run.path}: the interrupted training began from another pretrain; start over with --force if it "
                f"may be lost"
            )
