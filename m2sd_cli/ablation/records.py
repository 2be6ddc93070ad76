"""Files of an ablation: the budget that all runs share, and the result of each run beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field

from m2sd_cli.ablation.rows import ROWS, Row
from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.runs.checksummed import ChecksummedModel
from m2sd_cli.runs.files import TEXT_LIMIT, read_bounded, write_atomically
from m2sd_cli.runs.lock import lock_folder
from m2sd_cli.runs.manifest import Count, Name, Setting, Text

COMMAND: Final = "ablation"
BUDGET: Final = "ablation.json"
RESULT: Final = "result.json"
PATIENCE: Final = 60.0  # seconds to wait for a process that writes the budget down

Percent = Annotated[float, Field(ge=0, le=100)]
File = TypeVar("File", bound=ChecksummedModel)


class Checksummed(ChecksummedModel):
    """A file of an ablation."""

    schema_version: Literal[1] = 1

    def as_data(self) -> dict[str, Any]:
        """Return the fields that JSON has."""
        return self.model_dump(exclude={"seal", "schema_version"})


class Budget(Checksummed):
    """Options that every run of a table has in common; the seed and the changes of the row come on top."""

    data: Name
    recipe: Name | None
    shared_stage_1: bool
    device: Text  # its kind
    precision: Text
    init_sha256: Text | None = None  # of the file that stage 1 begins from
    pretrain: dict[Text, Setting]
    distill: dict[Text, Setting]

    def settings(self) -> dict[str, Setting]:
        """Return every option under a name for messages."""
        shared = self.model_dump(include={"data", "recipe", "shared_stage_1", "device", "precision", "init_sha256"})
        names = {"shared_stage_1": "shared stage 1", "init_sha256": "weights of SHA-256"}
        settings: dict[str, Setting] = {names.get(name, name): value for name, value in shared.items()}
        for stage, options in (("pretrain", self.pretrain), ("distill", self.distill)):
            settings |= {f"{stage} {name}": value for name, value in options.items()}
        return settings


class Result(Checksummed):
    """Accuracies and time of a run. Accuracies are top-1 in per cent, of the last session unless said otherwise."""

    seed: Count
    row: Name
    session_0: Percent
    last: Percent
    average: Annotated[Percent, Field(description="AVG, over all sessions")]
    base: Percent
    novel: Percent
    harmonic: Percent
    seconds: Annotated[float, Field(ge=0, description="wall time of stage 2")]
    ms_per_step: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Run:
    """A row of a table trained with a seed, in a run folder of its own."""

    table: Path
    seed: int
    row: Row

    @property
    def name(self) -> str:
        """Its folder within that of the table."""
        return f"seed-{self.seed}/{self.row.name}"

    @property
    def path(self) -> Path:
        """Its run folder."""
        return self.table / self.name

    @property
    def has_ended(self) -> bool:
        """True if its result is there."""
        return (self.path / RESULT).exists()

    def end(self, result: Result) -> None:
        """Write down its result.

        Raises:
            RunError: it could not be written.
        """
        write_atomically(self.path / RESULT, result.encoded())


def has_begun(folder: Path, budget: Budget) -> bool:
    """Return True if a table of this budget is in the folder, False if nothing is.

    Raises:
        UsageError: that one has another budget; the message names the first difference.
        RunError: something else is in the folder.
        DamagedError: its budget cannot be read.
    """
    stored = _read(folder / BUDGET, Budget)
    if stored is None:
        # What begins with a dot is a lock, or the rest of a killed write.
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        other = next((name for name in names if not name.startswith(".")), None)
        if other is not None:
            raise RunError(f"{folder}: {other!r} is in it, and no ablation; name another folder with --out")
        return False
    then, now = stored.settings(), budget.settings()
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise UsageError(
                f"--out {folder}: its table began with {name} {then.get(name)}, not {now.get(name)}; give the same "
                f"options, or name another folder"
            )
    return True


def begin(folder: Path, budget: Budget) -> None:
    """Write down the budget of a table, unless another process did.

    Raises:
        RunError: it could not be written.
        M2sdError: as `has_begun`.
    """
    with lock_folder(folder, COMMAND, PATIENCE):
        if not has_begun(folder, budget):
            write_atomically(folder / BUDGET, budget.encoded())


def read_budget(folder: Path) -> Budget:
    """Read the options that all rows of a table share.

    Raises:
        RunError: there is no ablation in the folder.
        DamagedError: its budget is damaged.
    """
    budget = _read(folder / BUDGET, Budget)
    if budget is None:
        raise RunError(f"{folder}: no ablation in it; begin one with 'm2sd ablation --out DIR'")
    return budget


def read_results(folder: Path) -> list[Result]:
    """Read the results so far, seed by seed in the order of the rows.

    Raises:
        DamagedError: one of them is damaged.
    """
    results = []
    for path in folder.glob(f"seed-*/*/{RESULT}"):
        try:
            result = _read(path, Result)
        except DamagedError as error:
            raise DamagedError(f"{error}; or remove it, and the same 'm2sd ablation' evaluates the run again") from None
        if result is not None and result.row in ROWS:
            results.append(result)
    order = list(ROWS)
    return sorted(results, key=lambda each: (each.seed, order.index(each.row)))


def _read(path: Path, model: type[File]) -> File | None:
    try:
        return model.decoded(path, read_bounded(path, TEXT_LIMIT))
    except FileNotFoundError:
        return None
