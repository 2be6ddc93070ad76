"""More shots of base classes, against plain float64 loops."""

import math

import pytest
import torch

from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.extension import extended_base, extended_means, joined_mean


def test_an_extended_mean_is_that_of_all_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    before, more = torch.rand(7, 5, generator=generator), torch.rand(3, 5, generator=generator)
    means = torch.stack([torch.zeros(5), before.double().mean(dim=0).float()])
    extended = extended_means(means, [4, 7], {1: more})
    assert torch.equal(extended[0], means[0])
    for column in range(5):
        total = math.fsum([*before[:, column].tolist(), *more[:, column].tolist()])
        assert math.isclose(float(extended[1, column]), total / 10, rel_tol=1e-6)
    assert torch.equal(means[1], before.double().mean(dim=0).float())  # what was given is left alone


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_extended_statistics_are_those_of_a_base_session_of_all_images(power: float) -> None:
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.rand(12, 6, generator=generator), torch.tensor([0] * 5 + [1] * 4 + [2] * 3)
    more = torch.rand(2, 6, generator=generator)
    counts = labels.bincount()
    first = BaseSums(counts, 6, power=power)
    first.add(features, labels)
    every = BaseSums(counts + torch.tensor([0, 2, 0]), 6, power=power)
    every.add(torch.cat([features, more]), torch.cat([labels, torch.tensor([1, 1])]))
    wanted, before = every.statistics(), first.statistics()
    means, found, images = extended_base(first.means.means(), before, counts.tolist(), {1: more})
    assert images == [5, 6, 3]
    torch.testing.assert_close(means, every.means.means(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.power_means, wanted.power_means, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.random_means, wanted.random_means, rtol=1e-6, atol=1e-7)
    assert torch.equal(found.power_covariance, before.power_covariance)
    assert torch.equal(found.random_gram, before.random_gram)


def test_the_mean_of_shots_of_several_sessions() -> None:
    shots = torch.tensor([[1.0, 4.0], [2.0, 4.0], [6.0, 4.0]])
    assert joined_mean(shots).tolist() == [3.0, 4.0]
    assert joined_mean(shots[:1]).tolist() == [1.0, 4.0]
