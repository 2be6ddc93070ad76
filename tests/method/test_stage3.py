"""The classes that stage 3 knows, against plain sums."""

import math

import pytest
import torch

from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.stage3 import KnownClasses


@pytest.mark.parametrize("power", [0.5, 0.25, 1.0])
@pytest.mark.parametrize("counts", [(), (1,), (3, 1, 2)])
def test_new_classes_have_means_of_the_powers_of_the_base_session(counts: tuple[int, ...], power: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sums = BaseSums(torch.tensor([2, 1]), 4, projection=torch.ones(4, 2), power=power)
    sums.add(torch.rand(3, 4, generator=generator), torch.tensor([0, 1, 0]))
    shots = [torch.randn(count, 4, generator=generator) for count in counts]
    new = torch.cat([torch.empty(0, 4), *(each.mean(dim=0, keepdim=True) for each in shots)])
    means = KnownClasses(sums.means.means(), new, shots, sums.statistics(), [2, 1]).power_means()
    expected = [
        [math.fsum(max(value, 0.0) ** power for value in column) / len(each) for column in each.T.tolist()]
        for each in shots
    ]
    assert means.shape == (len(counts), 4)
    torch.testing.assert_close(means, torch.tensor(expected).view(-1, 4))
