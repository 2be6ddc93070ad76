"""Cosine and linear logits against loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.class_weights import SIMILARITIES, ClassWeights, class_logits, cosine_logits


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def plain_cosine(features: Tensor, weight: Tensor, scale: float) -> list[list[float]]:
    return [
        [scale * dot(f, w) / (math.sqrt(dot(f, f)) * math.sqrt(dot(w, w))) for w in weight.tolist()]
        for f in features.tolist()
    ]


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_cosine_logits_are_the_formula(scale: float) -> None:
    features, weight = draw(4, 6), draw(3, 6, seed=1)
    expected = torch.tensor(plain_cosine(features, weight, scale), dtype=torch.float64)
    torch.testing.assert_close(cosine_logits(features, weight, scale), expected)
    torch.testing.assert_close(class_logits(features, weight, "cosine", scale), expected)


def test_linear_logits_are_dot_products_without_scale() -> None:
    features, weight = draw(4, 6), draw(3, 6, seed=1)
    expected = [[dot(f, w) for w in weight.tolist()] for f in features.tolist()]
    torch.testing.assert_close(
        class_logits(features, weight, "linear", 16.0), torch.tensor(expected, dtype=torch.float64)
    )


@given(st.integers(0, 999), st.floats(1e-3, 1e3), st.floats(0.5, 64))
def test_cosine_logits_are_bounded_and_blind_to_length(seed: int, length: float, scale: float) -> None:
    features, weight = draw(3, 5, seed=seed), draw(4, 5, seed=seed + 1)
    logits = cosine_logits(features, weight, scale)
    assert float(logits.abs().amax()) <= scale * (1 + 1e-12)
    torch.testing.assert_close(cosine_logits(length * features, weight / length, scale), logits)
    own = cosine_logits(weight, weight, scale).diagonal()
    torch.testing.assert_close(own, torch.full((4,), scale, dtype=torch.float64))


def test_a_zero_vector_has_cosine_zero_and_a_finite_gradient() -> None:
    features, weight = torch.zeros(2, 5, requires_grad=True), draw(3, 5).float()
    logits = cosine_logits(features, weight, 16.0)
    assert torch.equal(logits, torch.zeros(2, 3))
    assert torch.equal(cosine_logits(weight, torch.zeros(1, 5), 16.0), torch.zeros(3, 1))
    torch.autograd.backward(logits.sum())
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_an_unknown_similarity_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown similarity 'euclid': choose from cosine, linear"):
        class_logits(draw(1, 2), draw(1, 2), "euclid", 1.0)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_class_weights_are_one_matrix_that_learns(similarity: str) -> None:
    torch.manual_seed(0)
    weights = ClassWeights(6, 3, similarity, scale=7.0).double()
    assert [(name, tuple(each.shape)) for name, each in weights.named_parameters()] == [("weight", (3, 6))]
    features = draw(4, 6).requires_grad_()
    logits = weights(features)
    torch.testing.assert_close(logits, class_logits(features, weights.weight, similarity, 7.0))
    torch.autograd.backward(logits.square().sum())
    for grad in (features.grad, weights.weight.grad):
        assert grad is not None
        assert grad.abs().amax() > 1e-6


def test_rows_that_are_compared_by_cosine_start_long() -> None:
    torch.manual_seed(0)
    weight = ClassWeights(64, 500).weight.detach()
    assert float(weight.mean()) == pytest.approx(0, abs=0.02)
    assert float(weight.std()) == pytest.approx(1, rel=0.02)


def test_linear_weights_start_as_a_layer_of_torch_does() -> None:
    torch.manual_seed(0)
    weight = ClassWeights(64, 500, similarity="linear").weight.detach()
    assert float(weight.abs().amax()) <= 1 / 8
    assert float(weight.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.02)


def test_the_default_is_a_cosine_of_scale_sixteen() -> None:
    weights = ClassWeights(4, 2)
    assert (weights.similarity, weights.scale) == ("cosine", 16.0)
