"""A file of tensors holds exactly what it must."""

import pytest
import torch
from torch import Tensor

from m2sd_cli.runs.tensors import find_mismatch, tensor_specs

REQUIRED = tensor_specs({"w": torch.zeros(2, 3), "n": torch.tensor(0)}, "net.")
OPTIONAL = tensor_specs({"v": torch.zeros(4)})
GOOD = {"net.w": torch.ones(2, 3), "net.n": torch.tensor(7)}
WRONG = {
    "net.w": torch.ones(3, 2),
    "net.n": torch.tensor(7.0),
    "v": torch.full((4,), torch.inf),
    "x": torch.zeros(1),
    "y": torch.zeros(1),
}


def test_what_fits_is_right() -> None:
    assert find_mismatch(GOOD, REQUIRED) is None
    assert find_mismatch(GOOD, REQUIRED, OPTIONAL) is None
    assert find_mismatch(GOOD | {"v": torch.zeros(4)}, REQUIRED, OPTIONAL, most=3) is None


@pytest.mark.parametrize(
    ("change", "mismatch"),
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
        ({"net.w": torch.ones(2, 3).to_sparse()}, "net.w is not made of plain numbers"),
        ({"net.w": torch.ones(2, 3, device="meta")}, "net.w is not made of plain numbers"),
        ({"net.w": torch.tensor([[1, 2, 3], [4, float("nan"), 6]])}, "net.w holds a number that is not finite"),
        ({"net.w": torch.full((2, 3), -float("inf"))}, "net.w holds a number that is not finite"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], mismatch: str) -> None:
    assert find_mismatch(GOOD | change, REQUIRED) == mismatch


def test_what_is_missing_is_named() -> None:
    assert find_mismatch({"net.w": torch.ones(2, 3)}, REQUIRED) == "net.n is missing"
    assert find_mismatch({}, REQUIRED) == "net.n is missing"
    assert find_mismatch({}, REQUIRED, most=2) == "net.n is missing; net.w is missing"


@pytest.mark.parametrize(
    ("most", "sentence"),
    [
        (1, "net.w has not the shape (2, 3)"),
        (2, "net.w has not the shape (2, 3); net.n is float32, not int64 and 3 more"),
        (4, "{0}; 'x' does not belong there and 1 more"),
        (5, "{0}; 'x' does not belong there; 'y' does not belong there"),
        (9, "{0}; 'x' does not belong there; 'y' does not belong there"),
    ],
)
def test_as_many_are_named_as_are_asked_for_and_the_others_counted(most: int, sentence: str) -> None:
    three = "net.w has not the shape (2, 3); net.n is float32, not int64; v holds a number that is not finite"
    assert find_mismatch(WRONG, REQUIRED, OPTIONAL, most=most) == sentence.format(three)


@pytest.mark.parametrize(
    ("change", "mismatch"),
    [
        ({"net.w": torch.ones(2, 3, dtype=torch.float64)}, None),
        ({"net.w": torch.ones(2, 3, dtype=torch.bfloat16)}, None),
        ({"net.n": torch.tensor(7, dtype=torch.uint8)}, None),
        ({"net.n": torch.tensor(7.0)}, "net.n is float32, not int64"),
        ({"net.w": torch.ones(2, 3, dtype=torch.complex64)}, "net.w is complex64, not float32"),
        ({"net.w": torch.ones(2, 3, dtype=torch.float64).to_sparse()}, "net.w is float64, not float32"),
        ({"net.w": torch.full((2, 3), 1e300, dtype=torch.float64)}, "net.w holds a number that is not finite"),
    ],
)
def test_other_precisions_are_converted_if_they_may(change: dict[str, Tensor], mismatch: str | None) -> None:
    assert find_mismatch(GOOD | change, REQUIRED, convertible=True) == mismatch
