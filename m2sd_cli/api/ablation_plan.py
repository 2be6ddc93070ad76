"""The course of an ablation that has not begun: its trainings, those that rows share, and the time they would take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.ablation.records import Run, recorded_budget
from m2sd_cli.ablation.rows import choose_seeds
from m2sd_cli.api import pretrain as pretraining
from m2sd_cli.api.plan import require_present, time_stages
from m2sd_cli.api.stage import Request
from m2sd_cli.api.sweep import RowOptions, Sweep, require_same_parts, resolve_sweep
from m2sd_cli.config.idle import effective
from m2sd_cli.inference.device import choose_device
from m2sd_cli.paths import expand, expand_given
from m2sd_cli.progress import say
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.execution import Execution


@dataclass(frozen=True)
class FirstPlan:
    """A stage 1 that rows share."""

    stage_1: str  # its name
    epochs: int
    seconds: float  # of a training
    trainings: int  # that are left, over the seeds
    rows: list[str]


@dataclass(frozen=True)
class RowPlan:
    """A row and its stages."""

    row: str
    what: str
    stage_1: str
    stage_2: str  # the first row that has the same network
    epochs: int  # of stage 2
    seconds: float  # of a training of stage 2
    trainings: int  # of stage 2 that are left, over the seeds; those of the same network count once
    ended: int  # runs, over the seeds


@dataclass(frozen=True)
class AblationPlan:
    """An ablation that has not begun, or is not finished."""

    out: Path
    seeds: list[int]
    firsts: list[FirstPlan]
    rows: list[RowPlan]
    seconds: float  # of all trainings that are left, one after the other


def plan_ablation(
    out: Path | str,
    *,
    seeds: int | str | Sequence[int] = 3,
    data_root: Path | str | None = None,
    **options: Any,
) -> AblationPlan:
    """Tell what `ablate` would train and how long it would take, by the time of a few steps; nothing is written.

    Args:
        out, seeds, data_root: those of `ablate`.
        options: the other arguments of `ablate` that decide what is trained.

    Raises:
        M2sdError: as `ablate` raises them.
    """
    folder, root = expand(out, "--out"), expand_given(data_root, "--data-root")
    chosen = choose_seeds(seeds)
    sweep = resolve_sweep(folder, options)
    stored = recorded_budget(folder, sweep.budget)
    if stored is not None:
        require_same_parts(folder, stored)
    known = {**(stored.rows if stored else {}), **sweep.budget.rows}
    require_present(sweep.info, root)
    execution = Execution(
        choose_device(options.get("device", "auto")),
        sweep.budget.precision,
        compile=sweep.budget.compiled,
        deterministic=sweep.budget.deterministic,
    )
    by_first: dict[str, list[RowOptions]] = {}
    for each in sweep.rows:
        by_first.setdefault(each.record.stage_1, []).append(each)
    firsts, rows = [], []

    def seeds_of(row: RowOptions) -> list[int]:
        return [seed for seed in chosen if not Run(folder, seed, row.row.name).has_diverged(sweep.budget)]

    for name, sharing in by_first.items():
        say(f"timing {name}: {', '.join(each.row.name for each in sharing)}")
        networks = {each.record.network: each for each in reversed(sharing)}
        ordered = [each for each in sharing if networks[each.record.network] is each]
        job = _begin(sweep, sharing[0], folder, root, execution)
        _, _, (first, *seconds) = time_stages(job, [each.distill for each in ordered])
        stages = {each.record.network: stage for each, stage in zip(ordered, seconds, strict=True)}
        waiting = sorted({seed for each in sharing for seed in seeds_of(each)})
        left = _trainings_left(folder, name, sharing, waiting, sweep.budget.shared_stage_1)
        firsts.append(FirstPlan(name, first.epochs, first.seconds, left, [each.row.name for each in sharing]))
        for each in sharing:
            leader = networks[each.record.network]
            stage = stages[each.record.network]
            same = [name for name, other in known.items() if other.network == each.record.network]
            rows.append(
                RowPlan(
                    row=each.row.name,
                    what=each.row.description,
                    stage_1=name,
                    stage_2=leader.row.name,
                    epochs=stage.epochs,
                    seconds=stage.seconds,
                    trainings=_networks_left(folder, same, seeds_of(each)) if each is leader else 0,
                    ended=sum(Run(folder, seed, each.row.name).has_ended for seed in chosen),
                )
            )
    total = sum(each.trainings * each.seconds for each in firsts) + sum(each.trainings * each.seconds for each in rows)
    order = [each.row.name for each in sweep.rows]
    return AblationPlan(folder, chosen, firsts, sorted(rows, key=lambda each: order.index(each.row)), total)


def _begin(sweep: Sweep, row: RowOptions, folder: Path, data_root: Path | None, execution: Execution) -> Any:
    """Choose configuration and images of the stage 1 of a row, in a run folder that never comes to be."""
    budget = sweep.budget
    request = Request(sweep.data, data_root, budget.recipe, None, effective(row.pretrain))
    run = RunFolder(folder / row.record.stage_1)
    return pretraining.begin(request, find_recipe(budget.recipe), run, execution, force=True, skip_bad=False)


def _trainings_left(folder: Path, name: str, rows: Sequence[RowOptions], seeds: Sequence[int], shared: bool) -> int:
    """Count the trainings of a stage 1 that are left."""
    if all(_has_stage_1(folder, seed, row) for seed in seeds for row in rows):
        return 0
    if shared:
        return int(not RunFolder(folder / name).has_pretrain())
    waiting = [seed for seed in seeds if not all(_has_stage_1(folder, seed, row) for row in rows)]
    return sum(not RunFolder(folder / f"seed-{seed}" / name).has_pretrain() for seed in waiting)


def _has_stage_1(folder: Path, seed: int, row: RowOptions) -> bool:
    return RunFolder(Run(folder, seed, row.row.name).path).has_pretrain()


def _networks_left(folder: Path, same: Sequence[str], seeds: Sequence[int]) -> int:
    """Count the trainings of stage 2 that are left of a network that rows of these names share."""
    return sum(not any(RunFolder(Run(folder, seed, name).path).sessions() for name in same) for seed in seeds)
