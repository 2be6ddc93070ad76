"""Class means against loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.prototypes import ClassMeans


def class_means(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    means = ClassMeans(classes, features.shape[1])
    means.add(features, labels)
    return means.means()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    means = []
    for c in range(classes):
        shots = [row for row, label in zip(features.tolist(), labels.tolist(), strict=True) if label == c]
        means.append([sum(column) / len(shots) for column in zip(*shots, strict=True)])
    return torch.tensor(means)


def test_class_means_are_the_formula() -> None:
    features, labels = draw(9, 4), torch.tensor([2, 0, 1, 1, 2, 2, 0, 1, 1])
    result = class_means(features, labels, 3)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, plain_means(features, labels, 3))


def test_features_keep_their_length() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert class_means(features, torch.tensor([0, 0]), 1).tolist() == [[1.5, 0.5]]


def test_the_mean_of_one_shot_is_the_shot() -> None:
    features = draw(3, 5)
    assert torch.equal(class_means(features, torch.tensor([1, 2, 0]), 3), features[[2, 0, 1]])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 7), st.integers(0, 99))
def test_cutting_into_batches_changes_nothing(labels: list[int], batch: int, seed: int) -> None:
    every = torch.tensor([0, 1, 2, *labels])
    features = draw(len(every), 4, seed=seed)
    means = ClassMeans(3, 4)
    for start in range(0, len(every), batch):
        means.add(features[start : start + batch], every[start : start + batch])
    torch.testing.assert_close(means.means(), class_means(features, every, 3), rtol=2e-7, atol=1e-9)
    torch.testing.assert_close(means.means(), plain_means(features, every, 3))


def test_small_features_are_not_lost_beside_large_ones() -> None:
    """In float32 1e8 + 1 is 1e8."""
    features = torch.tensor([[1e8], [1.0], [1.0], [1.0], [-1e8]])
    assert class_means(features, torch.zeros(5, dtype=torch.int64), 1).tolist() == [[pytest.approx(0.6)]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_type_give_float32(dtype: torch.dtype) -> None:
    features, labels = draw(4, 3).to(dtype), torch.tensor([0, 1, 1, 0])
    result = class_means(features, labels, 2)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, plain_means(features, labels, 2))


def test_a_class_without_image_has_no_mean() -> None:
    with pytest.raises(ValueError, match=r"without an image have no mean: \[1, 3\]"):
        class_means(draw(3, 2), torch.tensor([0, 2, 2]), 4)
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3, 4\]$"):
        ClassMeans(9, 2).means()
