"""The confusion matrix as a table that spreadsheets read."""

import csv
import io
from collections.abc import Iterator, Sequence

import torch

from m2sd_cli.reports.metrics import Pairs


def confusion_csv(classes: Sequence[str], confusion: Pairs) -> Iterator[bytes]:
    """Rows are the true classes, columns the answers, cells the number of test images; headed by class names.

    Line by line: of many classes the whole table is far larger than what was counted.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")

    def line(name: str, cells: Sequence[object]) -> bytes:
        text.seek(0)
        text.truncate()
        writer.writerow([name, *cells])
        return text.getvalue().encode()

    yield line("true \\ answer", classes)
    ends = torch.bincount(confusion.first, minlength=len(classes)).cumsum(0).tolist()
    begin = 0
    for name, end in zip(classes, ends, strict=True):
        cells = [0] * len(classes)
        for answer, times in zip(
            confusion.second[begin:end].tolist(), confusion.times[begin:end].tolist(), strict=True
        ):
            cells[answer] = times
        yield line(name, cells)
        begin = end
