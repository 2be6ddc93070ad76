"""Base statistics against loops over all images at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.base_statistics import (
    DIRECTIONS,
    MOST_NUMBERS,
    BaseStatistics,
    BaseSums,
    keeps_class_covariances,
    widest,
)
from m2sd_cli.method.feature_maps import random_features, random_projection
from m2sd_cli.method.prototypes import ClassMeans

WIDTH, SIZE = 4, 6
PROJECTION = random_projection(WIDTH, SIZE)


def draw(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).relu()


def gather(features: Tensor, labels: Tensor, batch: int, power: float = 0.5) -> BaseSums:
    sums = BaseSums(torch.bincount(labels), WIDTH, projection=PROJECTION, power=power)
    for start in range(0, len(labels), batch):
        sums.add(features[start : start + batch], labels[start : start + batch])
    return sums


def plain(features: Tensor, labels: Tensor, power: float) -> BaseStatistics:
    """Class by class, centred first."""
    x, h = features.double() ** power, random_features(features, PROJECTION).double()
    classes = int(labels.max()) + 1
    covariance, gram = torch.zeros(WIDTH, WIDTH).double(), torch.zeros(SIZE, SIZE).double()
    for c in range(classes):
        own, own_h = x[labels == c], h[labels == c]
        for each, each_h in zip(own - own.mean(dim=0), own_h, strict=True):
            covariance += torch.outer(each, each) / (len(own) * classes)
            gram += torch.outer(each_h, each_h) / (len(own) * classes)
    return BaseStatistics(
        power=torch.tensor([power]),
        power_means=torch.stack([x[labels == c].mean(dim=0) for c in range(classes)]).float(),
        power_covariance=covariance.float(),
        projection=PROJECTION,
        random_means=torch.stack([h[labels == c].mean(dim=0) for c in range(classes)]).float(),
        random_gram=gram.float(),
        directions=torch.eye(WIDTH),
        class_covariances=torch.stack([torch.cov(x[labels == c].T, correction=0) for c in range(classes)]).float(),
    )


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 2), max_size=20), st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.25, 0.5, 1.0])
)
def test_they_are_the_formulas_however_images_are_put_into_batches(
    labels: list[int], batch: int, seed: int, power: float
) -> None:
    every = torch.tensor([0, 1, 2, *labels])
    features = draw(len(every), seed)
    sums = gather(features, every, batch, power)
    expected = plain(features, every, power).tensors()
    for name, tensor in sums.statistics().tensors().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    means = ClassMeans(3, WIDTH)
    means.add(features, every)
    torch.testing.assert_close(sums.means.means(), means.means(), rtol=2e-7, atol=1e-9)


def test_what_several_have_added_up_is_their_sum() -> None:
    labels = torch.tensor([0, 1, 1, 0, 1])
    features = draw(5)
    parts = [BaseSums(torch.bincount(labels), WIDTH, projection=PROJECTION) for _ in range(2)]
    parts[0].add(features[:2], labels[:2])
    parts[1].add(features[2:], labels[2:])
    for total, other in zip(parts[0].totals, parts[1].totals, strict=True):
        total += other
    expected = gather(features, labels, 5).statistics().tensors()
    for name, tensor in parts[0].statistics().tensors().items():
        torch.testing.assert_close(tensor, expected[name])


def test_one_image_has_no_covariance() -> None:
    statistics = gather(draw(1), torch.tensor([0]), 1).statistics()
    torch.testing.assert_close(statistics.power_covariance, torch.zeros(WIDTH, WIDTH), rtol=0, atol=1e-6)


def test_a_class_without_image_is_refused() -> None:
    sums = BaseSums(torch.tensor([1, 1]), WIDTH, projection=PROJECTION)
    sums.add(draw(1), torch.tensor([1]))
    with pytest.raises(ValueError, match="without an image"):
        sums.statistics()


def test_they_take_as_much_as_is_said() -> None:
    for classes, width, most in ((60, 64, 6.2e6), (100, 512, 10e6)):
        size = random_projection(1).shape[1]
        numbers = classes * (width + size) + width * width + width * size + size * size
        numbers += width * DIRECTIONS + classes * DIRECTIONS**2
        assert keeps_class_covariances(classes, width)
        assert 4 * numbers < most


def test_many_wide_classes_keep_no_covariance() -> None:
    width = 1280
    classes = MOST_NUMBERS // width**2 + 1
    sums = BaseSums(torch.ones(classes, dtype=torch.int64), width, projection=random_projection(width, 2))
    sums.add(torch.rand(classes, width), torch.arange(classes))
    statistics = sums.statistics()
    assert statistics.class_covariances is None
    assert "directions" not in statistics.tensors()
    assert keeps_class_covariances(classes - 1, width)


def test_directions_are_those_of_the_largest_variances() -> None:
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.arange(1, 10)
    covariance = torch.cov(x.T, correction=0)
    directions = widest(covariance, most=3)
    torch.testing.assert_close(directions.T @ directions, torch.eye(3, dtype=torch.float64))
    values = torch.linalg.eigvalsh(covariance)[-3:]
    torch.testing.assert_close(directions.T @ covariance @ directions, torch.diag(values))
    assert (directions.amax(dim=0) == directions.abs().amax(dim=0)).all()
    assert torch.equal(widest(covariance), torch.eye(9, dtype=torch.float64))
