"""TEEN against the formula, entry by entry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.class_weights import cosine_logits
from m2sd_cli.method.teen import calibrated_means, teen_head


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def plain(new: Tensor, base: Tensor, alpha: float, tau: float) -> list[list[float]]:
    base_rows = [unit(row) for row in base.tolist()]
    rows = []
    for row in new.tolist():
        unit_row = unit(row)
        weights = [math.exp(tau * sum(a * b for a, b in zip(unit_row, each, strict=True))) for each in base_rows]
        mixed = unit(
            [
                sum(weight * each[d] for weight, each in zip(weights, base_rows, strict=True)) / sum(weights)
                for d in range(len(unit_row))
            ]
        )
        rows.append([alpha * x + (1 - alpha) * y for x, y in zip(unit_row, mixed, strict=True)])
    return rows


@pytest.mark.parametrize(("alpha", "tau"), [(0.5, 16.0), (0.8, 4.0), (0.0, 1.0)])
@pytest.mark.parametrize(("classes", "base_classes"), [(3, 5), (1, 1)])
def test_it_is_the_formula(alpha: float, tau: float, classes: int, base_classes: int) -> None:
    new, base = 3 * draw(classes, 6), draw(base_classes, 6, seed=1)
    expected = torch.tensor(plain(new, base, alpha, tau), dtype=torch.float64)
    torch.testing.assert_close(calibrated_means(new, base, alpha, tau), expected)


@settings(max_examples=50)
@given(st.integers(0, 999), st.floats(0, 1), st.floats(0, 64), st.floats(0.01, 100))
def test_it_is_blind_to_length_and_stays_within_the_unit_ball(
    seed: int, alpha: float, tau: float, length: float
) -> None:
    new, base = draw(4, 5, seed=seed), draw(3, 5, seed=seed + 1)
    means = calibrated_means(new, base, alpha, tau)
    torch.testing.assert_close(calibrated_means(length * new, base / length, alpha, tau), means)
    assert float(means.norm(dim=1).amax()) <= 1 + 1e-12


def test_a_share_of_one_leaves_the_means_as_they_are() -> None:
    base, new, x = draw(4, 6).float(), draw(3, 6, seed=1).float(), draw(9, 6, seed=2).float()
    head = teen_head(base, new, 16.0, alpha=1.0)
    torch.testing.assert_close(head(x), cosine_logits(x, torch.cat([base, new]), 16.0), rtol=1e-4, atol=1e-5)


def test_a_new_class_comes_nearer_to_what_it_resembles() -> None:
    base = torch.eye(3, dtype=torch.float64)
    new = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    calibrated = calibrated_means(new, base, alpha=0.5, tau=16.0)
    before, after = (torch.cosine_similarity(each, base[:1]).item() for each in (new, calibrated))
    assert after > before + 0.02


def test_base_rows_do_not_change_and_session_zero_has_none_to_add() -> None:
    base, new, x = draw(4, 6), draw(3, 6, seed=1), draw(9, 6, seed=2).float()
    torch.testing.assert_close(teen_head(base, new, 16.0)(x)[:, :4], teen_head(base, new[:0], 16.0)(x))
