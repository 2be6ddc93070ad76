"""The confusion matrix as CSV."""

import csv
import io
from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.reports.confusion import confusion_csv

CLASSES = ["plain", 'with "quotes", and a comma', "naïve", "never seen"]


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), max_size=40))
def test_every_cell_counts_its_images_and_unknown_ones_are_left_out(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    header, *rows = csv.reader(io.StringIO(b"".join(confusion_csv(CLASSES, labels, predicted)).decode()))
    times = Counter(pairs)
    assert header == ["true \\ answer", *CLASSES]
    assert rows == [[name, *(str(times[c, a]) for a in range(4))] for c, name in enumerate(CLASSES)]


def test_the_text_is_that_of_a_plain_table() -> None:
    lines = list(confusion_csv(["a", "b"], torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0])))
    assert lines == [b"true \\ answer,a,b\n", b"a,0,1\n", b"b,1,1\n"]
