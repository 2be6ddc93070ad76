"""Evaluation of every session of a chain in one pass over the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DataError
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.calibration import Confidence
from m2sd_cli.progress import Pass
from m2sd_cli.reports.answers import Answers, gather_answers, session_answers
from m2sd_cli.reports.calibration import SessionCalibration, chain_calibration
from m2sd_cli.reports.metrics import Figures, SessionFigures, class_accuracies, session_figures, summarise


class Embedded(NamedTuple):
    """Test images and class means in the space of the features, on the CPU."""

    features: Tensor  # (N, D) of the test images, in the order of the answers
    means: Tensor  # (C, D), in the order of the classes


class ClassAccuracies(NamedTuple):
    """Accuracies of every class in consecutive sessions, each of which only adds classes to the one before."""

    classes: list[str]
    indices: list[int]  # of the classes in the chain, where a class keeps its index
    first: int  # the number of the first session
    sessions: list[Tensor]  # (C_b,) float32 in per cent, of the first C_b classes; nan of a class without an image


@dataclass(frozen=True)
class Evaluation:
    """Figures of a chain on one set of test images."""

    figures: Figures
    calibration: list[SessionCalibration]  # of the same sessions; none if nothing was fitted on base images
    confidence: Confidence  # that was fitted
    classifier: str  # that answered
    answers: Answers  # of the last session, and of those before it that only lack classes; labels index `classes`
    sizes: list[int]  # classes known after each session of `answers`
    classes: list[str]  # that the last session knows
    taught: list[int]  # the session that taught each of `classes` first
    untested: list[str]  # those of `classes` without a test image
    unknown: list[str]  # classes of the test images that the last session does not know
    embedded: Embedded | None = None  # if it was asked for
    accuracies: Sequence[ClassAccuracies] = ()  # of all sessions
    skipped: Sequence[Skipped] = ()  # test images that cannot be read and were left out, if that was asked for


def evaluate_session(
    models: Sequence[SessionModel],
    source: ImageSource,
    names: list[str],
    where: str,
    keep: bool = False,
    group: ProcessGroup = SINGLE_PROCESS,
    keep_features: bool = False,
) -> Evaluation:
    """Evaluate all sessions of the models, with their classifier.

    Args:
        models: of `load_all_sessions`, or one model that answers for all sessions.
        source: test images; its labels index `names`.
        names: a name of the class of each label.
        where: the folder of the test images, for messages.
        keep: cache the decoded images for the next evaluation.
        group: whose processes share the images; all of them get the figures of all images.
        keep_features: return the features, too.

    Raises:
        DataError: no test image is of a class that the last session knows, or an image cannot be read.
    """
    model = models[-1]
    places = [each.find(names).to(each.means.device) for each in models]
    present = torch.unique(source.labels)
    unknown = [names[label] for label in present.tolist() if places[-1][label] < 0]
    if len(unknown) == len(present):
        raise DataError(f"{where}: no test image of a class that the model knows; classes are matched by name")

    def answer(features: Tensor, labels: Tensor) -> list[Answers]:
        return [
            session_answers(
                logits := each.classify(features),
                place[labels],
                each.sizes,
                each.confidence,
                each.recognise(features, logits),
            )
            for each, place in zip(models, places, strict=True)
        ]

    shard = group.shard(len(source))
    with group.local_main_first():  # so that one process of a machine decodes the images for the cache
        images = (source.for_testing if keep else source.batches)(model.transform, FEATURE_BATCH, shard)
    steps = Pass("evaluating", shard.stop - shard.start)
    # A first part without images, since a process has none if there are fewer images than processes.
    kept = [model.means[:0].cpu().flatten()]
    parts = [answer(model.means[:0], torch.empty(0, dtype=torch.int64, device=model.means.device))]
    for features, labels in embed_batches(model.backbone, images, model.transform, model.precision):
        if keep_features:
            kept.append(features.cpu().flatten())
        parts.append(answer(features, labels))
        steps.add(len(labels))
    figures: list[SessionFigures] = []
    calibration: list[SessionCalibration] = []
    accuracies: list[ClassAccuracies] = []
    highest = torch.full((1 + max(index for each in models for index in each.indices),), torch.nan).double()
    for each, batches in zip(models, zip(*parts, strict=True), strict=True):
        answers = gather_answers(batches, group)
        known = answers.labels >= 0
        labels, lost, lost_top5 = answers.labels[known], answers.lost[known], answers.lost_top5[known]
        of_chain = torch.tensor(each.indices)
        figures += session_figures(labels, lost, each.sizes, each.base, each.first, lost_top5, highest[of_chain])
        of_classes = class_accuracies(labels, lost, each.sizes)
        for accuracy in of_classes:
            taught = of_chain[: len(accuracy)]
            highest[taught] = torch.fmax(highest[taught], accuracy)
        accuracies.append(
            ClassAccuracies(each.classes, each.indices, each.first, [accuracy.float() for accuracy in of_classes])
        )
        if each.confidence.calibrated:
            calibration += chain_calibration(answers, each.sizes, each.first)
    embedded = None
    if keep_features:
        features = group.all_gather(torch.cat(kept)).view(-1, model.means.shape[1])
        embedded = Embedded(features, model.means.cpu())
    tested = set(answers.labels.tolist())
    return Evaluation(
        figures=summarise(figures),
        calibration=calibration,
        confidence=model.confidence,
        classifier=model.classifier,
        answers=answers,
        sizes=model.sizes,
        classes=model.classes,
        taught=model.taught,
        untested=[name for number, name in enumerate(model.classes) if number not in tested],
        unknown=unknown,
        accuracies=accuracies,
        embedded=embedded,
    )
