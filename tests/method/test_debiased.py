"""Calibrated stacking on FeCAM's logits against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.debiased import debiased_head, separation
from m2sd_cli.method.fecam import fecam_head
from m2sd_cli.method.heads import Head


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain_separation(means: Tensor) -> float:
    rows = means.double()
    away = [
        1 - torch.cosine_similarity(rows[b], rows[c], dim=0).item()
        for b in range(len(rows))
        for c in range(len(rows))
        if b != c
    ]
    return sum(away) / len(away) if away else 0.0


@pytest.mark.parametrize(("classes", "width"), [(1, 4), (2, 1), (5, 3), (60, 64)])
def test_separation_is_the_mean_over_pairs(classes: int, width: int) -> None:
    means = draw(classes, width) - 0.3
    assert separation(means) == pytest.approx(plain_separation(means), abs=1e-9)


def test_a_zero_mean_is_at_a_right_angle_to_all() -> None:
    assert separation(torch.tensor([[0.0, 0.0], [2.0, 0.0], [3.0, 0.0]])) == pytest.approx((1 + 1 + 0) / 3)


@given(st.integers(0, 99), st.integers(2, 9), st.floats(0.01, 100))
def test_separation_has_no_scale_and_is_bounded(seed: int, classes: int, scale: float) -> None:
    means = draw(classes, 4, seed=seed) - 0.5
    assert 0 <= separation(means) <= 2
    assert separation(scale * means) == pytest.approx(separation(means), abs=1e-5)


def test_base_classes_lose_a_share_of_their_separation() -> None:
    base, new, x = draw(3, 5), draw(2, 5, seed=1), draw(7, 5, seed=2)
    covariance = torch.eye(5) + 0.1
    biased = debiased_head(base, new, covariance, scale=16.0, share=0.1)(x)
    plain = fecam_head(torch.cat([base, new]), covariance, 16.0)(x)
    torch.testing.assert_close(biased[:, 3:], plain[:, 3:])
    torch.testing.assert_close(biased[:, :3], plain[:, :3] - 16 * 0.1 * plain_separation(base))


def test_a_base_without_new_classes_answers_as_it_would_anyway() -> None:
    base, x = draw(3, 5), draw(7, 5, seed=2)
    biased, plain = (debiased_head(base, base[:0], torch.eye(5), 16.0, share)(x) for share in (0.3, 0.0))
    torch.testing.assert_close(biased.softmax(dim=1), plain.softmax(dim=1))
    assert not torch.allclose(biased, plain)


def test_less_takes_from_a_head_without_bias_too() -> None:
    rows, x = draw(3, 5), draw(7, 5, seed=2)
    amounts = torch.tensor([0.5, 0.0, -1.0])
    torch.testing.assert_close(Head(rows).less(amounts)(x), Head(rows)(x) - amounts)
