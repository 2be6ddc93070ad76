"""The losses of stages 1 and 2, each against its formula written out in plain float64 loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.losses import (
    Reduction,
    attention_map,
    attention_transfer,
    closeness,
    cross_entropy,
    kl_divergence,
    l_at,
    l_ce,
    l_kl,
    soft_cross_entropy,
)

LOGIT = st.floats(-40, 40, width=32)


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    total = 0.0
    for row, shares in zip(logits.tolist(), labels.tolist(), strict=True):
        for probability, share in zip(softmax(row), shares, strict=True):
            total -= share * math.log(probability)
    return total / len(logits)


def mean_kl(first: Tensor, second: Tensor, temperature: float = 1.0) -> float:
    total = 0.0
    for p_row, q_row in zip(first.tolist(), second.tolist(), strict=True):
        for p, q in zip(softmax(p_row, temperature), softmax(q_row, temperature), strict=True):
            total += p * math.log(p / q)
    return temperature**2 * total / len(first)


def plain_attention_map(features: Tensor) -> list[list[float]]:
    rows = []
    for sample in features.tolist():
        channels, height, width = len(sample), len(sample[0]), len(sample[0][0])
        energy = [
            sum(sample[c][i][j] ** 2 for c in range(channels)) / channels for i in range(height) for j in range(width)
        ]
        norm = math.sqrt(sum(value**2 for value in energy))
        rows.append([value / norm if norm else 0.0 for value in energy])
    return rows


def plain_attention_transfer(teachers: list[Tensor], students: list[Tensor], reduction: str = "mean") -> float:
    loss = 0.0
    for teacher, student in zip(teachers, students, strict=True):
        squares = [
            (t - s) ** 2
            for t_row, s_row in zip(plain_attention_map(teacher), plain_attention_map(student), strict=True)
            for t, s in zip(t_row, s_row, strict=True)
        ]
        loss += sum(squares) / (len(teacher) if reduction == "sum" else len(squares))
    return loss


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(seed: int, expansion: int = 1, batch: int = 2) -> list[Tensor]:
    """Four maps of falling resolution and rising width."""
    shapes = [(2, 6, 5), (3, 6, 5), (4, 3, 3), (5, 2, 1)]
    return [
        draw(batch, expansion * channels, height, width, seed=seed + number)
        for number, (channels, height, width) in enumerate(shapes)
    ]


def test_soft_cross_entropy_is_the_formula() -> None:
    logits, labels = draw(5, 4), torch.tensor([softmax(row) for row in draw(5, 4, seed=1).tolist()]).double()
    assert float(soft_cross_entropy(logits, labels)) == pytest.approx(mean_cross_entropy(logits, labels), rel=1e-12)


def test_soft_cross_entropy_of_hard_labels_is_cross_entropy() -> None:
    logits = draw(6, 5)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    one_hot = torch.eye(5, dtype=torch.float64)[labels]
    expected = -sum(math.log(softmax(row)[c]) for row, c in zip(logits.tolist(), labels.tolist(), strict=True)) / 6
    assert float(soft_cross_entropy(logits, one_hot)) == pytest.approx(expected, rel=1e-12)


def mean_cosine(features: Tensor, labels: list[int]) -> float:
    """The mean over pairs of different classes, pair by pair."""
    rows = features.tolist()
    cosines = [
        sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / (math.hypot(*rows[i]) * math.hypot(*rows[j]))
        for i in range(len(rows))
        for j in range(i)
        if labels[i] != labels[j]
    ]
    return float(sum(cosines) / len(cosines))


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1, 2, 2, 2, 0], [3, 3, 3, 9]])
def test_closeness_is_the_mean_cosine_of_pairs_of_different_classes(labels: list[int]) -> None:
    features = draw(len(labels), 5)
    found = float(closeness(features, torch.tensor(labels)))
    assert found == pytest.approx(mean_cosine(features, labels), rel=1e-12)
    assert float(closeness(7 * features, torch.tensor(labels))) == pytest.approx(found, rel=1e-12)


def test_images_of_one_class_have_no_closeness() -> None:
    features = draw(3, 5).requires_grad_()
    one = closeness(features, torch.tensor([4, 4, 4]))
    torch.autograd.backward(one)
    assert features.grad is not None
    assert (float(one.detach()), float(features.grad.abs().max())) == (0, 0)
    assert float(closeness(draw(1, 5), torch.tensor([0]))) == 0


@given(st.lists(st.tuples(LOGIT, LOGIT, LOGIT), min_size=2, max_size=6), st.integers(1, 3))
def test_closeness_is_a_cosine(rows: list[tuple[float, float, float]], classes: int) -> None:
    labels = torch.arange(len(rows)) % classes
    assert -1 - 1e-5 <= float(closeness(torch.tensor(rows), labels)) <= 1 + 1e-5
    same = torch.tensor([[1.0, *rows[0]]]).expand(len(rows), -1)
    assert float(closeness(same, labels)) == pytest.approx(float(classes > 1), abs=1e-4)


def test_closeness_is_no_coarser_in_half_precision() -> None:
    features, labels = draw(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found = closeness(features.float(), labels)
    assert float(found) == pytest.approx(mean_cosine(features, labels.tolist()), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_divergence_is_the_formula_times_the_squared_temperature(temperature: float) -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    expected = mean_kl(first, second, temperature)
    assert float(kl_divergence(first, second, temperature)) == pytest.approx(expected, rel=1e-12)


def test_kl_divergence_tells_first_from_second() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    assert abs(mean_kl(first, second) - mean_kl(second, first)) > 0.1
    assert float(kl_divergence(second, first)) == pytest.approx(mean_kl(second, first), rel=1e-12)


def test_l_kl_is_the_sum_of_both_directions() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    expected = mean_kl(first, second) + mean_kl(second, first)
    assert float(l_kl(first, second)) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.tuples(LOGIT, LOGIT, LOGIT, LOGIT), min_size=1, max_size=4), st.floats(0.5, 8))
def test_kl_divergence_is_never_negative_and_zero_for_equals(
    rows: list[tuple[float, float, float, float]], temperature: float
) -> None:
    first = torch.tensor(rows)
    second = first.flip(1)
    assert float(kl_divergence(first, second, temperature)) >= -1e-5
    assert float(kl_divergence(first, first, temperature)) == 0.0
    assert float(l_kl(first, second)) == pytest.approx(float(l_kl(second, first)), rel=1e-5, abs=1e-6)


def test_the_gradients_are_the_slopes_of_the_losses() -> None:
    first, second = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    labels = torch.tensor([softmax(row) for row in draw(3, 4, seed=2).tolist()]).double()
    check = torch.autograd.gradcheck
    assert check(lambda x: soft_cross_entropy(x, labels), (first,))
    assert check(lambda x, y: kl_divergence(x, y, 4.0), (first, second))
    assert check(l_kl, (first, second))
    assert check(attention_map, (draw(2, 3, 2, 3).requires_grad_(),))


def test_l_kl_sends_gradient_into_both_branches() -> None:
    first, second = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    torch.autograd.backward(l_kl(first, second))
    for branch in (first, second):
        assert branch.grad is not None
        assert branch.grad.abs().amax() > 1e-3


def test_the_squared_temperature_keeps_the_size_of_the_gradient() -> None:
    sizes = []
    for temperature in (20.0, 200.0):
        student = draw(4, 5, scale=0.5).requires_grad_()
        torch.autograd.backward(kl_divergence(draw(4, 5, seed=1, scale=0.5), student, temperature))
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(half: torch.dtype) -> None:
    first, second = draw(4, 6).to(half), draw(4, 6, seed=1).to(half)
    labels = torch.eye(6)[:4]
    for value, expected in (
        (kl_divergence(first, second, 4.0), mean_kl(first, second, 4.0)),
        (soft_cross_entropy(first, labels), mean_cross_entropy(first, labels)),
    ):
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(expected, rel=1e-5)
    assert attention_map(draw(1, 2, 3, 3).to(half)).dtype == torch.float32


def test_huge_logits_stay_finite() -> None:
    first, second = torch.tensor([[3e4, -3e4]]), torch.tensor([[-3e4, 3e4]])
    assert float(kl_divergence(first, second)) == pytest.approx(6e4)
    assert float(soft_cross_entropy(first, torch.tensor([[0.0, 1.0]]))) == pytest.approx(6e4)


def test_attention_map_is_the_formula() -> None:
    features = draw(3, 4, 5, 2)
    result = attention_map(features)
    assert result.shape == (3, 10)
    torch.testing.assert_close(result, torch.tensor(plain_attention_map(features), dtype=torch.float64))


@settings(max_examples=50)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.floats(1e-2, 1e3), st.integers(0, 99)
)
def test_attention_map_is_a_unit_vector_of_no_negative_entry(
    batch: int, channels: int, height: int, width: int, scale: float, seed: int
) -> None:
    features = draw(batch, channels, height, width, seed=seed)
    result = attention_map(features)
    assert (result >= 0).all()
    torch.testing.assert_close(result.norm(dim=1), torch.ones(batch, dtype=torch.float64))
    torch.testing.assert_close(attention_map(scale * features), result)


def test_attention_map_of_zeros_is_zeros_and_has_a_finite_gradient() -> None:
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    result = attention_map(features)
    assert torch.equal(result, torch.zeros(2, 16))
    torch.autograd.backward(result.sum())
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_attention_transfer_is_the_sum_over_levels_of_mean_or_summed_squares(reduction: Reduction, batch: int) -> None:
    teachers, students = levels(10, expansion=2, batch=batch), levels(20, batch=batch)
    result = float(attention_transfer(tuple(teachers), tuple(students), reduction))
    assert result == pytest.approx(plain_attention_transfer(teachers, students, reduction), rel=1e-12)


def test_the_sum_of_a_level_is_its_mean_times_its_positions() -> None:
    for teacher, student in zip(levels(10, expansion=2), levels(20), strict=True):
        summed, mean = (attention_transfer((teacher,), (student,), reduction) for reduction in ("sum", "mean"))
        torch.testing.assert_close(summed, mean * teacher.shape[2] * teacher.shape[3], rtol=1e-12, atol=0)
        assert 0 < float(summed) < 2


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_attention_transfer_between_equals_is_zero(reduction: Reduction) -> None:
    maps = tuple(levels(10))
    assert float(attention_transfer(maps, maps, reduction)) == 0.0


def test_attention_transfer_moves_the_students_only() -> None:
    teachers = [each.requires_grad_() for each in levels(10, expansion=2)]
    students = [each.requires_grad_() for each in levels(20)]
    torch.autograd.backward(attention_transfer(tuple(teachers), tuple(students)))
    assert all(teacher.grad is None for teacher in teachers)
    # The last level has two positions, the least from which a direction can differ.
    for student in students:
        assert student.grad is not None
        assert student.grad.abs().amax() > 1e-6


def test_cross_entropy_of_stage_1_is_in_float32_at_least() -> None:
    logits, labels = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), torch.tensor([0, 2])
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    expected = mean_cross_entropy(logits.double(), one_hot)
    assert float(cross_entropy(logits.double(), labels)) == pytest.approx(expected, rel=1e-12)
    assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32


def test_l_ce_is_the_sum_of_the_branches() -> None:
    first, second, labels = draw(3, 4), draw(3, 4, seed=1), draw(3, 4, seed=2).softmax(dim=1)
    expected = mean_cross_entropy(first, labels) + mean_cross_entropy(second, labels)
    assert float(l_ce(torch.cat([first, second]), labels)) == pytest.approx(expected, rel=1e-12)
    assert float(l_ce(first, labels)) == pytest.approx(mean_cross_entropy(first, labels), rel=1e-12)


def test_l_at_has_two_terms_summed_over_the_branches_and_teaches_the_student_alone() -> None:
    p_hat, logits = draw(4, 5).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    teachers = [draw(4, 3, 2, 2, seed=2).requires_grad_(), draw(4, 6, 1, 1, seed=3).requires_grad_()]
    students = [draw(4, 2, 2, 2, seed=4).requires_grad_(), draw(4, 3, 1, 1, seed=5).requires_grad_()]
    terms = l_at(p_hat, tuple(teachers), logits, tuple(students), temperature=4.0, branches=2)
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(
        {
            "kd": 2 * mean_kl(p_hat, logits, 4.0),
            "attention": 2 * plain_attention_transfer(teachers, students),
        },
        rel=1e-9,
    )
    torch.autograd.backward(terms["kd"] + terms["attention"])
    assert all(each.grad is None for each in (p_hat, *teachers))
    assert all(each.grad is not None for each in (logits, *students))


@pytest.mark.parametrize("terms", [(), ("kd",), ("attention",)])
def test_l_at_computes_the_terms_that_are_asked_for(terms: tuple[str, ...]) -> None:
    maps = (draw(2, 3, 2, 2),)
    assert {*l_at(draw(2, 3), maps, draw(2, 3, seed=1), maps, temperature=1.0, terms=terms)} == {*terms}
