"""Calibrated stacking against a loop."""

import torch
from torch import Tensor

from m2sd_cli.method.debiased import debiased_head


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_formula() -> None:
    base, new, x = draw(3, 5), draw(2, 5, seed=1), draw(7, 5, seed=2)
    found = debiased_head(base, new, scale=16.0, gamma=0.1)(x)
    assert found.shape == (7, 5)
    for image in range(7):
        for number, row in enumerate([*base, *new]):
            cosine = torch.cosine_similarity(x[image].double(), row.double(), dim=0).item()
            wanted = 16 * (cosine - (0.1 if number < 3 else 0))
            assert abs(found[image, number].item() - wanted) < 1e-4


def test_a_base_without_new_classes_answers_as_it_would_anyway() -> None:
    base, x = draw(3, 5), draw(7, 5, seed=2)
    biased, plain = (debiased_head(base, base[:0], 16.0, gamma)(x) for gamma in (0.3, 0.0))
    torch.testing.assert_close(biased.softmax(dim=1), plain.softmax(dim=1))
    assert not torch.allclose(biased, plain)
