"""Figures of classes against loops over single answers."""

import csv
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.reports.per_class import ClassFigures, class_figures, confused_pairs, per_class_csv


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 999))
def test_every_class_is_as_the_loop_says(classes: int, images: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes, (images,), generator=generator)
    predicted = torch.randint(0, classes, (images,), generator=generator)
    pairs = [(t, p) for t, p in zip(labels.tolist(), predicted.tolist(), strict=True) if t >= 0]
    names = [f"class {number}" for number in range(classes)]
    rows = class_figures(labels, predicted, names, [min(number, 1) for number in range(classes)])
    assert len(rows) == classes
    for number, row in enumerate(rows):
        true = [p for t, p in pairs if t == number]
        called = [t for t, p in pairs if p == number]
        assert (row.name, row.session) == (names[number], min(number, 1))
        assert (row.images, row.answered) == (len(true), len(called))
        hits = true.count(number)
        assert row.recall == (pytest.approx(100 * hits / len(true)) if true else None)
        assert row.precision == (pytest.approx(100 * hits / len(called)) if called else None)
        assert row.f1 == (pytest.approx(200 * hits / (len(true) + len(called))) if true else None)
    counted = {pair: pairs.count(pair) for pair in pairs if pair[0] != pair[1]}
    found = confused_pairs(labels, predicted, 3)
    assert [count for *_, count in found] == sorted(counted.values(), reverse=True)[:3]
    assert all(counted[true, answer] == count for true, answer, count in found)


def test_a_table_keeps_names_as_they_are_and_leaves_missing_figures_empty() -> None:
    name = 'a,"b"\n<i>'
    text = b"".join(per_class_csv([ClassFigures(name, 2, 0, 4, 0.0, None, None)])).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["class", "session", "images", "precision", "recall", "f1"],
        [name, "2", "0", "0.00", "", ""],
    ]
