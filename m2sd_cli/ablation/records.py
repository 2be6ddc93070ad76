"""Files of an ablation: the budget that all runs share, and the result of each run beside it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import Field

from m2sd_cli.ablation.rows import ROWS, Row
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.progress import say
from m2sd_cli.reports.metrics import Figures, SessionFigures, summarise
from m2sd_cli.runs.checksummed import ChecksummedModel, Sha256
from m2sd_cli.runs.files import TEXT_LIMIT, read_bounded, write_atomically
from m2sd_cli.runs.lock import lock_folder
from m2sd_cli.runs.manifest import Count, Name, Record, Setting, Text, Whole

COMMAND: Final = "ablation"
BUDGET: Final = "ablation.json"
RESULT: Final = "result.json"
CLASSIFIER: Final = "classifier"  # the one option of stage 2 that the network does not depend on
DIGEST: Final = 10  # digits in the name of a folder
PATIENCE: Final = 60.0  # seconds to wait for a process that records the budget

Percent = Annotated[float, Field(ge=0, le=100)]
File = TypeVar("File", bound=ChecksummedModel)


class AblationFile(ChecksummedModel):
    """A file of an ablation."""

    schema_version: Literal[1] = 1

    def as_data(self) -> dict[str, Any]:
        """Return the fields that JSON has."""
        return self.model_dump(exclude={"seal", "schema_version"})


class RowRecord(Record):
    """A row of a table, by the options in which it differs from those that all rows share."""

    what: Text = ""
    pretrain: dict[Text, Setting] = Field(default_factory=dict)
    distill: dict[Text, Setting] = Field(default_factory=dict)
    digests: dict[Text, Sha256] = Field(default_factory=dict)  # of files that options of stage 1 name
    plugins: dict[Text, Text] = Field(default_factory=dict)  # origin of each part that this package does not bring

    @property
    def stage_1(self) -> str:
        """The name of its stage 1, which rows of the same one share."""
        changes = {**self.pretrain, **{f"{name} of SHA-256": value for name, value in self.digests.items()}}
        return f"stage-1-{_short_digest(changes)}" if changes else "stage-1"

    @property
    def network(self) -> str:
        """A name of the network after stage 2, which rows that differ in their classifier alone share."""
        changes = {name: value for name, value in self.distill.items() if name != CLASSIFIER}
        return f"stage-2-{_short_digest({'stage 1': self.stage_1, **changes})}"

    def settings(self) -> dict[str, Setting]:
        """Return every option under a name for messages."""
        return _named_settings(self)


class Budget(AblationFile):
    """Options that all runs of a table share, and the rows; the seed is no part of it."""

    data: Name
    recipe: Name | None
    shared_stage_1: bool
    device: Text  # the kind of the device, such as cpu
    precision: Text
    compiled: Annotated[bool, Field(description="both stages, by torch.compile")] = False
    deterministic: Annotated[bool, Field(description="by algorithms that repeat exactly on CUDA, too")] = False
    init_sha256: Text | None = None  # of the file that stage 1 begins from
    pretrain: dict[Text, Setting]
    distill: dict[Text, Setting]
    digests: dict[Text, Sha256] = Field(default_factory=dict)  # of other files that options of stage 1 name
    rows: dict[Name, RowRecord] = Field(default_factory=dict)  # that were begun; none in a file of an earlier version

    def settings(self) -> dict[str, Setting]:
        """Return every option that all rows share, under a name for messages."""
        names = {
            "data": "data",
            "recipe": "recipe",
            "shared_stage_1": "shared stage 1",
            "device": "device",
            "precision": "precision",
            "compiled": "--compile",
            "deterministic": "--deterministic",
            "init_sha256": "weights of SHA-256",
        }
        shared = self.model_dump(include=set(names))
        return {name: shared[field] for field, name in names.items()} | _named_settings(self)

    def described(self) -> dict[str, str]:
        """Return the description of every row, in the order of the table: built-in rows first."""
        rows = {name: row.description for name, row in ROWS.items()}
        return rows | {name: row.what for name, row in self.rows.items() if name not in ROWS}

    def own_rows(self) -> list[Row]:
        """Return the rows that are not built in, by name and description."""
        return [Row(name, row.what) for name, row in self.rows.items() if name not in ROWS]


def _named_settings(options: RowRecord | Budget) -> dict[str, Setting]:
    """Return the options of both stages, and the digests of their files, under names for messages."""
    settings: dict[str, Setting] = {f"{name} of SHA-256": value for name, value in options.digests.items()}
    for stage, values in (("pretrain", options.pretrain), ("distill", options.distill)):
        settings |= {f"{stage} {name}": value for name, value in values.items()}
    return settings


class SessionResult(Record):
    """Figures after a session, see `SessionFigures`."""

    session: Count
    classes: Count
    images: Count
    overall: Percent | None
    base: Percent | None
    novel: Percent | None
    harmonic: Percent | None
    top5: Percent | None
    forgetting: float | None


class Result(AblationFile):
    """Accuracies and time of a run. Accuracies are top-1 in per cent, of the last session unless said otherwise."""

    seed: Whole
    row: Name
    session_0: Percent | None
    last: Percent | None
    average: Annotated[Percent | None, Field(description="AVG, over all sessions")]
    base: Percent | None
    novel: Percent | None
    harmonic: Percent | None
    seconds: Annotated[float, Field(ge=0, description="wall time of stage 2")]
    ms_per_step: Annotated[float, Field(ge=0)]  # of stage 2; 0 without a step
    classifier: Name | None = None  # that answers
    backbone: Name | None = None
    sha256: Sha256 | None = None  # of the manifest of the last session
    sessions: list[SessionResult] = Field(default_factory=list)  # all; none in a result of an earlier version

    @classmethod
    def of(cls, figures: Figures, **fields: Any) -> Self:
        """Make a result of the figures of a run.

        Args:
            figures: of the run.
            fields: the other fields of the result.
        """
        first, last = figures.sessions[0], figures.sessions[-1]
        return cls(
            session_0=first.overall,
            last=last.overall,
            average=figures.average,
            base=last.base,
            novel=last.novel,
            harmonic=last.harmonic,
            sessions=[SessionResult(**asdict(each)) for each in figures.sessions],
            **fields,
        )

    @property
    def figures(self) -> Figures | None:
        """The figures of all sessions; None in a result of an earlier version."""
        if not self.sessions:
            return None
        return summarise([SessionFigures(**dict(each)) for each in self.sessions])


@dataclass(frozen=True)
class Run:
    """A row of a table trained with a seed, in a run folder of its own."""

    table: Path
    seed: int
    row: str

    @property
    def name(self) -> str:
        """The path of its folder below the table's."""
        return f"seed-{self.seed}/{self.row}"

    @property
    def path(self) -> Path:
        """Its run folder."""
        return self.table / self.name

    @property
    def has_ended(self) -> bool:
        """True if its result is recorded."""
        return (self.path / RESULT).exists()

    def trainings(self, budget: Budget) -> tuple[str, str]:
        """Return the names of its stage 1 and of its network, which it may share with other runs of the table."""
        row, seed = budget.rows[self.row], f"seed-{self.seed}"
        return row.stage_1 if budget.shared_stage_1 else f"{seed}/{row.stage_1}", f"{seed}/{row.network}"

    def has_diverged(self, budget: Budget) -> bool:
        """Tell whether one of its trainings has diverged."""
        return any(divergence(self.table, name).exists() for name in self.trainings(budget))

    def end(self, result: Result) -> None:
        """Record its result.

        Raises:
            RunError: it could not be written.
        """
        write_atomically(self.path / RESULT, result.encoded())


def divergence(table: Path, training: str) -> Path:
    """Return the file that tells that a training of a table has diverged.

    Args:
        table: the folder of the table.
        training: its name, see `Run.trainings`.
    """
    return table / f"{training}.diverged"


def recorded_budget(folder: Path, budget: Budget) -> Budget | None:
    """Return the recorded budget of a table; None if its folder is missing or empty.

    Args:
        folder: of the table.
        budget: of this command. It has to be the recorded one; its rows have to be as they were begun, or new.

    Raises:
        UsageError: the recorded budget is another one; the message names the first difference.
        RunError: something else is in the folder.
        DamagedError: the recorded budget cannot be read.
    """
    stored = stored_budget(folder)
    if stored is None:
        # A name that begins with a dot is that of a lock, or of the rest of a killed write.
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        other = next((name for name in names if not name.startswith(".")), None)
        if other is not None:
            raise RunError(f"{folder}: {other!r} is in it, and no ablation; name another folder with --out")
        return None
    _require_same(f"--out {folder}: its table began with", stored.settings(), budget.settings())
    for name, row in budget.rows.items():
        if name in stored.rows:
            beginning = f"--out {folder}: its row {name} began with"
            _require_same(beginning, stored.rows[name].settings(), row.settings())
    return stored


def _require_same(beginning: str, then: Mapping[str, Setting], now: Mapping[str, Setting]) -> None:
    """Refuse other settings than the recorded ones.

    Raises:
        UsageError: a setting differs.
    """
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            values = [each.get(name, "that of all rows") for each in (then, now)]
            raise UsageError(
                f"{beginning} {name} {values[0]}, not {values[1]}; give the same options, or name another folder"
            )


def begin(folder: Path, budget: Budget) -> Budget:
    """Record the budget of a table and the rows that its record lacks, unless another process did.

    Returns:
        The recorded budget.

    Raises:
        RunError: the record could not be written.
        M2sdError: as `recorded_budget` does.
    """
    with lock_folder(folder, COMMAND, PATIENCE):
        stored = recorded_budget(folder, budget)
        rows = {**(stored.rows if stored else {}), **budget.rows}
        if stored is None or rows != stored.rows:
            stored = budget.model_copy(update={"rows": rows})
            write_atomically(folder / BUDGET, stored.encoded())
        return stored


def read_budget(folder: Path) -> Budget:
    """Read the options that all rows of a table share.

    Raises:
        RunError: there is no ablation in the folder.
        DamagedError: the budget is damaged.
    """
    budget = stored_budget(folder)
    if budget is None:
        raise RunError(f"{folder}: no ablation in it; begin one with 'm2sd ablation --out DIR'")
    return budget


def stored_budget(folder: Path) -> Budget | None:
    """Read the budget of a table, with the defaults of the options that an earlier version did not have.

    Returns:
        the budget; None if the folder has none.

    Raises:
        DamagedError: it cannot be read.
    """
    stored = _read(folder / BUDGET, Budget)
    if stored is None:
        return None
    return stored.model_copy(
        update={
            "pretrain": _usual_settings(PretrainConfig) | stored.pretrain,
            "distill": _usual_settings(DistillConfig) | stored.distill,
        }
    )


def _usual_settings(model: type[PretrainConfig | DistillConfig]) -> dict[str, Setting]:
    """Return the defaults of the options that a budget has."""
    usual = {name: option.default for name, option in options_of(model).items() if name != "seed"}
    return {name: value for name, value in usual.items() if value is not MISSING}


def read_results(folder: Path, rows: Sequence[str] = tuple(ROWS)) -> list[Result]:
    """Read the results so far, seed by seed in the order of the rows.

    A result in another place than its run's is a copy, which would count twice. It is named and left out.

    Args:
        folder: of the table.
        rows: the names of the rows in their order; others are left out.

    Raises:
        DamagedError: a result is damaged.
        RunError: a copy is in the place of another run.
    """
    results = []
    for path in folder.glob(f"seed-*/*/{RESULT}"):
        try:
            result = _read(path, Result)
        except DamagedError as error:
            raise DamagedError(f"{error}; or remove it, and the same 'm2sd ablation' evaluates the run again") from None
        if result is None or result.row not in rows:
            continue
        if path.parent == Run(folder, result.seed, result.row).path:
            results.append(result)
            continue
        copy = f"{path}: a copy of the result of seed {result.seed}, {result.row}"
        if re.fullmatch(r"seed-\d+", path.parent.parent.name) and path.parent.name in rows:
            raise RunError(f"{copy}; remove {path.parent}, and the same 'm2sd ablation' trains that run")
        say(f"{copy}; it is left out")
    return sorted(results, key=lambda each: (each.seed, rows.index(each.row)))


def _short_digest(settings: Mapping[str, Setting]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGEST]


def _read(path: Path, model: type[File]) -> File | None:
    try:
        return model.decoded(path, read_bounded(path, TEXT_LIMIT))
    except FileNotFoundError:
        return None
