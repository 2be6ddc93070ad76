"""The confusion matrix as CSV."""

import csv
import io

import torch

from m2sd_cli.reports.confusion import confusion_csv
from m2sd_cli.reports.metrics import Pairs


def test_every_pair_has_its_cell_and_all_others_are_nought() -> None:
    classes = ["plain", 'with "quotes", and a comma', "naïve", "never seen"]
    pairs = Pairs(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 2, 1, 3]), torch.tensor([12, 1, 3, 4]))
    rows = list(csv.reader(io.StringIO(b"".join(confusion_csv(classes, pairs)).decode())))
    assert rows == [
        ["true \\ answer", *classes],
        [classes[0], "12", "0", "1", "0"],
        [classes[1], "0", "0", "0", "0"],
        [classes[2], "0", "3", "0", "4"],
        [classes[3], "0", "0", "0", "0"],
    ]


def test_the_text_is_that_of_a_plain_table() -> None:
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([7, 2]))
    assert list(confusion_csv(["a", "b"], pairs)) == [b"true \\ answer,a,b\n", b"a,0,7\n", b"b,0,2\n"]
