"""Accuracies against loops over single answers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.calibration import Confidence
from m2sd_cli.reports.answers import session_answers
from m2sd_cli.reports.metrics import Figures, SessionFigures, harmonic_mean, session_figures, summarise
from tests.reports.test_answers import CHAINS, SIZES, argmax, draw


def figures_of(sizes: tuple[int, ...], logits: Tensor, labels: Tensor) -> Figures:
    answers = session_answers(logits, labels, sizes, Confidence(), logits)
    return summarise(session_figures(labels, answers.lost, sizes, sizes[0], lost_top5=answers.lost_top5))


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def plain_classes(size: int, logits: Tensor, labels: Tensor) -> tuple[list[list[bool]], list[float | None]]:
    rows, truths = logits.tolist(), labels.tolist()
    right = [[argmax(rows[n], size) == c for n in range(len(truths)) if truths[n] == c] for c in range(size)]
    return right, [None if not of_class else 100 * sum(of_class) / len(of_class) for of_class in right]


def plain_session(sizes: tuple[int, ...], session: int, logits: Tensor, labels: Tensor) -> SessionFigures:
    size = sizes[session]
    right, per_class = plain_classes(size, logits, labels)
    every = [float(each) for of_class in right for each in of_class]
    among = []
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        if truth < size:
            five = sorted(range(size), key=lambda c, row=row: (-row[c], c))[:5]  # type: ignore[misc]
            among.append(100.0 * (truth in five))
    earlier = [plain_classes(known, logits, labels)[1] for known in sizes[:session]]
    lost = []
    for c in range(sizes[session - 1] if session else 0):
        before = [each[c] for each in earlier if c < len(each)]
        now = per_class[c]
        if now is not None:
            lost.append(max(each for each in before if each is not None) - now)
    overall = mean(every)
    base = mean([each for each in per_class[: sizes[0]] if each is not None])
    novel = mean([each for each in per_class[sizes[0] :] if each is not None])
    harmonic = None
    if base is not None and novel is not None:
        harmonic = 2 * base * novel / (base + novel) if base + novel else 0.0
    overall = None if overall is None else 100 * overall
    return SessionFigures(session, size, len(every), overall, base, novel, harmonic, mean(among), mean(lost))


def assert_same(ours: SessionFigures, expected: SessionFigures) -> None:
    assert (ours.session, ours.classes, ours.images) == (expected.session, expected.classes, expected.images)
    for name in ("overall", "base", "novel", "harmonic", "top5", "forgetting"):
        one, other = getattr(ours, name), getattr(expected, name)
        assert one == (None if other is None else pytest.approx(other, rel=1e-12, abs=1e-12)), name


@given(CHAINS, st.integers(0, 40), st.integers(0, 999))
def test_every_session_is_as_the_loop_says(sizes: tuple[int, ...], images: int, seed: int) -> None:
    """Classes may have no image, and sessions no new class."""
    logits, labels = draw(images, sizes[-1], seed)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    figures = figures_of(sizes, logits, labels)
    expected = [plain_session(sizes, b, logits, labels) for b in range(len(sizes))]
    for ours, theirs in zip(figures.sessions, expected, strict=True):
        assert_same(ours, theirs)
    taught = [b for b in range(1, len(sizes)) if sizes[b] > sizes[b - 1]]
    harmonic = [expected[b].harmonic for b in taught]
    known = [each for each in harmonic if each is not None]
    ahm = sum(known) / len(known) if known and len(known) == len(harmonic) else None
    assert figures.average_harmonic == (None if ahm is None else pytest.approx(ahm))
    overall = [each.overall for each in expected if each.overall is not None]
    if len(overall) < len(expected):
        assert (figures.average, figures.drop) == (None, None)
    else:
        assert figures.average == pytest.approx(sum(overall[b] for b in (0, *taught)) / (1 + len(taught)))
        assert figures.drop == pytest.approx(overall[0] - overall[-1])


def test_a_class_of_a_later_session_does_not_count_before_it() -> None:
    figures = figures_of(SIZES, torch.eye(7)[[0, 4]], torch.tensor([0, 4]))
    assert [each.images for each in figures.sessions] == [1, 2, 2]
    assert [each.overall for each in figures.sessions] == [100.0, 100.0, 100.0]


def test_overall_weighs_images_and_base_weighs_classes() -> None:
    """Nine images of class 0 are right, the one of class 1 is wrong."""
    logits = torch.tensor([[1.0, 0.0]]).expand(10, 2)
    session = figures_of((2,), logits, torch.tensor([0] * 9 + [1])).sessions[0]
    assert (session.overall, session.base, session.novel, session.harmonic) == (90.0, 50.0, None, None)


def test_average_and_drop_of_a_chain() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
    figures = figures_of((2, 3), logits, torch.tensor([0, 1, 2, 2]))
    assert [each.overall for each in figures.sessions] == [100.0, 50.0]
    assert (figures.average, figures.drop, figures.average_harmonic) == (75.0, 50.0, 50.0)
    assert (figures.sessions[1].base, figures.sessions[1].novel, figures.sessions[1].harmonic) == (50.0, 50.0, 50.0)


def test_sessions_that_teach_no_class_are_no_part_of_the_averages() -> None:
    def session(number: int, classes: int, overall: float, harmonic: float | None) -> SessionFigures:
        return SessionFigures(number, classes, 10, overall, 50.0, None, harmonic)

    renamed, forgotten = session(1, 6, 90.0, None), session(4, 9, 40.0, 99.0)
    chain = [session(0, 6, 90.0, None), renamed, session(2, 8, 80.0, 60.0), session(3, 10, 70.0, 40.0), forgotten]
    figures = summarise(chain)
    assert (figures.average, figures.average_harmonic) == (80.0, 50.0)
    assert figures.drop == 50.0
    assert figures.sessions == chain
    plain = summarise([chain[0], chain[2], chain[3]])
    assert (plain.average, plain.average_harmonic) == (figures.average, figures.average_harmonic)
    assert (summarise([chain[0], renamed]).average, summarise([chain[0], renamed]).average_harmonic) == (90.0, None)


def test_classes_without_an_image_are_left_out_of_the_means() -> None:
    last = figures_of(SIZES, torch.eye(7)[[0, 0, 5]], torch.tensor([0, 1, 5])).sessions[2]
    assert (last.base, last.novel) == (50.0, 100.0)
    assert last.harmonic == pytest.approx(200 / 3)


def test_without_an_image_there_is_no_figure() -> None:
    figures = figures_of(SIZES, *draw(0, 7))
    assert (figures.average, figures.drop, figures.average_harmonic) == (None, None, None)
    assert figures.sessions[1] == SessionFigures(1, 5, 0, None, None, None, None)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(0.0, 0.0, 0.0), (50.0, 0.0, 0.0), (60.0, 30.0, 40.0), (7.0, 7.0, 7.0)]
)
def test_harmonic_mean(first: float, second: float, expected: float) -> None:
    assert harmonic_mean(first, second) == pytest.approx(expected)
    assert harmonic_mean(second, first) == pytest.approx(expected)


def test_forgetting_goes_on_from_the_highest_accuracy_of_earlier_parts() -> None:
    """Class 0 had 100 in a part before this one, class 1 none there; class 2 is new."""
    labels, lost = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 2, 2])
    highest = torch.tensor([100.0, torch.nan, torch.nan], dtype=torch.float64)
    sessions = session_figures(labels, lost, (2, 3), 2, first=4, highest=highest)
    assert [each.forgetting for each in sessions] == [50.0, 50.0]
    assert [each.top5 for each in sessions] == [None, None]
    again = session_figures(labels, lost, (2, 3), 2)
    assert [each.forgetting for each in again] == [None, 25.0]
