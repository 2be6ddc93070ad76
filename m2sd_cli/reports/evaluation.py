"""Evaluating every session of a chain in one pass over the test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.names import class_name
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DataError
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.calibration import Confidence
from m2sd_cli.progress import Pass
from m2sd_cli.reports.calibration import Calibration, SessionCalibration
from m2sd_cli.reports.metrics import Figures, Pairs, Tally


@dataclass(frozen=True)
class Evaluation:
    """The figures of a chain on one set of test images."""

    figures: Figures
    calibration: list[SessionCalibration]  # of the same sessions; none if nothing was fitted on base images
    confidence: Confidence  # that was fitted
    classifier: str  # that answered
    confusion: Pairs | None  # of true class and answer after the last session, if they were asked for
    classes: list[str]
    untested: list[str]  # classes of the chain without a test image
    unknown: list[str]  # classes of the test images that the chain does not know
    skipped: Sequence[Skipped] = ()  # test images that cannot be read and were left out, if that was asked for


def evaluate_session(
    model: SessionModel,
    source: ImageSource,
    names: list[str],
    where: str,
    confusion: bool = False,
    keep: bool = False,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Evaluate all sessions up to the model's, with its classifier.

    Args:
        model: the newest session to evaluate.
        source: test images; its labels index `names`.
        names: what the labels mean. A class is known by its name.
        where: the test images' place, for messages.
        confusion: whether to count which class is taken for which.
        keep: whether to keep what has to be decoded, for the next evaluation.
        team: whose processes share the images; all of them get the figures of all images.

    Raises:
        DataError: no test image is of a class that the model knows, or a picture cannot be read.
    """
    # By the composed form, too: a chain of old may name a class in another Unicode form than today's folders do.
    index = {class_name(name): number for number, name in enumerate(model.classes)}
    index |= {name: number for number, name in enumerate(model.classes)}
    to_chain = torch.tensor([index.get(name, -1) for name in names], dtype=torch.int64)
    present = torch.unique(source.labels)
    unknown = [names[label] for label in present.tolist() if to_chain[label] < 0]
    if len(unknown) == len(present):
        raise DataError(f"{where}: no test image of a class that the model knows; classes are matched by name")
    device = model.means.device
    to_chain = to_chain.to(device)
    tally = Tally(model.sizes, device, confusion)
    calibration = Calibration(model.sizes, model.confidence, device) if model.confidence.calibrated else None
    rows = group.shard(len(source))
    with group.local_main_first():  # which decodes what is kept
        batches = (source.for_testing if keep else source.batches)(model.transform, FEATURE_BATCH, rows)
    steps = Pass("evaluating", rows.stop - rows.start)
    for features, labels in embed_batches(model.backbone, batches, model.transform, model.precision):
        logits, chain_labels = model.classify(features), to_chain[labels]
        if calibration is not None:
            calibration.add(logits, chain_labels)
        if unknown:  # else nobody has to wait for the device to tell which are known
            known = chain_labels >= 0
            logits, chain_labels = logits[known], chain_labels[known]
        tally.add(logits, chain_labels)
        steps.add(len(labels))
    tally.join(group.all_gather)
    if calibration is not None:
        calibration.join(group.all_gather)
    return Evaluation(
        figures=tally.figures(),
        calibration=calibration.figures() if calibration is not None else [],
        confidence=model.confidence,
        classifier=model.classifier,
        confusion=tally.confusion(),
        classes=model.classes,
        untested=[model.classes[number] for number in tally.untested],
        unknown=unknown,
    )
