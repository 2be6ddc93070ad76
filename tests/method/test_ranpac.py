"""RanPAC against ridge regression that is solved anew for every class."""

import pytest
import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import random_features, random_projection
from m2sd_cli.method.ranpac import ranpac_head


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_features(x: Tensor, projection: Tensor) -> Tensor:
    rows = []
    for vector in x.tolist():
        length = sum(value * value for value in vector) ** 0.5
        columns = projection.T.tolist()
        rows.append([max(sum(a * b for a, b in zip(vector, each, strict=True)) / length, 0) for each in columns])
    return torch.tensor(rows, dtype=torch.float64)


def regression(classes: list[Tensor], base: int, ridge: float) -> Tensor:
    """argmin_W sum_c 1/(C K_c) sum_i |W h_i - e_c|^2 + lambda |W|^2 over all the classes given; rows (classes, M)."""
    size = classes[0].shape[1]
    left, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, len(classes), dtype=torch.float64)
    for number, h in enumerate(classes):
        for each in h:
            left += torch.outer(each, each) / (len(h) * base)
            right[:, number] += each / (len(h) * base)
    inverse: Tensor = torch.linalg.inv(left + ridge * torch.eye(size, dtype=torch.float64))
    return (inverse @ right).T


# 13 shots are more than the 12 random features, 12 as many.
@pytest.mark.parametrize("counts", [[3, 1, 5], [1], [], [13], [12, 13, 2]])
@pytest.mark.parametrize("base_counts", [[7, 2], [1]])
def test_it_is_ridge_regression_of_the_base_and_one_new_class(counts: list[int], base_counts: list[int]) -> None:
    projection = random_projection(4, 12, seed=3).double()
    base = [random_features(draw(count, 4, seed=count), projection) for count in base_counts]
    shots = [draw(count, 4, seed=20 + count) for count in counts]
    gram = sum(h.T @ h / len(h) for h in base) / len(base)
    assert isinstance(gram, Tensor)
    ridge = 0.2 * float(gram.diagonal().mean())
    head = ranpac_head(projection, gram, torch.stack([h.mean(dim=0) for h in base]), shots, 16.0, ridge=0.2)
    expected = [regression(base, len(base), ridge)]
    expected += [
        regression([*base, random_features(each, projection)], len(base), ridge)[len(base) :] for each in shots
    ]
    x = draw(6, 4, seed=9)
    torch.testing.assert_close(head.rows.double(), 16 * torch.cat(expected), rtol=1e-4, atol=1e-4)
    logits = head(x.float()).double()
    torch.testing.assert_close(logits, plain_features(x, projection) @ head.rows.double().T, rtol=1e-4, atol=1e-4)


def test_the_scores_of_a_base_class_s_own_images_are_near_its_target() -> None:
    projection = random_projection(8, 64)
    x = torch.cat([torch.eye(8)[:2]] * 5) + 0.05 * draw(10, 8).float()
    h = random_features(x, projection)
    by_class = [h[0::2], h[1::2]]
    gram = torch.stack([each.T @ each / 5 for each in by_class]).mean(dim=0)
    head = ranpac_head(projection, gram, torch.stack([each.mean(dim=0) for each in by_class]), [], 1.0, ridge=1e-4)
    torch.testing.assert_close(head(torch.eye(8)[:2]), torch.eye(2), rtol=0, atol=0.1)


def test_many_classes_are_taught_as_each_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    projection = random_projection(4, 10)
    h = random_features(draw(6, 4).float(), projection)
    arguments = projection, h.T @ h / 6, h.mean(dim=0, keepdim=True)
    shots = [draw(1 + number % 3, 4, seed=number).float() for number in range(7)]
    whole = ranpac_head(*arguments, shots, 16.0).rows
    for number, each in enumerate(shots):
        torch.testing.assert_close(ranpac_head(*arguments, [each], 16.0).rows[1], whole[1 + number])
    monkeypatch.setattr("m2sd_cli.method.ranpac.AT_ONCE", 3)
    torch.testing.assert_close(ranpac_head(*arguments, shots, 16.0).rows, whole)


def test_the_projection_is_always_the_same() -> None:
    first, second = random_projection(5, 7), random_projection(5, 7)
    assert first.shape == (5, 7)
    assert torch.equal(first, second)
    assert not torch.equal(first, random_projection(5, 7, seed=1))


def test_features_that_are_all_zero_give_a_head_of_zeros() -> None:
    projection = random_projection(4, 6)
    head = ranpac_head(projection, torch.zeros(6, 6), torch.zeros(2, 6), [torch.zeros(3, 4)], 16.0)
    assert torch.equal(head(draw(3, 4).float()), torch.zeros(3, 3))
