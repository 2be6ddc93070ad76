"""Precision, recall and F1 of every class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.reports.metrics import harmonic_mean
from m2sd_cli.reports.spreadsheet import csv_line


@dataclass(frozen=True)
class ClassFigures:
    """Answers of the last session about one class, in per cent."""

    name: str
    session: int  # that taught the class first
    images: int  # test images of it
    answered: int  # test images whose answer was the class
    precision: float | None  # share of the answers with the class that are right; None if there are none
    recall: float | None  # share of its images that are answered rightly: its accuracy; None without an image
    f1: float | None  # harmonic mean of precision and recall; None without an image


def class_figures(labels: Tensor, predicted: Tensor, names: Sequence[str], taught: Sequence[int]) -> list[ClassFigures]:
    """Compute the figures of every class, in the order in which they were taught.

    Args:
        labels: (N,) true class of each image in [0, C), or negative for an image to leave out.
        predicted: (N,) answer to each image in [0, C).
        names: of the C classes.
        taught: the session of each class.
    """
    known = labels >= 0
    labels, predicted = labels[known], predicted[known]
    counts = (torch.bincount(each, minlength=len(names)).tolist() for each in (labels, predicted))
    hits = torch.bincount(labels[labels == predicted], minlength=len(names)).tolist()
    rows = []
    for name, session, images, answered, right in zip(names, taught, *counts, hits, strict=True):
        precision = 100 * right / answered if answered else None
        recall = 100 * right / images if images else None
        f1 = None if recall is None else harmonic_mean(precision or 0.0, recall)
        rows.append(ClassFigures(name, session, images, answered, precision, recall, f1))
    return rows


def confused_pairs(labels: Tensor, predicted: Tensor, most: int) -> list[tuple[int, int, int]]:
    """List the pairs (true class, answer, images) that are confused most often, the most frequent first.

    Args:
        labels: (N,) true class of each image, or negative for an image to leave out.
        predicted: (N,) answer to each image.
        most: pairs.
    """
    wrong = (labels >= 0) & (labels != predicted)
    pairs = torch.stack([labels[wrong], predicted[wrong]], dim=1)
    found, counts = torch.unique(pairs, dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:most]
    return [(*found[each].tolist(), int(counts[each])) for each in order.tolist()]


def per_class_csv(rows: Sequence[ClassFigures]) -> Iterator[bytes]:
    """Write the figures as a table that spreadsheets read; a missing figure is an empty cell."""
    yield csv_line("class", "session", "images", "precision", "recall", "f1")
    for each in rows:
        figures = (None if f is None else f"{f:.2f}" for f in (each.precision, each.recall, each.f1))
        yield csv_line(each.name, each.session, each.images, *figures)
