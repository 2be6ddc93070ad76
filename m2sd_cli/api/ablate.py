"""Running the table: stage 1 once a seed, then every row from there, each in a run folder of its own.

Several processes may be at it, each claiming the run that it trains; only results.json is written by all, in turn.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from m2sd_cli.ablation.claims import claimed
from m2sd_cli.ablation.records import Budget, Result, add, begin, has_begun, results
from m2sd_cli.ablation.rows import Row, choose_rows
from m2sd_cli.api.distill import distill
from m2sd_cli.api.evaluate import evaluate
from m2sd_cli.api.increment import increment
from m2sd_cli.api.pretrain import pretrain
from m2sd_cli.api.stage import named_data
from m2sd_cli.config import DistillConfig, PretrainConfig, resolve, validate
from m2sd_cli.data.catalogue import find_info
from m2sd_cli.data.locate import open_data
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import InterruptedTrainingError, UsageError
from m2sd_cli.inference.device import choose_device, training_precision
from m2sd_cli.progress import say
from m2sd_cli.recipes import find_recipe
from m2sd_cli.reports.metrics import require_figure
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import lock_folder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.distill import loss_weights
from m2sd_cli.training.execution import SAVE_EVERY
from m2sd_cli.training.initial_weights import file_digest

COMMAND = "ablation"
DATA = "cifar100"  # unless another is named
PATIENCE = 60.0  # seconds to wait for a process that writes down what the table's runs have come to
POLL = 2.0  # seconds between two looks at what other processes have done


class Outcome(Enum):
    """What became of a run."""

    ENDED = "ended"
    TIME_UP = "time is up"
    ELSEWHERE = "another process is at it"  # or at the stage 1 that it needs, or was and has ended it


@dataclass(frozen=True)
class Ablation:
    """How far a table has come."""

    budget: Budget
    results: list[Result]  # of all calls so far
    finished: bool  # whether every run that this call was to see to has ended


@dataclass(frozen=True)
class _Work:
    """What is the same for every run of a call."""

    out: Path
    sessions: int
    budget: Budget
    init: str | None  # where the weights of stage 1 begin, if not at random
    data_root: Path | None
    device: str
    save_every: float
    deadline: float | None  # of time.monotonic

    @property
    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def ablate(
    out: Path | str,
    *,
    data: str | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    images_per_class: int | None = None,
    pretrain_epochs: int | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    rows: str | Sequence[str] | None = None,
    shared_stage_1: bool = False,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    stop_after: float | None = None,
    save_every: float = SAVE_EVERY,
) -> Ablation:
    """Train every row with every seed on one budget, teach all official sessions, and evaluate.

    What was finished by an earlier call is skipped, and what was cut off is gone on with. Seeds and rows may differ
    from call to call; nothing else that decides a result may. Calls of several processes share the runs, each taking
    what no other is at, and return when all are there.

    Args:
        out: the folder for runs and results.
        data: a built-in data set; else what the file or the recipe names, else cifar100.
        recipe: that every run follows, but for what its row changes.
        config: a TOML file with the tables [pretrain] and [distill], for every run; it wins over the recipe.
        images_per_class: of the base classes, for both stages; None for what the file or the recipe says, else all.
        pretrain_epochs, epochs: of stage 1, and of stage 2 in every row.
        seeds: how many: 0, 1, ...
        rows: which, by their names; None for all.
        shared_stage_1: whether all seeds begin from the stage 1 of seed 0, instead of each from its own.
        data_root: where built-in data sets lie.
        device, precision: of training; `auto` chooses.
        stop_after: seconds after which to save and stop.
        save_every: seconds between two saves of the resumable state.

    Raises:
        M2sdError: one of its kinds; what has ended by then is kept.
    """
    if is_distributed():
        raise UsageError("an ablation runs as one process, or as several of its own; begin it without torchrun")
    chosen = choose_rows(rows)
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1")
    if pretrain_epochs is not None and pretrain_epochs < 1:
        raise UsageError(f"--pretrain-epochs {pretrain_epochs}: at least 1")
    folder = Path(out)
    place = choose_device(device)
    exact = training_precision(precision, place)
    budget, init = _budget(
        data, recipe, config, images_per_class, pretrain_epochs, epochs, shared_stage_1, place.type, exact
    )
    # What does not go together is said before anything is written and hours are spent.
    if budget.distill["epochs"] == 0:
        raise UsageError("--epochs 0: every row would be the same network")
    for row in chosen:
        loss_weights(_settings(budget, row, 0))
    deadline = None if stop_after is None else time.monotonic() + stop_after
    wanted = [(seed, row) for seed in range(seeds) for row in chosen]
    with lock_folder(folder, COMMAND, PATIENCE):
        if has_begun(folder, budget) and not _missing(folder, wanted):
            return Ablation(budget, results(folder), True)
    sessions = open_data(budget.data, data_root).sessions  # which takes a while where it is downloaded first
    with lock_folder(folder, COMMAND, PATIENCE):
        if not has_begun(folder, budget):
            begin(folder, budget)
    work = _Work(
        folder,
        sessions,
        budget,
        init,
        data_root,
        device,
        save_every,
        deadline,
    )
    try:
        finished = _run_all(work, wanted)
    except InterruptedTrainingError:
        raise InterruptedTrainingError("interrupted and saved; go on with the same command") from None
    return Ablation(budget, results(folder), finished)


def _budget(
    data: str | None,
    recipe: str | None,
    config: Path | None,
    images_per_class: int | None,
    pretrain_epochs: int | None,
    epochs: int | None,
    shared_stage_1: bool,
    device: str,
    precision: str,
) -> tuple[Budget, str | None]:
    """The settings of both stages, resolved now, so that no call goes on with others, and where the weights begin.

    Raises:
        UsageError: a value does not fit, or the data set has no sessions of its own.
        DataError: a file of weights to begin from cannot be read.
    """
    followed = find_recipe(recipe)
    file = followed.options
    data = data or named_data(config, followed) or DATA
    info = find_info(data)
    if info is None:
        raise UsageError(f"--data {data}: a folder has no official sessions; name a built-in data set")
    first: dict[str, Any] = {"epochs": pretrain_epochs, "images_per_class": images_per_class}
    one = resolve(PretrainConfig, info.defaults, config, first, file)
    two = resolve(DistillConfig, info.defaults, config, {"epochs": epochs}, file)
    if one.seed or two.seed:
        raise UsageError("a seed is set in the file of options; here the seeds are 0, 1, ..., as many as --seeds says")
    # Where a file of weights lies on this machine is nobody else's business.
    named = replace(one, init=one.init and Path(one.init).name)
    budget = Budget(
        data=data,
        recipe=followed.name,
        shared_stage_1=shared_stage_1,
        device=device,
        precision=precision,
        init_sha256=file_digest(one.init),
        pretrain=_without_seed(named),
        distill=_without_seed(two),
    )
    return budget, one.init


def _without_seed(config: PretrainConfig | DistillConfig) -> dict[str, Any]:
    """Return the options that all seeds share."""
    return {name: value for name, value in asdict(config).items() if name != "seed"}


def _settings(budget: Budget, row: Row, seed: int) -> DistillConfig:
    return validate(
        DistillConfig, {**budget.distill, **row.changes(budget.distill), "seed": seed}, f"the row {row.name}"
    )


def _missing(folder: Path, wanted: Sequence[tuple[int, Row]]) -> list[tuple[int, int, Row]]:
    """The runs that have no result yet, each with its place in the table, from 1."""
    done = {(each.seed, each.row) for each in results(folder)}
    return [(place, seed, row) for place, (seed, row) in enumerate(wanted, 1) if (seed, row.name) not in done]


def _run_all(work: _Work, wanted: Sequence[tuple[int, Row]]) -> bool:
    """Every run that has no result yet, seed by seed, and waits for those that others are at; whether time sufficed."""
    waiting = False
    while missing := _missing(work.out, wanted):
        outcomes = set()
        for place, seed, row in missing:
            outcome = _attempt(work, f"run {place} of {len(wanted)}", seed, row)
            if outcome is Outcome.TIME_UP:
                return False
            outcomes.add(outcome)
            if outcome is Outcome.ENDED and work.left == 0:
                break
        if work.left == 0:
            return not _missing(work.out, wanted)
        if Outcome.ENDED in outcomes:
            waiting = False
            continue
        if not waiting:
            say("waiting for other processes")
            waiting = True
        time.sleep(POLL if work.left is None else min(POLL, work.left))
    return True


def _attempt(work: _Work, number: str, seed: int, row: Row) -> Outcome:
    """One run, from wherever it was cut off, unless another process is at it."""
    with claimed(work.out, f"seed-{seed}-{row.name}") as own:
        if not own or not _missing(work.out, [(seed, row)]):
            return Outcome.ELSEWHERE
        place = work.out / f"seed-{seed}" / row.name
        run = RunFolder(place)
        if not run.has_pretrain():
            first = _stage_1(work, 0 if work.budget.shared_stage_1 else seed)
            if isinstance(first, Outcome):
                return first
            with run.locked(COMMAND):
                run.copy_pretrain(first)
        say(f"{number}: seed {seed}, {row.name} ({row.what})")
        settings = _settings(work.budget, row, seed)
        base = run.session(0) if run.sessions() else _distilled(work, run, settings)
        if base is None:
            return Outcome.TIME_UP
        result = _judged(work, place, base, seed, row, settings)
        with lock_folder(work.out, COMMAND, PATIENCE):
            add(work.out, result)
        say(
            f"seed {seed}, {row.name}: AVG {result.average:.2f}, last {result.last:.2f}, novel {result.novel:.2f}, "
            f"HM {result.harmonic:.2f}"
        )
        return Outcome.ENDED


def _judged(work: _Work, place: Path, base: StoredManifest, seed: int, row: Row, settings: DistillConfig) -> Result:
    """What a distilled run comes to, after the sessions that it has not learned yet."""
    for session in range(len(RunFolder(place).sessions()), work.sessions + 1):
        increment(session, run=place, data_root=work.data_root, device=work.device)
    figures = evaluate(run=place, data_root=work.data_root, device=work.device).figures
    first_session, last = figures.sessions[0], figures.sessions[-1]
    images = sum(each.shots for each in base.manifest.classes)
    steps = settings.epochs * len(batch_bounds(images, settings.batch_size))
    return Result(
        seed=seed,
        row=row.name,
        session_0=require_figure(first_session.overall),
        last=require_figure(last.overall),
        average=require_figure(figures.average),
        base=require_figure(last.base),
        novel=require_figure(last.novel),
        harmonic=require_figure(last.harmonic),
        seconds=base.manifest.seconds,
        ms_per_step=1000 * base.manifest.seconds / steps,
    )


def _stage_1(work: _Work, seed: int) -> RunFolder | Outcome:
    """The run that holds stage 1 of a seed, or why there is none yet."""
    name = "stage-1" if work.budget.shared_stage_1 else f"seed-{seed}/stage-1"
    run = RunFolder(work.out / name)
    with claimed(work.out, name.replace("/", "-")) as own:
        if run.has_pretrain():
            return run
        if not own:
            return Outcome.ELSEWHERE
        say(f"stage 1 of seed {seed}")
        options: dict[str, Any] = {**work.budget.pretrain, "init": work.init, "seed": seed}
        stored = pretrain(
            work.budget.data,
            run=run.path,
            data_root=work.data_root,
            recipe=work.budget.recipe,
            device=work.device,
            precision=work.budget.precision,
            resume=StateStore(run).exists(),
            stop_after=work.left,
            save_every=work.save_every,
            **options,
        )
        return run if stored else Outcome.TIME_UP


def _distilled(work: _Work, run: RunFolder, settings: DistillConfig) -> StoredManifest | None:
    """Session 0; None if time is up."""
    return distill(
        run=run.path,
        data_root=work.data_root,
        device=work.device,
        precision=work.budget.precision,
        resume=StateStore(run).exists(),
        stop_after=work.left,
        save_every=work.save_every,
        **asdict(settings),
    )
