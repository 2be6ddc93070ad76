"""A file of tensors holds exactly what it must."""

import pytest
import torch
from torch import Tensor

from m2sd_cli.runs.tensors import find_mismatch, tensor_specs

WANTED = tensor_specs({"w": torch.zeros(2, 3), "n": torch.tensor(0)}, "net.")
ALLOWED = tensor_specs({"v": torch.zeros(4)})
GOOD = {"net.w": torch.ones(2, 3), "net.n": torch.tensor(7)}


def test_what_fits_is_right() -> None:
    assert find_mismatch(GOOD, WANTED) is None
    assert find_mismatch(GOOD, WANTED, ALLOWED) is None
    assert find_mismatch(GOOD | {"v": torch.zeros(4)}, WANTED, ALLOWED) is None


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"v": torch.zeros(4)}, "'v' does not belong there"),
        ({1000 * "x": torch.zeros(4)}, f"'{80 * 'x'}...' does not belong there"),
        ({"net.w": torch.ones(3, 2)}, "net.w has not the shape (2, 3)"),
        ({"net.w": torch.ones(6)}, "net.w has not the shape (2, 3)"),
        ({"net.w": torch.ones(0, 2**60)}, "net.w has not the shape (2, 3)"),
        ({"net.n": torch.tensor([7])}, "net.n has not the shape ()"),
        ({"net.w": torch.ones(2, 3, dtype=torch.float64)}, "net.w is float64, not float32"),
        ({"net.w": torch.ones(2, 3, dtype=torch.bfloat16)}, "net.w is bfloat16, not float32"),
        ({"net.w": torch.ones(2, 3, dtype=torch.complex64)}, "net.w is complex64, not float32"),
        ({"net.w": torch.ones(2, 3, dtype=torch.bool)}, "net.w is bool, not float32"),
        ({"net.w": torch.ones(2, 3).to(torch.float8_e4m3fn)}, "net.w is float8_e4m3fn, not float32"),
        ({"net.n": torch.tensor(7.0)}, "net.n is float32, not int64"),
        ({"net.w": torch.tensor([[1, 2, 3], [4, float("nan"), 6]])}, "net.w holds a number that is not finite"),
        ({"net.w": torch.full((2, 3), -float("inf"))}, "net.w holds a number that is not finite"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], wrong: str) -> None:
    assert find_mismatch(GOOD | change, WANTED) == wrong


def test_what_is_missing_is_named() -> None:
    assert find_mismatch({"net.w": torch.ones(2, 3)}, WANTED) == "net.n is missing"
    assert find_mismatch({}, WANTED) in ("net.n is missing", "net.w is missing")
