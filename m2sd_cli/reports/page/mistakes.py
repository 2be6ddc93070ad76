"""The part of the page that needs test images: figures of classes, confused pairs, wrong answers with heat maps."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m2sd_cli.data.sources import ImageSource
from m2sd_cli.inference.explanation import explain, splits_its_score, why_no_maps
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.reports.evaluation import Evaluation
from m2sd_cli.reports.page.content import Pair, Tested, WrongImage
from m2sd_cli.reports.page.thumbnails import heat, heat_address, thumbnail
from m2sd_cli.reports.per_class import ClassFigures, class_figures, confused_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_WRONG, MOST_PAIRS, EXAMPLES = 24, 12, 3
SIDE = 96  # pixels of an image on the page


def tested_part(evaluation: Evaluation, model: SessionModel, source: ImageSource) -> Tested:
    """Make the part of the page of an evaluation.

    Args:
        evaluation: of the test images.
        model: the last session that was evaluated.
        source: the test images, in the order of the answers.
    """
    answers, names = evaluation.answers, evaluation.classes
    per_class = class_figures(answers.labels, answers.predicted, names, evaluation.taught)
    no_maps = why_no_maps(model)
    wrong = ((answers.labels >= 0) & (answers.labels != answers.predicted)).nonzero().flatten()
    return Tested(
        headline=_headline(evaluation),
        header=["session", "classes", "images", "overall", "base", "novel", "HM", "ECE", "AUROC", "FPR95"],
        rows=_session_rows(evaluation),
        per_class=per_class,
        orders=_orders(per_class),
        pairs=_pairs(evaluation, per_class, model, source),
        wrong=_wrong_images(_spread(wrong, MOST_WRONG), evaluation, model, source, with_maps=no_maps is None),
        wrong_count=len(wrong),
        heat_reason=_heat_reason(model) if no_maps is None else f"There are no heat maps: {no_maps}.",
        remarks=_remarks(evaluation),
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _headline(evaluation: Evaluation) -> list[tuple[str, str]]:
    figures, last = evaluation.figures, evaluation.figures.sessions[-1]
    named = [("overall", last.overall), ("base", last.base), ("novel", last.novel), ("HM", last.harmonic)]
    if len(figures.sessions) > 1:
        named += [("AVG", figures.average), ("AHM", figures.average_harmonic), ("PD", figures.drop)]
    return [(name, f"{value:.1f}") for name, value in named if value is not None]


def _session_rows(evaluation: Evaluation) -> list[list[str]]:
    trust = {each.session: (each.ece, each.auroc, each.fpr95) for each in evaluation.calibration}
    return [
        [
            *map(str, (each.session, each.classes, each.images)),
            *map(_figure, (each.overall, each.base, each.novel, each.harmonic)),
            *map(_figure, trust.get(each.session, (None,) * 3)),
        ]
        for each in evaluation.figures.sessions
    ]


def _remarks(evaluation: Evaluation) -> list[str]:
    remarks = []
    if not evaluation.confidence.calibrated:
        remarks.append("No ECE, AUROC and FPR95: no base images were held out to calibrate probabilities with")
    if evaluation.untested:
        remarks.append(f"Without test images, and left out: {', '.join(evaluation.untested)}")
    if evaluation.unknown:
        remarks.append(f"Test images of classes not taught: {', '.join(evaluation.unknown)}")
    if evaluation.skipped:
        remarks.append(f"Test images that cannot be read, and were left out: {len(evaluation.skipped)}")
    return remarks


def _orders(rows: list[ClassFigures]) -> list[str]:
    """Return the place of each class in every order, as variables of CSS; a class without the figure comes last."""

    def lowest(value: float | None) -> float:
        return 101.0 if value is None else value

    keys: dict[str, Callable[[ClassFigures], float | str]] = {
        "session": lambda row: row.session,
        "f1": lambda row: lowest(row.f1),
        "precision": lambda row: lowest(row.precision),
        "recall": lambda row: lowest(row.recall),
        "images": lambda row: -row.images,
        "name": lambda row: row.name.casefold(),
    }
    places = [""] * len(rows)
    for name, key in keys.items():
        for place, number in enumerate(sorted(range(len(rows)), key=lambda each: key(rows[each]))):
            places[number] += f"--{name}:{place};"
    return places


def _spread(indices: Tensor, most: int) -> Tensor:
    """Choose at most `most` of the indices, at equal distances."""
    count = min(len(indices), most)
    return indices[torch.arange(count) * len(indices) // max(count, 1)]


def _pixels(indices: Tensor, model: SessionModel, source: ImageSource) -> Tensor:
    """Read test images (N, 3, S, S) uint8 after the test transform."""
    chosen = source.select(indices, torch.zeros_like(indices))
    batches = [pixels for pixels, _ in chosen.batches(model.transform, MOST_WRONG)]
    return torch.cat(batches) if batches else torch.empty(0, 3, 1, 1, dtype=torch.uint8)


def _pairs(evaluation: Evaluation, rows: list[ClassFigures], model: SessionModel, source: ImageSource) -> list[Pair]:
    answers, names = evaluation.answers, evaluation.classes
    pairs = []
    for true, answer, images in confused_pairs(answers.labels, answers.predicted, MOST_PAIRS):
        found = ((answers.labels == true) & (answers.predicted == answer)).nonzero().flatten()[:EXAMPLES]
        examples = [thumbnail(pixels, SIDE // 2) for pixels in _pixels(found, model, source)]
        pairs.append(Pair(names[true], names[answer], images, 100 * images / rows[true].images, examples))
    return pairs


def _wrong_images(
    indices: Tensor, evaluation: Evaluation, model: SessionModel, source: ImageSource, with_maps: bool
) -> list[WrongImage]:
    if not len(indices):
        return []
    answers, names = evaluation.answers, evaluation.classes
    classes = torch.stack([answers.predicted[indices], answers.labels[indices]], dim=1)
    pixels = _pixels(indices, model, source)
    maps = [heat(each) for each in explain(model, pixels, classes)] if with_maps else [None] * len(pixels)
    entries = []
    for image, both, (answer, true) in zip(pixels, maps, classes.tolist(), strict=True):
        addresses = None if both is None else (heat_address(both[0]), heat_address(both[1]))
        entries.append(WrongImage(thumbnail(image, SIDE), names[true], names[answer], addresses))
    return entries


def _heat_reason(model: SessionModel) -> str:
    shown = (
        "From left to right: the image as the network sees it, what speaks for the answer, what speaks for the true "
        "class; both on one scale."
    )
    if splits_its_score(model):
        return f"{shown} The mean of a map is the score that {model.classifier} gives the class, but for its bias."
    return (
        f"{shown} The mean of a map is the similarity of the image to the class mean. {model.classifier} looks at more "
        f"than this similarity, and its own score cannot be split over the image, so that a map may speak for another "
        f"class."
    )
