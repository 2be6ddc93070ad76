"""What an ablation leaves on disk beside its runs: the budget that all rows share, and what each run came to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.runs.checksummed import ChecksummedModel
from m2sd_cli.runs.files import TEXT_LIMIT, read_bounded, write_atomically
from m2sd_cli.runs.manifest import Count, Name, Record, Setting, Text

BUDGET: Final = "ablation.json"
RESULTS: Final = "results.json"

Percent = Annotated[float, Field(ge=0, le=100)]
File = TypeVar("File", bound=ChecksummedModel)


class Budget(ChecksummedModel):
    """What every run of a table has in common; its seed and what its row changes come on top."""

    schema_version: Literal[1] = 1
    data: Name
    recipe: Name | None
    shared_stage_1: bool
    device: Text  # its kind
    precision: Text
    init_sha256: Text | None = None  # of the file that stage 1 begins from
    pretrain: dict[Text, Setting]
    distill: dict[Text, Setting]

    def items(self) -> Iterator[tuple[str, Setting]]:
        """Every setting with its name."""
        yield from (("data", self.data), ("recipe", self.recipe))
        yield from (("shared stage 1", self.shared_stage_1), ("device", self.device), ("precision", self.precision))
        yield "weights of SHA-256", self.init_sha256
        for stage, settings in (("pretrain", self.pretrain), ("distill", self.distill)):
            yield from ((f"{stage} {name}", value) for name, value in settings.items())


class Result(Record):
    """What one run came to; accuracies are top-1 in per cent, of the last session unless said otherwise."""

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


class Results(ChecksummedModel):
    """What all runs so far came to."""

    schema_version: Literal[1] = 1
    runs: list[Result] = Field(default=[])


def has_begun(folder: Path, budget: Budget) -> bool:
    """Whether a table of this budget is in the folder; if not, nothing is.

    Raises:
        UsageError: that one has another budget; the message names the first difference.
        RunError: something else is in the folder.
        DamagedError: its budget cannot be read.
    """
    found = _read(folder / BUDGET, Budget)
    if found is None:
        # What begins with a dot is the lock, or the rest of a killed write.
        other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if other:
            raise RunError(f"{folder}: {other[0]!r} is in it, and no ablation; name another folder with --out")
        return False
    then, now = dict(found.items()), dict(budget.items())
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise UsageError(
                f"--out {folder}: its table began with {name} {then.get(name)}, not {now.get(name)}; give the same "
                f"options, or name another folder"
            )
    return True


def begin(folder: Path, budget: Budget) -> None:
    """Write down the budget of a new table.

    Raises:
        RunError: it could not be written.
    """
    write_atomically(folder / BUDGET, budget.encoded())


def budget_of(folder: Path) -> Budget:
    """What all rows of a table share.

    Raises:
        RunError: there is no ablation in the folder.
        DamagedError: its budget is damaged.
    """
    found = _read(folder / BUDGET, Budget)
    if found is None:
        raise RunError(f"{folder}: no ablation in it; begin one with 'm2sd ablation --out DIR'")
    return found


def results(folder: Path) -> list[Result]:
    """What is known so far, in the order in which the runs ended.

    Raises:
        RunError: there is no ablation in the folder.
        DamagedError: a file of it is damaged.
    """
    budget_of(folder)
    try:
        return (_read(folder / RESULTS, Results) or Results()).runs
    except DamagedError as error:
        raise DamagedError(
            f"{error}; or remove it, and the same 'm2sd ablation' evaluates the finished runs again"
        ) from None


def add(folder: Path, result: Result) -> None:
    """Write one result more; the caller is the only writer.

    Raises:
        RunError: it could not be written.
    """
    write_atomically(folder / RESULTS, Results(runs=[*results(folder), result]).encoded())


def _read(path: Path, model: type[File]) -> File | None:
    try:
        return model.decoded(path, read_bounded(path, TEXT_LIMIT))
    except FileNotFoundError:
        return None
