"""Ablation: stage 1 once a seed, then every row of the table from there, each in a run folder of its own.

Several processes may share a table. Each run and each stage 1 has a lock, and a result beside the run tells that the
run has ended; nothing else is shared. Rows that differ in stage 2 alone have one stage 1, and rows that differ in their
classifier alone one network. A mark beside the runs tells that such a training has diverged; it is not tried again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.ablation.records import COMMAND, Budget, Result, Run, begin, divergence, read_results, recorded_budget
from m2sd_cli.ablation.rows import choose_seeds
from m2sd_cli.api.base_session import copy_session_0
from m2sd_cli.api.course import untold
from m2sd_cli.api.distill import distill
from m2sd_cli.api.evaluate import evaluate
from m2sd_cli.api.increment import increment
from m2sd_cli.api.pretrain import pretrain
from m2sd_cli.api.stage import chosen_protocol
from m2sd_cli.api.sweep import RowOptions, Sweep, measured_cost, require_same_parts, resolve_sweep
from m2sd_cli.config.idle import effective
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.split_list import read_list
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import DivergedError, InterruptedTrainingError, LockedError, UsageError
from m2sd_cli.paths import expand, expand_given
from m2sd_cli.progress import say
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.files import write_atomically
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import lock_folder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.execution import SAVE_EVERY


@dataclass(frozen=True)
class Ablation:
    """State of a table."""

    budget: Budget
    results: list[Result]  # of all calls so far
    finished: bool  # whether every run of this call has ended or diverged
    busy: list[str]  # runs of this call that other processes are at, as their folders are called
    diverged: list[str]  # runs of this call that have no result for that reason


class _TimeUpError(Exception):
    """End of the time limit, in a training or between two."""


class _MarkedError(Exception):
    """A training that has diverged, and is marked so."""


@dataclass(frozen=True)
class _Study:
    """Choices that all runs of a call share."""

    folder: Path
    sweep: Sweep
    budget: Budget  # with the rows of all calls
    data_root: Path | None
    device: str
    save_every: float
    deadline: float | None  # of time.monotonic

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def image_folder(self) -> str | None:
        """The folder of the images, if they are a folder's."""
        return self.sweep.data if self.sweep.info is None else None

    @contextmanager
    def marking(self, name: str) -> Iterator[None]:
        """Mark a training as diverged if its numbers turn out not to be finite.

        Raises:
            _MarkedError: they are not.
        """
        try:
            yield
        except DivergedError as error:
            mark = divergence(self.folder, name)
            mark.parent.mkdir(exist_ok=True)  # a run that wrote nothing has removed it
            write_atomically(mark, f"{error.reason}\n".encode())
            raise _MarkedError(error.reason) from None

    def train(
        self, name: str, stage: Callable[..., StoredManifest | None], run: RunFolder, **options: Any
    ) -> StoredManifest:
        """Begin or resume a training of a name, unless it has diverged before.

        Raises:
            _MarkedError: it has diverged, now or before.
            _TimeUpError: the time limit ended it.
        """
        mark = divergence(self.folder, name)
        if mark.exists():
            raise _MarkedError(f"{mark} is there")
        with self.marking(name):
            stored = stage(
                run=run.path,
                data_root=self.data_root,
                device=self.device,
                precision=self.budget.precision,
                compile=self.budget.compiled,
                deterministic=self.budget.deterministic,
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
    seeds: int | str | Sequence[int] = 3,
    rows: str | Sequence[str] | None = None,
    rows_file: Path | str | None = None,
    shared_stage_1: bool = False,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    deterministic: bool = False,
    stop_after: float | None = None,
    save_every: float = SAVE_EVERY,
    base_classes: int | None = None,
    way: int | None = None,
    shots_per_class: int | None = None,
    class_order: Path | str | int | None = None,
    shots_draw: int | None = None,
    split: Path | str | None = None,
) -> Ablation:
    """Train every row with every seed on one budget, teach all official sessions, and evaluate.

    A run that an earlier call finished is skipped, and one that was cut off is resumed. A run whose training diverges
    is left without a result, and no call tries it again. Seeds and rows may differ from call to call; nothing else
    that decides a result may. Calls of several processes share the runs. Each takes the runs that no other works on,
    and waits only for a stage 1 that it needs.

    Args:
        out: the folder for runs and results.
        data: a built-in data set, or a folder that `split` divides; else the one that the file or the recipe names,
            else cifar100.
        recipe: that every run follows, but for the changes of its row.
        config: a TOML file with the tables [pretrain] and [distill], for every run; it wins over the recipe.
        images_per_class: of the base classes, for both stages; None for what the file or the recipe says, else all.
        pretrain_epochs, epochs: of stage 1, and of stage 2 in every row.
        seeds: how many: 0, 1, ...; or which, as [0, 2, 5], or "0,2,5", or "0..4".
        rows: their names; None for all, which are those of `rows_file` if it is given.
        rows_file: a TOML file with rows of one's own, see `read_rows`.
        shared_stage_1: begin all seeds from the stage 1 of seed 0, instead of each from its own.
        data_root: the folder of built-in data sets.
        device, precision: of training; `auto` chooses, and a table keeps the precision that it began with.
        compile, deterministic: compile the networks with torch.compile first; use the slower algorithms on CUDA that
            repeat exactly.
        stop_after: seconds after which to save and stop.
        save_every: seconds between two saves of the resumable state.
        base_classes, way, shots_per_class, class_order, shots_draw, split: as for `pretrain`, for every row.

    Raises:
        M2sdError: one of its kinds; the runs that have ended by then are kept.
    """
    if is_distributed():
        raise UsageError("an ablation runs as one process, or as several of its own; begin it without torchrun")
    folder, root = expand(out, "--out"), expand_given(data_root, "--data-root")
    chosen_seeds = choose_seeds(seeds)
    sweep = resolve_sweep(
        folder,
        {
            "data": data,
            "recipe": recipe,
            "config": config,
            "images_per_class": images_per_class,
            "pretrain_epochs": pretrain_epochs,
            "epochs": epochs,
            "rows": rows,
            "rows_file": rows_file,
            "shared_stage_1": shared_stage_1,
            "device": device,
            "precision": precision,
            "compile": compile,
            "deterministic": deterministic,
            "base_classes": base_classes,
            "way": way,
            "shots_per_class": shots_per_class,
            "class_order": class_order,
            "shots_draw": shots_draw,
            "split": split,
        },
    )
    deadline = None if stop_after is None else time.monotonic() + stop_after
    runs = [(Run(folder, seed, row.row.name), row) for seed in chosen_seeds for row in sweep.rows]
    stored = recorded_budget(folder, sweep.budget)
    if stored is not None:
        require_same_parts(folder, stored)
    busy: list[str] = []
    if stored is None or not all(run.has_ended for run, _ in runs):
        read_results(folder, list(sweep.budget.described()))  # a damaged one is named before hours are spent
        sessions = _count_sessions(sweep, root)
        study = _Study(folder, sweep, begin(folder, sweep.budget), root, device, save_every, deadline)
        stored = study.budget
        try:
            busy = _run_all(study, runs, sessions)
        except _TimeUpError:
            pass
        except InterruptedTrainingError as error:
            raise type(error)("interrupted; go on with the same command") from None
    results = read_results(folder, list(stored.described()))
    left = [run for run, _ in runs if not run.has_ended]
    diverged = [run.name for run in left if run.has_diverged(stored)]
    return Ablation(stored, results, len(left) == len(diverged), busy, diverged)


def _count_sessions(sweep: Sweep, data_root: Path | None) -> dict[str, int]:
    """Count the sessions after session 0 that every row teaches; this may download a data set.

    Returns:
        the number by the name of stage 1.
    """
    sessions: dict[str, int] = {}
    for each in sweep.rows:
        if each.record.stage_1 not in sessions:
            config = each.pretrain
            folder: dict[str, Any] = {}
            if config.split is not None:
                listed = read_list(expand(config.split, "--split"))
                folder = {"image_size": config.image_size, "transform": config.transform, "listed": listed}
            protocol = chosen_protocol(sweep.info, config)
            opened = open_data(sweep.data, data_root, protocol=protocol, **folder)
            sessions[each.record.stage_1] = opened.sessions
    return sessions


def _run_all(study: _Study, runs: Sequence[tuple[Run, RowOptions]], sessions: Mapping[str, int]) -> list[str]:
    """Train and evaluate every run that has no result yet, seed by seed.

    Returns:
        the names of the runs that other processes are at.

    Raises:
        _TimeUpError: the time limit has come.
    """
    busy: list[str] = []
    for wait in (False, True):  # first the runs that need nobody, then those whose stages another process trains
        busy.clear()
        for number, (run, row) in enumerate(runs, 1):
            if run.has_ended or run.has_diverged(study.budget):
                continue
            try:
                _finish(study, run, row, f"run {number} of {len(runs)}", sessions[row.record.stage_1], wait)
            except LockedError:
                busy.append(run.name)
                if wait and study.seconds_left == 0:
                    raise _TimeUpError from None
                continue
            except _MarkedError as error:
                say(f"seed {run.seed}, {run.row} diverged: {error}")
            if study.seconds_left == 0:
                raise _TimeUpError
    return busy


def _finish(study: _Study, run: Run, row: RowOptions, number: str, sessions: int, wait: bool) -> None:
    """Train and evaluate one run from wherever it was cut off.

    Raises:
        LockedError: another process is at it; or at a stage that it shares, unless to `wait` for that.
        _MarkedError: a training has diverged.
        _TimeUpError: the time limit ended a training.
    """
    seed, folder = run.seed, RunFolder(run.path)
    with _lock(study, run.name):
        if run.has_ended:  # meanwhile, by another process
            return
        if not folder.has_pretrain():
            first = _stage_1(study, run, row, wait)
            with folder.locked(COMMAND):
                folder.copy_pretrain(first)
        what = f" ({row.row.description})" if row.row.description else ""
        say(f"{number}: seed {seed}, {row.row.name}{what}")
        base = folder.session(0) if folder.sessions() else _stage_2(study, run, row, wait)
        for session in range(len(folder.sessions()), sessions + 1):
            with study.marking(run.trainings(study.budget)[1]):  # its features may be no numbers for some images alone
                increment(
                    session, run=folder.path, data=study.image_folder, data_root=study.data_root, device=study.device
                )
        evaluation = evaluate(run=folder.path, data=study.image_folder, data_root=study.data_root, device=study.device)
        images = sum(each.shots for each in base.manifest.classes)
        steps = row.distill.epochs * len(batch_bounds(images, row.distill.batch_size))
        result = Result.of(
            evaluation.figures,
            seed=seed,
            row=row.row.name,
            seconds=base.manifest.seconds,
            ms_per_step=1000 * base.manifest.seconds / steps if steps else 0.0,
            classifier=evaluation.classifier,
            backbone=base.manifest.backbone.name,
            sha256=folder.chain()[-1].record.sha256,
        )
        run.end(result)
    figures = {"AVG": result.average, "last": result.last, "novel": result.novel, "HM": result.harmonic}
    told = ", ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in figures.items())
    say(f"seed {seed}, {row.row.name}: {told}")


def _stage_1(study: _Study, run: Run, row: RowOptions, wait: bool) -> RunFolder:
    """Return the folder that holds the stage 1 of a run, trained now if it is not there.

    Raises:
        LockedError: another process is at it, for longer than may be waited.
        _MarkedError: it has diverged.
        _TimeUpError: the time limit ended it.
    """
    name, _ = run.trainings(study.budget)
    seed = 0 if study.budget.shared_stage_1 else run.seed
    told = f"stage 1 of seed {seed}" if row.record.stage_1 == "stage-1" else f"stage 1 of seed {seed} for {run.row}"
    first = RunFolder(study.folder / name)
    if first.has_pretrain():
        return first
    if wait:
        say(f"waiting for {told}")
    with _lock(study, name, study.seconds_left if wait else 0.0):
        if not first.has_pretrain():
            say(told)
            options = {**effective(row.pretrain), "seed": seed}
            with untold():  # the stages 2 are those of the rows
                study.train(name, pretrain, first, data=study.sweep.data, recipe=study.budget.recipe, **options)
    return first


def _stage_2(study: _Study, run: Run, row: RowOptions, wait: bool) -> StoredManifest:
    """Make session 0 of a run: of the network of a row that differs in its classifier alone, or by training.

    Raises:
        LockedError: another process trains the network, for longer than may be waited.
        _MarkedError: the training has diverged.
        _TimeUpError: the time limit ended the training.
    """
    cost = measured_cost(row.pretrain, row.distill, find_recipe(study.budget.recipe))
    options = {**effective(row.distill), "base_cost": cost, "seed": run.seed, "data": study.image_folder}
    same = [
        RunFolder(Run(study.folder, run.seed, name).path)
        for name, other in study.budget.rows.items()
        if row.distill.epochs and name != run.row and other.network == row.record.network
    ]
    _, name = run.trainings(study.budget)
    lock = _lock(study, name, study.seconds_left if wait else 0.0) if same else nullcontext()
    with lock:
        trained = next((other for other in same if other.sessions()), None)
        if trained is not None:
            say(f"the network is that of {trained.path.name}, with another classifier")
            return copy_session_0(trained, RunFolder(run.path), row.distill)
        return study.train(name, distill, RunFolder(run.path), **options)


def _lock(study: _Study, name: str, patience: float | None = 0.0) -> AbstractContextManager[None]:
    """Hold a run for this process, for longer than one command locks its folder.

    Raises:
        LockedError: another process still is after so many seconds; None waits for as long as it takes.
    """
    return lock_folder(study.folder / f".{name.replace('/', '-')}", COMMAND, -1 if patience is None else patience)
