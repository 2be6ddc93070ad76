"""Evaluation of every session of a chain in one pass over the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.names import class_name
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DataError
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.calibration import Confidence
from m2sd_cli.progress import Pass
from m2sd_cli.reports.answers import Answers, gather_answers, session_answers
from m2sd_cli.reports.calibration import SessionCalibration, chain_calibration
from m2sd_cli.reports.metrics import Figures, chain_figures


class Embedded(NamedTuple):
    """Test images and class means in the space of the features, on the CPU."""

    features: Tensor  # (N, D) of the test images, in the order of the answers
    means: Tensor  # (C, D), in the order of the classes


@dataclass(frozen=True)
class Evaluation:
    """Figures of a chain on one set of test images."""

    figures: Figures
    calibration: list[SessionCalibration]  # of the same sessions; none if nothing was fitted on base images
    confidence: Confidence  # that was fitted
    classifier: str  # that answered
    answers: Answers  # to every test image, labels as in `classes`
    classes: list[str]
    untested: list[str]  # classes of the chain without a test image
    unknown: list[str]  # classes of the test images that the chain does not know
    embedded: Embedded | None = None  # if it was asked for
    skipped: Sequence[Skipped] = ()  # test images that cannot be read and were left out, if that was asked for


def evaluate_session(
    model: SessionModel,
    source: ImageSource,
    names: list[str],
    where: str,
    keep: bool = False,
    group: ProcessGroup = SINGLE_PROCESS,
    keep_features: bool = False,
) -> Evaluation:
    """Evaluate all sessions up to the model's, with its classifier.

    Args:
        model: the newest session to evaluate.
        source: test images; its labels index `names`.
        names: what the labels mean. A class is known by its name.
        where: the folder of the test images, for messages.
        keep: whether to keep what has to be decoded, for the next evaluation.
        group: whose processes share the images; all of them get the figures of all images.
        keep_features: whether to return the features, too.

    Raises:
        DataError: no test image is of a class that the model knows, or a picture cannot be read.
    """
    # By the composed form, too: a data set of another package may name a class in another form than a folder does.
    index = {class_name(name): number for number, name in enumerate(model.classes)}
    index |= {name: number for number, name in enumerate(model.classes)}
    to_chain = torch.tensor([index.get(name, -1) for name in names], dtype=torch.int64)
    present = torch.unique(source.labels)
    unknown = [names[label] for label in present.tolist() if to_chain[label] < 0]
    if len(unknown) == len(present):
        raise DataError(f"{where}: no test image of a class that the model knows; classes are matched by name")
    to_chain = to_chain.to(model.means.device)
    shard = group.shard(len(source))
    with group.local_main_first():  # which decodes what is kept
        images = (source.for_testing if keep else source.batches)(model.transform, FEATURE_BATCH, shard)
    steps = Pass("evaluating", shard.stop - shard.start)
    # Begins with no images: there may be fewer images than processes.
    parts = [session_answers(model.classify(model.means[:0]), to_chain[:0], model.sizes, model.confidence)]
    kept = [model.means[:0].cpu().flatten()]
    for features, labels in embed_batches(model.backbone, images, model.transform, model.precision):
        if keep_features:
            kept.append(features.cpu().flatten())
        parts.append(session_answers(model.classify(features), to_chain[labels], model.sizes, model.confidence))
        steps.add(len(labels))
    answers = gather_answers(parts, group)
    embedded = None
    if keep_features:
        features = group.all_gather(torch.cat(kept)).view(-1, model.record.width)
        embedded = Embedded(features, model.means.cpu())
    known = answers.labels >= 0
    tested = set(answers.labels.tolist())
    return Evaluation(
        figures=chain_figures(answers.labels[known], answers.lost[known], model.sizes),
        calibration=chain_calibration(answers, model.sizes) if model.confidence.calibrated else [],
        confidence=model.confidence,
        classifier=model.classifier,
        answers=answers,
        classes=model.classes,
        untested=[name for number, name in enumerate(model.classes) if number not in tested],
        unknown=unknown,
        embedded=embedded,
    )
