"""The table of figures; a figure is an entry here, and a module that draws it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from torch import Tensor

from m2sd_cli.reports.answers import class_sessions
from m2sd_cli.reports.evaluation import Evaluation
from m2sd_cli.reports.figures.accuracy import draw_accuracy, draw_last_session
from m2sd_cli.reports.figures.confusion_map import draw_confusion
from m2sd_cli.reports.figures.feature_map import draw_feature_map
from m2sd_cli.reports.figures.known_scores import draw_known_scores
from m2sd_cli.reports.figures.reliability import draw_reliability
from m2sd_cli.reports.figures.svg import LeftOutError
from m2sd_cli.reports.figures.training_curves import draw_training
from m2sd_cli.reports.published import Published
from m2sd_cli.runs.manifest import EpochRecord


@dataclass(frozen=True)
class History:
    """The epochs of a stage."""

    epochs: Sequence[EpochRecord]
    held_out: Mapping[int, float] = field(default_factory=dict)  # share of held-out images labelled rightly, by epoch


@dataclass(frozen=True)
class Material:
    """The facts of a run that figures are drawn of."""

    evaluation: Evaluation
    features: Tensor  # (N, D) of the test images, in the order of the answers
    means: Tensor  # class means (C, D)
    published: Sequence[Published]  # of the same data set and backbone; none unless the sessions are the official ones
    history: Mapping[int, History]  # of the stages, by number


class Figure(NamedTuple):
    """A figure of a run."""

    title: str
    caption: str
    draw: Callable[[Material], str]  # raises LeftOutError if the run lacks the facts


def _confusion(material: Material) -> str:
    evaluation = material.evaluation
    known = evaluation.answers.labels >= 0
    answers = evaluation.answers
    return draw_confusion(answers.labels[known], answers.predicted[known], evaluation.taught, evaluation.classes)


def _reliability(material: Material) -> str:
    answers = material.evaluation.answers
    known = answers.labels >= 0
    return draw_reliability(answers.probability[known, -1], answers.lost[known] >= answers.probability.shape[1])


def _known_scores(material: Material) -> str:
    """Draw the last session with test images of classes that it does not know; else the last of all."""
    evaluation = material.evaluation
    answers, sizes = evaluation.answers, evaluation.sizes
    place = class_sessions(sizes)[answers.labels]
    last = len(sizes) - 1
    column = max((each for each in range(len(sizes)) if bool((place > each).any())), default=last)
    session = evaluation.figures.sessions[-1].session - last + column
    score = answers.score[:, column].double()
    return draw_known_scores(score[place <= column], score[place > column], evaluation.confidence, session)


def _features(material: Material) -> str:
    labels = material.evaluation.answers.labels
    known = labels >= 0
    return draw_feature_map(material.features[known], labels[known], material.means, material.evaluation.taught)


def _training(stage: int) -> Callable[[Material], str]:
    return lambda material: draw_stage(stage, material.history[stage])


def draw_stage(stage: int, history: History) -> str:
    """Draw the curves of a stage.

    Raises:
        LeftOutError: the stage trained for no epoch.
    """
    epochs = history.epochs
    losses: dict[str, list[float | None]] = {"loss": [each.loss for each in epochs]} if epochs else {}
    for name in dict.fromkeys(name for each in epochs for name in each.terms):
        losses[name] = [each.terms.get(name) for each in epochs]
    shares = {"training images": [each.accuracy for each in epochs]}
    shares["held-out images"] = [history.held_out.get(each.epoch) for each in epochs]
    accuracies = {name: [None if each is None else 100 * each for each in line] for name, line in shares.items()}
    rates: dict[str, list[float | None]] = {"learning rate": [each.learning_rate for each in epochs]}
    return draw_training(f"Stage {stage}", losses, accuracies, rates)


FIGURES: Final[Mapping[str, Figure]] = {
    "accuracy": Figure(
        "Accuracy over sessions",
        "Top-1 after each session on the test images of all classes so far. Overall counts images; base and novel are "
        "means over classes, and HM is their harmonic mean. Thin lines, if any, are published methods with the same "
        "backbone, dotted where only their first and last session are known.",
        lambda material: draw_accuracy([material.evaluation.figures], material.published),
    ),
    "last-session": Figure(
        "After the last session",
        "Overall, base and novel accuracy, and HM.",
        lambda material: draw_last_session(material.evaluation.figures),
    ),
    "confusion": Figure(
        "Confusion",
        "Rows are true classes, columns the answers of the last session, both in the order in which they were taught.",
        _confusion,
    ),
    "reliability": Figure(
        "Reliability",
        "Bars above the dashed line: more answers are right than their probability says; below it: fewer.",
        _reliability,
    ),
    "known-scores": Figure(
        "Known or unknown",
        "Images of classes taught so far, and of classes not yet taught. An image is called unknown left of the "
        "dashed line, which 95 % of the held-out base images reach.",
        _known_scores,
    ),
    "features": Figure(
        "Features",
        "Test images (small) and class means (large) in the plane in which the directions of the features vary most "
        "(PCA). Classes that are apart in all dimensions may overlap here.",
        _features,
    ),
    "stage-1": Figure(
        "Training, stage 1",
        "Each epoch's mean over its steps. Closeness, where it has a weight, is taken from the loss, and stands here "
        "without the weight.",
        _training(1),
    ),
    "stage-2": Figure(
        "Training, stage 2",
        "Each epoch's mean over its steps; the terms of the loss without their weights.",
        _training(2),
    ),
}


def draw_all(material: Material) -> Iterator[tuple[str, str | LeftOutError]]:
    """Yield every figure by its name, or the reason why it is left out."""
    with torch.inference_mode():
        for name, figure in FIGURES.items():
            try:
                yield name, figure.draw(material)
            except LeftOutError as reason:
                yield name, reason


def draw_histories(histories: Mapping[int, History]) -> Iterator[tuple[str, str | LeftOutError]]:
    """Yield the figures that need no test images by their names, or the reason why one is left out."""
    for stage, history in histories.items():
        try:
            yield f"stage-{stage}", draw_stage(stage, history)
        except LeftOutError as reason:
            yield f"stage-{stage}", reason
