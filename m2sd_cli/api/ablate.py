"""Ablation: stage 1 once a seed, then every row of the table from there, each in a run folder of its own.

Several processes may share a table. Each run and each stage 1 has a lock, and a result beside the run tells that the
run has ended; nothing else is shared.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m2sd_cli.ablation.records import COMMAND, Budget, Result, Run, begin, has_begun, read_results
from m2sd_cli.ablation.rows import Row, choose_rows
from m2sd_cli.api.distill import distill
from m2sd_cli.api.evaluate import evaluate
from m2sd_cli.api.increment import increment
from m2sd_cli.api.pretrain import pretrain
from m2sd_cli.api.stage import chosen_protocol, named_data
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig, validate
from m2sd_cli.data.catalogue import find_info
from m2sd_cli.data.locate import open_data
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import InterruptedTrainingError, LockedError, UsageError
from m2sd_cli.inference.device import choose_device, training_precision
from m2sd_cli.paths import expand, expand_given, text_given
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
from m2sd_cli.training.initial_weights import file_digest, located, without_path

DATA = "cifar100"  # unless another is named


@dataclass(frozen=True)
class Ablation:
    """State of a table."""

    budget: Budget
    results: list[Result]  # of all calls so far
    finished: bool  # whether every run of this call has ended
    busy: list[str]  # runs of this call that other processes are at, as their folders are called


class _TimeUpError(Exception):
    """End of the time limit, in a training or between two."""


@dataclass(frozen=True)
class _Study:
    """Choices that all runs of a call share."""

    folder: Path
    budget: Budget
    init: str | None  # where the weights of stage 1 begin, if not at random
    data_root: Path | None
    device: str
    save_every: float
    deadline: float | None  # of time.monotonic

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def train(self, stage: Callable[..., StoredManifest | None], run: RunFolder, **options: Any) -> StoredManifest:
        """Begin or resume a training.

        Raises:
            _TimeUpError: the time limit ended it.
        """
        stored = stage(
            run=run.path,
            data_root=self.data_root,
            device=self.device,
            precision=self.budget.precision,
            resume=StateStore(run).exists(),
            stop_after=self.seconds_left,
            save_every=self.save_every,
            **options,
        )
        if stored is None:
            raise _TimeUpError
        return stored


def ablate(
    out: Path | str,
    *,
    data: Path | str | None = None,
    recipe: str | None = None,
    config: Path | str | None = None,
    images_per_class: int | None = None,
    pretrain_epochs: int | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    rows: str | Sequence[str] | None = None,
    shared_stage_1: bool = False,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    stop_after: float | None = None,
    save_every: float = SAVE_EVERY,
) -> Ablation:
    """Train every row with every seed on one budget, teach all official sessions, and evaluate.

    A run that an earlier call finished is skipped, and one that was cut off is resumed. Seeds and rows may differ
    from call to call; nothing else that decides a result may. Calls of several processes share the runs. Each takes
    the runs that no other works on, and waits only for a stage 1 that it needs.

    Args:
        out: the folder for runs and results.
        data: a built-in data set; else the one that the file or the recipe names, else cifar100.
        recipe: that every run follows, but for the changes of its row.
        config: a TOML file with the tables [pretrain] and [distill], for every run; it wins over the recipe.
        images_per_class: of the base classes, for both stages; None for what the file or the recipe says, else all.
        pretrain_epochs, epochs: of stage 1, and of stage 2 in every row.
        seeds: how many: 0, 1, ...
        rows: their names; None for all.
        shared_stage_1: begin all seeds from the stage 1 of seed 0, instead of each from its own.
        data_root: the folder of built-in data sets.
        device, precision: of training; `auto` chooses.
        stop_after: seconds after which to save and stop.
        save_every: seconds between two saves of the resumable state.

    Raises:
        M2sdError: one of its kinds; the runs that have ended by then are kept.
    """
    if is_distributed():
        raise UsageError("an ablation runs as one process, or as several of its own; begin it without torchrun")
    chosen = choose_rows(rows)
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1")
    if pretrain_epochs is not None and pretrain_epochs < 1:
        raise UsageError(f"--pretrain-epochs {pretrain_epochs}: at least 1")
    folder, computing = expand(out, "--out"), choose_device(device)
    root = expand_given(data_root, "--data-root")
    budget, init = _make_budget(
        text_given(data),
        recipe,
        expand_given(config, "--config"),
        {"epochs": pretrain_epochs, "images_per_class": images_per_class},
        {"epochs": epochs},
        shared_stage_1=shared_stage_1,
        device=computing.type,
        precision=training_precision(precision, computing),
    )
    # Options that do not go together are refused before anything is written and hours are spent.
    if budget.distill["epochs"] == 0:
        raise UsageError("--epochs 0: every row would be the same network")
    for row in chosen:
        loss_weights(_row_config(budget, row, 0))
    deadline = None if stop_after is None else time.monotonic() + stop_after
    study = _Study(folder, budget, init, root, device, save_every, deadline)
    runs = [Run(folder, seed, row) for seed in range(seeds) for row in chosen]
    busy: list[str] = []
    if not (has_begun(folder, budget) and all(run.has_ended for run in runs)):
        read_results(folder)  # a damaged one is named before hours are spent
        protocol = chosen_protocol(find_info(budget.data), validate(PretrainConfig, budget.pretrain))
        sessions = open_data(budget.data, root, protocol=protocol).sessions  # may download them
        begin(folder, budget)
        try:
            busy = _run_all(study, runs, sessions)
        except _TimeUpError:
            pass
        except InterruptedTrainingError:
            raise InterruptedTrainingError("interrupted and saved; go on with the same command") from None
    return Ablation(budget, read_results(folder), all(run.has_ended for run in runs), busy)


def _make_budget(
    data: str | None,
    recipe: str | None,
    config: Path | None,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    **shared: Any,
) -> tuple[Budget, str | None]:
    """Resolve the options of both stages now, so that no call goes on with others.

    Args:
        data, recipe, config: as for `ablate`.
        first, second: options of stage 1 and of stage 2 that win over the file.
        shared: the other fields of the budget.

    Returns:
        the budget, and where the weights of stage 1 begin.

    Raises:
        UsageError: a value does not fit, or the data set has no sessions of its own.
        DataError: a file of weights to begin from cannot be read.
    """
    followed = find_recipe(recipe)
    data = data or named_data(config, followed) or DATA
    info = find_info(data)
    if info is None:
        raise UsageError(f"--data {data}: a folder has no official sessions; name a built-in data set")
    one = located(resolve(PretrainConfig, Sources(info.defaults, config, first, followed.options)))
    two = resolve(DistillConfig, Sources(info.defaults, config, second, followed.options, init=one.init))
    if one.seed or two.seed:
        raise UsageError("a seed is set in the file of options; here the seeds are 0, 1, ..., as many as --seeds says")
    # Where a file of weights lies on this machine is nobody else's business.
    options = [asdict(replace(one, init=without_path(one.init))), asdict(two)]
    for each in options:
        del each["seed"]
    digest = file_digest(one.init)
    budget = Budget(
        data=data, recipe=followed.name, init_sha256=digest, pretrain=options[0], distill=options[1], **shared
    )
    return budget, one.init


def _row_config(budget: Budget, row: Row, seed: int) -> DistillConfig:
    options = {**budget.distill, **row.changes(budget.distill), "seed": seed}
    return validate(DistillConfig, options, f"the row {row.name}")


def _run_all(study: _Study, runs: Sequence[Run], sessions: int) -> list[str]:
    """Train and evaluate every run that has no result yet, seed by seed.

    Returns:
        the names of the runs that other processes are at.

    Raises:
        _TimeUpError: the time limit has come.
    """
    busy: list[str] = []
    for wait in (False, True):  # first the runs that need nobody, then those whose stage 1 another process trains
        busy.clear()
        for number, run in enumerate(runs, 1):
            if run.has_ended:
                continue
            try:
                _finish(study, run, f"run {number} of {len(runs)}", sessions, wait)
            except LockedError:
                busy.append(run.name)
                continue
            if study.seconds_left == 0:
                raise _TimeUpError
    return busy


def _finish(study: _Study, run: Run, number: str, sessions: int, wait: bool) -> None:
    """Train and evaluate one run from wherever it was cut off.

    Raises:
        LockedError: another process is at it; or at its stage 1, unless to `wait` for that.
        _TimeUpError: the time limit ended a training.
    """
    seed, row, folder = run.seed, run.row, RunFolder(run.path)
    with _lock(study, run.name):
        if run.has_ended:  # meanwhile, by another process
            return
        if not folder.has_pretrain():
            first = _stage_1(study, 0 if study.budget.shared_stage_1 else seed, wait)
            with folder.locked(COMMAND):
                folder.copy_pretrain(first)
        say(f"{number}: seed {seed}, {row.name} ({row.description})")
        config = _row_config(study.budget, row, seed)
        base = folder.session(0) if folder.sessions() else study.train(distill, folder, **asdict(config))
        for session in range(len(folder.sessions()), sessions + 1):
            increment(session, run=folder.path, data_root=study.data_root, device=study.device)
        figures = evaluate(run=folder.path, data_root=study.data_root, device=study.device).figures
        last = figures.sessions[-1]
        images = sum(each.shots for each in base.manifest.classes)
        steps = config.epochs * len(batch_bounds(images, config.batch_size))
        result = Result(
            seed=seed,
            row=row.name,
            session_0=require_figure(figures.sessions[0].overall),
            last=require_figure(last.overall),
            average=require_figure(figures.average),
            base=require_figure(last.base),
            novel=require_figure(last.novel),
            harmonic=require_figure(last.harmonic),
            seconds=base.manifest.seconds,
            ms_per_step=1000 * base.manifest.seconds / steps,
        )
        run.end(result)
    say(
        f"seed {seed}, {row.name}: AVG {result.average:.2f}, last {result.last:.2f}, novel {result.novel:.2f}, "
        f"HM {result.harmonic:.2f}"
    )


def _stage_1(study: _Study, seed: int, wait: bool) -> RunFolder:
    """Return the run that holds stage 1 of a seed, trained now if it is not there.

    Raises:
        LockedError: another process is at it, for longer than may be waited.
        _TimeUpError: the time limit ended it.
    """
    name = "stage-1" if study.budget.shared_stage_1 else f"seed-{seed}/stage-1"
    first = RunFolder(study.folder / name)
    if first.has_pretrain():
        return first
    if wait:
        say(f"waiting for stage 1 of seed {seed}")
    with _lock(study, name, study.seconds_left if wait else 0.0):
        if not first.has_pretrain():
            say(f"stage 1 of seed {seed}")
            options = {**study.budget.pretrain, "init": study.init, "seed": seed}
            study.train(pretrain, first, data=study.budget.data, recipe=study.budget.recipe, **options)
    return first


def _lock(study: _Study, name: str, patience: float | None = 0.0) -> AbstractContextManager[None]:
    """Hold a run for this process, for longer than one command locks its folder.

    Raises:
        LockedError: another process still is after so many seconds; None waits for as long as it takes.
    """
    return lock_folder(study.folder / f".{name.replace('/', '-')}", COMMAND, -1 if patience is None else patience)
