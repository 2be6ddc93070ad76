"""Confusion matrix as a table that spreadsheets read."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from m2sd_cli.reports.spreadsheet import csv_line


def confusion_csv(classes: Sequence[str], labels: Tensor, predicted: Tensor) -> Iterator[bytes]:
    """Write the confusion matrix line by line: with many classes the whole table would not fit into memory.

    Rows are the true classes, columns the answers, cells the number of images; class names head both.

    Args:
        classes: C names.
        labels: (N,) true class of each image in [0, C), or negative for an image to leave out.
        predicted: (N,) answer to each image in [0, C).
    """
    yield csv_line("true \\ answer", *classes)
    known = labels >= 0
    labels, predicted = labels[known], predicted[known]
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    for name, answers in zip(classes, torch.split(predicted[labels.argsort()], counts), strict=True):
        yield csv_line(name, *torch.bincount(answers, minlength=len(classes)).tolist())
