"""The confusion matrix as a table that spreadsheets read."""

import csv
import io

from m2sd_cli.reports.evaluation import Evaluation


def confusion_csv(evaluation: Evaluation) -> str:
    """Rows are the true classes, columns the answers, cells the number of test images; headed by class names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ answer", *evaluation.classes])
    for name, row in zip(evaluation.classes, evaluation.confusion.tolist(), strict=True):
        writer.writerow([name, *row])
    return text.getvalue()
