"""The figures against loops over single answers."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from m2sd_cli.reports.metrics import PairCounter, SessionFigures, Tally, harmonic_mean

SIZES = (3, 5, 7)


def draw(images: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Few different logits, so that draws are common."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-2, 3, (images, classes), generator=generator).float()
    return logits, torch.randint(0, classes, (images,), generator=generator)


def tally_of(sizes: tuple[int, ...], logits: Tensor, labels: Tensor, batch: int = 10**6) -> Tally:
    tally = Tally(sizes, confusion=True)
    for start in range(0, len(labels), batch):
        tally.add(logits[start : start + batch], labels[start : start + batch])
    return tally


def counted(tally: Tally) -> dict[tuple[int, int], int]:
    """The images of each pair of class and answer."""
    pairs = tally.confusion()
    assert pairs is not None
    return {(c, a): n for c, a, n in zip(*(each.tolist() for each in pairs), strict=True)}


def answer(row: list[float], size: int) -> int:
    """The first of the best among the classes known."""
    best = 0
    for c in range(1, size):
        if row[c] > row[best]:
            best = c
    return best


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def plain_session(sizes: tuple[int, ...], session: int, logits: Tensor, labels: Tensor) -> SessionFigures:
    size = sizes[session]
    rows, truths = logits.tolist(), labels.tolist()
    right = [[answer(rows[n], size) == c for n in range(len(truths)) if truths[n] == c] for c in range(size)]
    every = [float(each) for of_class in right for each in of_class]
    per_class = [None if not of_class else 100 * sum(of_class) / len(of_class) for of_class in right]
    overall = mean(every)
    base = mean([each for each in per_class[: sizes[0]] if each is not None])
    novel = mean([each for each in per_class[sizes[0] :] if each is not None])
    harmonic = None
    if base is not None and novel is not None:
        harmonic = 2 * base * novel / (base + novel) if base + novel else 0.0
    return SessionFigures(session, size, len(every), None if overall is None else 100 * overall, base, novel, harmonic)


def assert_same(ours: SessionFigures, expected: SessionFigures) -> None:
    assert (ours.session, ours.classes, ours.images) == (expected.session, expected.classes, expected.images)
    for name in ("overall", "base", "novel", "harmonic"):
        one, other = getattr(ours, name), getattr(expected, name)
        assert one == (None if other is None else pytest.approx(other, rel=1e-12, abs=1e-12)), name


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=0, max_size=4), st.integers(1, 4), st.integers(0, 40), st.integers(0, 999))
def test_every_session_counts_as_the_loop_does(steps: list[int], base: int, images: int, seed: int) -> None:
    """Sessions may add no class at all; classes may have no image."""
    sizes = tuple(base + sum(steps[:b]) for b in range(len(steps) + 1))
    logits, labels = draw(images, sizes[-1], seed)
    figures = tally_of(sizes, logits, labels).figures()
    expected = [plain_session(sizes, b, logits, labels) for b in range(len(sizes))]
    assert len(figures.sessions) == len(expected)
    for ours, theirs in zip(figures.sessions, expected, strict=True):
        assert_same(ours, theirs)
    overall = [each.overall for each in expected]
    counted = [each for each in overall if each is not None]
    if len(counted) < len(overall):
        assert figures.average is None
        assert figures.drop is None
    else:
        assert figures.average == pytest.approx(sum(counted) / len(counted))
        assert figures.drop == pytest.approx(counted[0] - counted[-1])


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 999))
def test_batches_change_nothing(batch: int, seed: int) -> None:
    logits, labels = draw(50, 7, seed)
    whole, cut = tally_of(SIZES, logits, labels), tally_of(SIZES, logits, labels, batch)
    assert whole.figures() == cut.figures()
    assert counted(whole) == counted(cut)


def test_the_answer_of_a_session_is_the_argmax_over_its_classes() -> None:
    """Each image alone: it counts as right in exactly the sessions whose plain argmax is its label."""
    logits, _ = draw(60, 7, seed=4)
    for row in logits:
        for label in range(7):
            figures = tally_of(SIZES, row[None], torch.tensor([label])).figures()
            for size, session in zip(SIZES, figures.sessions, strict=True):
                if label >= size:
                    assert session.overall is None
                else:
                    assert session.overall == (100.0 if answer(row.tolist(), size) == label else 0.0)


def test_the_earlier_class_wins_a_draw() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0]])
    assert tally_of(SIZES, logits, torch.tensor([1])).figures().sessions[2].overall == 100.0
    assert tally_of(SIZES, logits, torch.tensor([3])).figures().sessions[2].overall == 0.0


def test_a_class_of_a_later_session_does_not_count_before_it() -> None:
    logits = torch.eye(7)[[0, 4]]
    figures = tally_of(SIZES, logits, torch.tensor([0, 4])).figures()
    assert [each.images for each in figures.sessions] == [1, 2, 2]
    assert [each.overall for each in figures.sessions] == [100.0, 100.0, 100.0]


def test_overall_weighs_images_and_base_weighs_classes() -> None:
    """Nine images of class 0 are right, the one of class 1 is wrong."""
    logits = torch.tensor([[1.0, 0.0]]).expand(10, 2)
    session = tally_of((2,), logits, torch.tensor([0] * 9 + [1])).figures().sessions[0]
    assert (session.overall, session.base, session.novel, session.harmonic) == (90.0, 50.0, None, None)


def test_batch_means_are_not_averaged() -> None:
    """Two of three right and none of one: 2 of 4, not the mean of 67 % and 0 %."""
    tally = Tally((2,))
    tally.add(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]))
    tally.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert tally.figures().sessions[0].overall == 50.0


def test_average_and_drop_of_a_chain() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
    figures = tally_of((2, 3), logits, torch.tensor([0, 1, 2, 2])).figures()
    assert [each.overall for each in figures.sessions] == [100.0, 50.0]
    assert figures.average == 75.0
    assert figures.drop == 50.0
    assert (figures.sessions[1].base, figures.sessions[1].novel, figures.sessions[1].harmonic) == (50.0, 50.0, 50.0)


def test_confusion_has_true_rows_and_answered_columns_of_the_last_session() -> None:
    logits, labels = draw(80, 7, seed=2)
    expected = Counter((label, answer(row, 7)) for row, label in zip(logits.tolist(), labels.tolist(), strict=True))
    assert counted(tally_of(SIZES, logits, labels, 9)) == expected


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=9), max_size=9), st.integers(1, 30))
def test_pairs_are_counted_whenever_they_are_merged(batches: list[list[tuple[int, int]]], waiting: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2sd_cli.reports.metrics.WAITING", waiting)
        counter = PairCounter(5)
        for batch in batches:
            counter.add(*torch.tensor(batch, dtype=torch.int64).view(-1, 2).T)
        first, second, times = (each.tolist() for each in counter.pairs())
    expected = Counter(pair for batch in batches for pair in batch)
    assert list(zip(first, second, strict=True)) == sorted(expected)
    assert times == [expected[pair] for pair in sorted(expected)]


def test_what_is_counted_grows_neither_with_the_images_nor_with_the_square_of_the_classes() -> None:
    """The same two images again and again, of a chain with 3,000 classes."""
    tally = Tally(range(1, 3001), confusion=True)
    logits, labels = draw(2, 3000)
    for _ in range(20):
        tally.add(logits, labels)
    assert sum(counted(tally).values()) == 40
    assert len(counted(tally)) == 2
    held = [value for part in (tally, tally._lost, tally._answers) for value in vars(part).values()]
    assert max(value.numel() for value in held if isinstance(value, Tensor)) <= 3001


def test_a_batch_takes_no_loop_over_sessions() -> None:
    calls: list[object] = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    numbers = []
    for sizes in (range(1, 3), range(1, 301)):
        tally = Tally(sizes, confusion=True)
        logits, labels = draw(8, len(sizes))
        calls.clear()
        with Counting():
            tally.add(logits, labels)
        numbers.append(len(calls))
    assert numbers[0] == numbers[1]


def test_the_confusion_is_counted_on_request_only() -> None:
    tally = Tally(SIZES)
    tally.add(*draw(5, 7))
    assert tally.confusion() is None


def test_classes_without_an_image_are_named_and_left_out_of_the_means() -> None:
    logits = torch.eye(7)[[0, 0, 5]]
    tally = tally_of(SIZES, logits, torch.tensor([0, 1, 5]))
    assert tally.untested == [2, 3, 4, 6]
    last = tally.figures().sessions[2]
    assert (last.base, last.novel) == (50.0, 100.0)
    assert last.harmonic == pytest.approx(200 / 3)


def test_nothing_counted_is_no_figure() -> None:
    figures = Tally(SIZES).figures()
    assert figures.average is None
    assert figures.drop is None
    assert figures.sessions[1] == SessionFigures(1, 5, 0, None, None, None, None)


def test_endlessly_low_logits_count_as_a_draw() -> None:
    logits = torch.full((2, 7), -torch.inf)
    assert tally_of(SIZES, logits, torch.tensor([0, 1])).figures().sessions[2].overall == 50.0


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(0.0, 0.0, 0.0), (50.0, 0.0, 0.0), (60.0, 30.0, 40.0), (7.0, 7.0, 7.0)]
)
def test_harmonic_mean(first: float, second: float, expected: float) -> None:
    assert harmonic_mean(first, second) == pytest.approx(expected)
    assert harmonic_mean(second, first) == pytest.approx(expected)


@pytest.mark.parametrize("cut", [0, 1, 13, 40])
def test_what_two_counted_apart_is_what_one_counts(cut: int) -> None:
    logits, labels = draw(40, SIZES[-1])
    whole = tally_of(SIZES, logits, labels)
    here, there = tally_of(SIZES, logits[:cut], labels[:cut]), tally_of(SIZES, logits[cut:], labels[cut:])
    sent: list[Tensor] = []

    def send(numbers: Tensor) -> Tensor:
        sent.append(numbers)
        return numbers

    there.join(send)
    arriving = iter(sent)
    here.join(lambda numbers: torch.cat([numbers, next(arriving)]))
    assert here.figures() == whole.figures()
    assert counted(here) == counted(whole)
    assert here.untested == whole.untested
