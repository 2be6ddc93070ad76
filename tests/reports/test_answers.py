"""Answers of every session against the argmax over its classes, image by image."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.method.calibration import Confidence, known_score
from m2sd_cli.reports.answers import Answers, class_sessions, gather_answers, session_answers

SIZES = (3, 5, 7)
CONFIDENCE = Confidence(temperature=1.5, unknown_below=0.0)
CHAINS = st.builds(  # sessions may add no class at all
    lambda base, steps: tuple(base + sum(steps[:b]) for b in range(len(steps) + 1)),
    st.integers(1, 4),
    st.lists(st.integers(0, 3), max_size=5),
)


def draw(images: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Few different logits, so that draws are common, and labels of which some are unknown."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-2, 3, (images, classes), generator=generator).float()
    return logits, torch.randint(-1, classes, (images,), generator=generator)


def argmax(row: list[float], size: int) -> int:
    """The first of the best among the classes known."""
    return max(range(size), key=lambda c: (row[c], -c))


@given(CHAINS, st.integers(0, 20), st.integers(0, 999))
def test_every_session_answers_as_it_would_alone(sizes: tuple[int, ...], images: int, seed: int) -> None:
    logits, labels = draw(images, sizes[-1], seed)
    answers = session_answers(logits, labels, sizes, CONFIDENCE, logits)
    assert torch.equal(answers.labels, labels)
    assert answers.score.shape == answers.probability.shape == (images, len(sizes))
    taught = class_sessions(sizes).tolist()
    for n, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        assert answers.predicted[n] == argmax(row, sizes[-1])
        for session, size in enumerate(sizes):
            assert (taught[label] <= session) == (0 <= label < size)
            if 0 <= label < size:
                assert (answers.lost[n] > session) == (argmax(row, size) == label)
                five = sorted(range(size), key=lambda c, row=row: (-row[c], c))[:5]  # type: ignore[misc]
                assert (answers.lost_top5[n] > session) == (label in five)
            best = max(row[:size])
            assert answers.score[n, session] == best
            probability = 1 / sum(math.exp((z - best) / 1.5) for z in row[:size])
            assert abs(answers.probability[n, session] - probability) < 1e-12


def test_the_score_is_that_of_the_likeness_whatever_the_logits_are() -> None:
    (logits, labels), (likeness, _) = draw(30, 7), draw(30, 7, seed=1)
    answers = session_answers(logits, labels, SIZES, CONFIDENCE, likeness)
    for session, size in enumerate(SIZES):
        assert torch.equal(answers.score[:, session], known_score(likeness[:, :size]))
    assert torch.equal(answers.probability, session_answers(logits, labels, SIZES, CONFIDENCE, logits).probability)


def test_the_earlier_class_wins_a_draw() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0]]).expand(2, 7)
    assert session_answers(logits, torch.tensor([1, 3]), SIZES, CONFIDENCE, logits).lost.tolist() == [3, 1]


def test_endlessly_low_logits_are_a_draw() -> None:
    logits = torch.full((2, 7), -torch.inf)
    assert session_answers(logits, torch.tensor([0, 1]), SIZES, CONFIDENCE, logits).lost.tolist() == [3, 0]


def test_far_lower_logits_of_early_sessions_do_not_vanish() -> None:
    logits = torch.tensor([[-5000.0, -5000.0, 5000.0]])
    answers = session_answers(logits, torch.tensor([0]), (2, 3), Confidence(), logits)
    assert answers.probability[0].tolist() == pytest.approx([0.5, 1.0])


def test_nothing_of_the_size_of_the_logits_is_kept() -> None:
    logits, labels = draw(2, 3000)
    answers = session_answers(logits, labels, range(1000, 3001, 1000), CONFIDENCE, logits)
    assert sum(each.untyped_storage().nbytes() for each in answers) <= 2 * (4 * 8 + 3 * (4 + 8))


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 999))
def test_neither_batches_nor_processes_change_a_digit(batch: int, cut: int, seed: int) -> None:
    logits, labels = draw(50, 7, seed)

    def answer(begin: int, end: int) -> list[Answers]:
        """Batches of the images of one process, which may have none."""
        starts = [begin, *range(begin, end, batch)]
        ends = [begin, *(min(start + batch, end) for start in starts[1:])]
        parts = zip(starts, ends, strict=True)
        return [session_answers(logits[a:b], labels[a:b], SIZES, CONFIDENCE, logits[a:b]) for a, b in parts]

    sent = iter(gather_answers(answer(cut, 50), SINGLE_PROCESS))

    class TwoProcesses(ProcessGroup):
        """Lays what the other process has sent behind what this one sends."""

        def all_gather(self, numbers: Tensor) -> Tensor:
            assert numbers.ndim == 1
            return torch.cat([numbers, next(sent).flatten()])

    whole = session_answers(logits, labels, SIZES, CONFIDENCE, logits)
    assert all(map(torch.equal, gather_answers(answer(0, cut), TwoProcesses()), whole))
