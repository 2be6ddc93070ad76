"""The device of float64."""

import pytest
import torch

from m2sd_cli.method.numerics import float64_device


@pytest.mark.parametrize(("name", "expected"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_float64_stays_where_it_can(name: str, expected: str) -> None:
    assert float64_device(torch.device(name)) == torch.device(expected)
