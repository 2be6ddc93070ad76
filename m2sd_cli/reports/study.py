"""Several runs of one experiment: mean and deviation of every figure, session by session and class by class."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.evaluation import Evaluation
from m2sd_cli.reports.metrics import Figures
from m2sd_cli.reports.published import Comparison
from m2sd_cli.reports.spreadsheet import csv_line

OF_SESSION: Final = {
    "overall": "overall",
    "base": "base",
    "novel": "novel",
    "harmonic": "HM",
    "top5": "top-5",
    "forgetting": "forgetting",
}
OF_CHAIN: Final = {"average": "AVG", "average_harmonic": "AHM", "drop": "PD"}


@dataclass(frozen=True)
class StudiedRun:
    """The origin of a run's figures."""

    run: str  # its folder, as it was named
    sha256: str  # of the manifest of its last session
    seed: int  # of stage 1
    seed_of_distill: int
    data: str
    backbone: str
    recipe: str | None
    classifier: str


@dataclass(frozen=True)
class Sample:
    """A figure of every run, in the order of the runs."""

    values: list[float | None]  # None for a run without the figure

    @property
    def summary(self) -> MeanAndDeviation | None:
        """Mean and deviation; None unless every run has the figure."""
        known = [each for each in self.values if each is not None]
        return MeanAndDeviation.of(known) if len(known) == len(self.values) else None


@dataclass(frozen=True)
class StudiedSession:
    """The figures of a session."""

    session: int
    classes: int
    images: list[int]  # of each run
    figures: Mapping[str, Sample]  # by the names of OF_SESSION


@dataclass(frozen=True)
class StudiedClass:
    """The accuracies of a class."""

    name: str
    sessions: Mapping[int, Sample]  # by the number of a session in which some run knows the class


@dataclass(frozen=True)
class Study:
    """Figures of several runs on the test images of one data set, in per cent."""

    runs: list[StudiedRun]
    figures: list[Figures]  # of each run
    sessions: list[StudiedSession]
    chain: Mapping[str, Sample]  # by the names of OF_CHAIN
    classes: list[StudiedClass]  # in the order of the first run
    differences: list[str]  # between the runs, as sentences
    comparison: Comparison | None = None  # of all runs, see `joined`, if it was asked for
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)  # of each run by its name


def study_sessions(figures: Sequence[Figures]) -> list[StudiedSession]:
    """Put the figures of every session side by side.

    Args:
        figures: of runs with the same sessions.
    """
    return [
        StudiedSession(
            session=same[0].session,
            classes=same[0].classes,
            images=[each.images for each in same],
            figures={name: Sample([getattr(each, name) for each in same]) for name in OF_SESSION},
        )
        for same in zip(*(each.sessions for each in figures), strict=True)
    ]


def study_chain(figures: Sequence[Figures]) -> dict[str, Sample]:
    """Put AVG, AHM and PD side by side."""
    return {name: Sample([getattr(each, name) for each in figures]) for name in OF_CHAIN}


def study_classes(evaluations: Sequence[Mapping[str, Mapping[int, float | None]]]) -> list[StudiedClass]:
    """Put the accuracies of every class side by side.

    Args:
        evaluations: of each run `class_curves`.
    """
    studied = []
    for name in dict.fromkeys(name for each in evaluations for name in each):
        curves = [each.get(name, {}) for each in evaluations]
        numbers = sorted({number for curve in curves for number in curve})
        studied.append(StudiedClass(name, {n: Sample([curve.get(n) for curve in curves]) for n in numbers}))
    return studied


def class_curves(evaluation: Evaluation) -> dict[str, dict[int, float | None]]:
    """List the accuracy of every class in per cent by the number of the session, under its last name.

    A forgotten class is named with its index, if another class has the same last name.
    """
    last = {
        index: name for part in evaluation.accuracies for index, name in zip(part.indices, part.classes, strict=True)
    }
    bearers = Counter(last.values())
    names: dict[int, str] = {}
    final = {*evaluation.accuracies[-1].indices}
    for index, name in last.items():
        names[index] = name if index in final or bearers[name] == 1 else f"{name} (class {index}, forgotten)"
    curves: dict[str, dict[int, float | None]] = {names[index]: {} for index in sorted(names)}
    for part in evaluation.accuracies:
        for number, accuracies in enumerate(part.sessions, start=part.first):
            for index, accuracy in zip(part.indices, accuracies.tolist(), strict=False):
                curves[names[index]][number] = None if accuracy != accuracy else accuracy  # nan without an image
    return curves


def study_csv(study: Study) -> Iterator[bytes]:
    """Write every figure in a line of its own: mean, deviation with n - 1, and the value of each run, unrounded."""

    def figure(name: str, session: int | None, of_class: str | None, sample: Sample) -> bytes:
        summary = sample.summary
        both = (None, None) if summary is None else (summary.mean, summary.deviation)
        return csv_line(name, session, of_class, *both, *sample.values)

    yield csv_line("figure", "session", "class", "mean", "deviation", *(each.run for each in study.runs))
    for session in study.sessions:
        for name, sample in session.figures.items():
            yield figure(name, session.session, None, sample)
    for name, sample in study.chain.items():
        yield figure(name, None, None, sample)
    for each in study.classes:
        for number, sample in each.sessions.items():
            yield figure("accuracy", number, each.name, sample)
