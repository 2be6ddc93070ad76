"""Figures of several runs of one experiment: mean, deviation and every run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.api.evaluate import evaluate
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.errors import UsageError
from m2sd_cli.paths import expand
from m2sd_cli.progress import say
from m2sd_cli.reading import quoted
from m2sd_cli.reports.evaluation import Evaluation
from m2sd_cli.reports.published import compare_with_published, joined
from m2sd_cli.reports.study import (
    StudiedRun,
    Study,
    class_curves,
    study_chain,
    study_classes,
    study_sessions,
)
from m2sd_cli.runs.classes import ChainClasses, TaughtClass
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.reader import PRETRAIN

NAMED = 3  # runs in a sentence


@dataclass(frozen=True)
class _Told:
    """A run, as its manifests tell of it."""

    name: str
    path: Path
    sha256: str  # of the last session's manifest
    first: Manifest
    sessions: list[Manifest]

    @property
    def base(self) -> Manifest:
        return self.sessions[0]

    @property
    def known(self) -> list[TaughtClass]:
        """The classes that it has not forgotten."""
        return ChainClasses.of(self.sessions).known


def study(
    runs: Iterable[Path | str],
    *,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    ignore_new: bool = False,
    classifier: str | None = None,
    base_cost: float | None = None,
    compare: bool = False,
) -> Study:
    """Evaluate runs that differ in seed, and average every figure.

    Args:
        runs: run folders of one data set, with the same sessions.
        compare: take along what is published for the data set and backbone of the first run.
        test, data, data_root, device, precision, skip_bad, ignore_new, classifier, base_cost: those of `evaluate`, for
            every run.

    Raises:
        UsageError: there is no run, one was given twice, or they are of other data or sessions.
        M2sdError: another one of its kinds, as `evaluate` raises them.
    """
    if isinstance(runs, str | Path):
        raise UsageError(f"study: {str(runs)!r} is one run; name several in a list")
    told = [_read(run) for run in runs]
    if not told:
        raise UsageError("study: name the runs, as 'm2sd study seed-0 seed-1 seed-2'")
    for number, each in enumerate(told[1:], start=1):
        _require_another(each, told[:number])
        _require_alike(told[0], each)
    differences = _differences(told)
    comparisons = {each.name: compare_with_published(each.first, each.sessions) for each in told} if compare else {}
    figures, curves, studied, images = [], [], [], []
    for each in told:
        say(f"run {each.name}")
        evaluation = evaluate(
            run=each.path,
            session=len(each.sessions) - 1,
            test=test,
            data=data,
            data_root=data_root,
            device=device,
            precision=precision,
            skip_bad=skip_bad,
            ignore_new=ignore_new,
            classifier=classifier,
            base_cost=base_cost,
        )
        figures.append(evaluation.figures)
        curves.append(class_curves(evaluation))
        images.append([session.images for session in evaluation.figures.sessions])
        studied.append(_describe(each, evaluation))
    differences += _different(studied, "classifier", [each.classifier for each in studied])
    if any(each != images[0] for each in images):
        differences.append("the runs were tested on different numbers of images")
    return Study(
        runs=studied,
        figures=figures,
        sessions=study_sessions(figures),
        chain=study_chain(figures),
        classes=study_classes(curves),
        differences=differences,
        comparison=joined(list(comparisons.values())) if comparisons else None,
        comparisons=comparisons,
    )


def _read(run: Path | str) -> _Told:
    folder = open_run(expand(run, "RUN"))
    stored = folder.chain()
    parent = stored[0].manifest.parent
    assert parent is not None
    first = folder.read(PRETRAIN, parent.sha256).manifest
    return _Told(str(run), folder.path, stored[-1].record.sha256, first, [each.manifest for each in stored])


def _describe(told: _Told, evaluation: Evaluation) -> StudiedRun:
    return StudiedRun(
        run=told.name,
        sha256=told.sha256,
        seed=told.first.seed,
        seed_of_distill=told.base.seed,
        data=told.base.data.name,
        backbone=told.base.backbone.name,
        recipe=told.base.recipe or told.first.recipe,
        classifier=evaluation.classifier,
    )


def _require_another(run: _Told, others: Sequence[_Told]) -> None:
    """Refuse a run that was given before, which would make the deviation too small.

    Raises:
        UsageError: it was, or a copy of it.
    """
    for other in others:
        if run.sha256 == other.sha256:
            raise UsageError(f"{run.name}: the same run as {other.name}; leave one of them out")


def _require_alike(one: _Told, other: _Told) -> None:
    """Refuse runs whose figures are of different things.

    Raises:
        UsageError: they have another data set, other sessions, or classes that the other one does not have.
    """
    both = f"{one.name} and {other.name}"
    first, second = one.base.data, other.base.data
    if (first.name, first.kind) != (second.name, second.kind):
        raise UsageError(f"{both}: of {first.name!r} and of {second.name!r}; study runs of one data set")
    if len(one.sessions) != len(other.sessions):
        raise UsageError(
            f"{both}: their last sessions are {len(one.sessions) - 1} and {len(other.sessions) - 1}; teach the "
            f"missing ones, or 'm2sd sessions undo' those that are too many"
        )
    for number, (here, there) in enumerate(zip(one.sessions, other.sessions, strict=True)):
        shapes = [f"{each.kind} of {len(each.edits or each.classes)} classes" for each in (here, there)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{both}: session {number} is {shapes[0]} in the first and {shapes[1]} in the second; leave one out"
            )
    names = [{each.name for part in run.sessions for each in part.classes} for run in (one, other)]
    if names[0] != names[1]:
        only = min(names[0] ^ names[1])
        raise UsageError(f"{both}: of other classes, such as {only!r}; study runs of one data set")
    known = [{(each.earlier_names or [each.name])[0] for each in run.known} for run in (one, other)]
    if known[0] != known[1]:
        only = min(known[0] ^ known[1])
        raise UsageError(f"{both}: one of them has forgotten {only!r}; study runs of the same classes")


def _differences(runs: Sequence[_Told]) -> list[str]:
    """Tell in sentences in what else than the seed the runs differ, as far as it decides what the mean is of."""
    told = _different(runs, "backbone", [each.base.backbone.name for each in runs])
    told += _different(runs, "recipe", [each.base.recipe or each.first.recipe or "none" for each in runs])
    told += _different(runs, "split", [each.base.data.split for each in runs])
    stages = (
        (1, options_of(PretrainConfig), [each.first.config for each in runs]),
        (2, options_of(DistillConfig), [each.base.config for each in runs]),
    )
    for stage, options, configs in stages:
        for name in sorted({name for each in configs for name in each}):
            # An earlier version, which did not have the option, did what its default does.
            missing = options[name].default if name in options else None
            values = [str(each.get(name, missing)) for each in configs]
            if name not in ("seed", "backbone"):
                told += _different(runs, f"{name.replace('_', '-')} of stage {stage}", values)
    plugins = [each.first.plugins | each.base.plugins for each in runs]
    for name in sorted({name for each in plugins for name in each}):
        told += _different(runs, f"the file or package of {name}", [each.get(name, "none") for each in plugins])
    views = [", ".join(str(part.views) for part in run.sessions if part.views) for run in runs]
    told += _different(runs, "views of the sessions after session 0", views)
    names = [", ".join(sorted(each.name for each in run.known if each.earlier_names)) for run in runs]
    told += _different(runs, "names of renamed classes", names)
    orders = [[[each.name for each in part.classes] for part in run.sessions] for run in runs]
    if any(each != orders[0] for each in orders):
        told.append("the runs teach the classes in different sessions or another order")
    if any(
        [each.digest for each in run.base.classes] != [each.digest for each in runs[0].base.classes] for run in runs
    ):
        told.append("the runs were trained on different images of the base classes")
    shots = [[each.shot_sha256 for part in run.sessions[1:] for each in part.classes] for run in runs]
    if any(each != shots[0] for each in shots):
        told.append("the runs were taught other shots")
    seeds = [(run.first.seed, run.base.seed) for run in runs]
    twice = sorted({each for each in seeds if seeds.count(each) > 1})
    if twice:
        told.append(f"runs have the same seed, {twice[0][0]}")
    return told


def _different(runs: Sequence[Any], what: str, values: Sequence[str]) -> list[str]:
    """Tell of a setting in which runs differ; nothing if they do not."""
    found = list(dict.fromkeys(values))
    if len(found) < 2:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"the {len(runs)} runs differ in {what}: {', '.join(map(quoted, found[:NAMED]))}{more}"]
