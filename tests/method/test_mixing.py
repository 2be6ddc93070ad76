"""Virtual-class mixing against loops over pixels, and the distributions that it draws from."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.mixing import (
    Mixing,
    cutmix,
    cutmix_box,
    mix,
    mixup,
    pair_different_classes,
    sample_lambda,
    soft_labels,
)

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=12)
LAMBDAS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int, height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=generator(99), dtype=torch.float64)


@given(LABELS, st.integers(0, 999))
def test_a_partner_is_of_another_class_or_the_image_itself(labels: list[int], seed: int) -> None:
    partner = pair_different_classes(torch.tensor(labels), generator(seed)).tolist()
    assert len(partner) == len(labels)
    for image, other in enumerate(partner):
        if any(label != labels[image] for label in labels):
            assert labels[other] != labels[image]
        else:
            assert other == image


def test_partners_are_uniform_over_all_images_of_other_classes() -> None:
    labels, draws, stream = torch.tensor([0, 0, 1, 1, 1, 2]), 6000, generator()
    counts = [Counter[int]() for _ in labels]
    for _ in range(draws):
        for image, other in enumerate(pair_different_classes(labels, stream).tolist()):
            counts[image][other] += 1
    for image, count in enumerate(counts):
        candidates = {other for other in range(6) if labels[other] != labels[image]}
        assert set(count) == candidates
        share = 1 / len(candidates)
        allowed = 5 * math.sqrt(draws * share * (1 - share))
        assert all(abs(times - draws * share) < allowed for times in count.values())


@pytest.mark.parametrize("beta", [0.001, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_lambda_has_the_mean_and_variance_of_a_symmetric_beta(beta: float) -> None:
    count = 1_000_000
    lam = sample_lambda(beta, count, generator()).double()
    variance = 1 / (4 * (2 * beta + 1))
    assert abs(float(lam.mean()) - 0.5) < 5 * math.sqrt(variance / count)
    # No symmetric beta has tails heavier than the normal distribution, whose variance is that uncertain.
    assert abs(float(lam.var()) - variance) < 5 * variance * math.sqrt(2 / count)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_lambda_is_distributed_as_beta(beta: float) -> None:
    """The greatest distance to the distribution function, which has a closed form at these three."""
    count = 20_000
    lam = sample_lambda(beta, count, generator(1)).double().sort().values
    below = {
        0.5: 2 / math.pi * lam.sqrt().asin(),
        1.0: lam,
        2.0: 3 * lam**2 - 2 * lam**3,
    }[beta]
    observed = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    assert float((below - observed).abs().amax()) < 1.95 / math.sqrt(count)


@given(st.floats(0, 1.7e308, exclude_min=True), st.integers(1, 64), st.integers(0, 999))
def test_lambda_is_within_zero_and_one_for_any_beta(beta: float, batch: int, seed: int) -> None:
    lam = sample_lambda(beta, batch, generator(seed))
    assert lam.shape == (batch,)
    assert lam.dtype == torch.float32
    assert ((lam >= 0) & (lam <= 1)).all()


def test_lambda_is_a_fair_coin_for_a_tiny_beta_and_one_half_for_a_huge_one() -> None:
    coins = sample_lambda(1e-9, 10_000, generator())
    assert set(coins.tolist()) == {0.0, 1.0}
    assert abs(float(coins.mean()) - 0.5) < 0.025
    assert sample_lambda(1e300, 10, generator()).tolist() == [0.5] * 10


def test_lambda_needs_no_float64_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, for which a CPU stands in here."""
    monkeypatch.setattr("m2sd_cli.method.mixing.WITHOUT_FLOAT64", ("cpu",))
    twice = [sample_lambda(0.5, 20_000, generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(twice[0], twice[1])
    assert not torch.equal(twice[0], twice[2])
    assert float(twice[0].double().var()) == pytest.approx(1 / 8, rel=0.05)


def test_every_pair_has_a_lambda_of_its_own() -> None:
    assert len(set(sample_lambda(1.0, 64, generator()).tolist())) == 64


def test_mixup_is_the_formula() -> None:
    x, partner, lam = images(4), torch.tensor([2, 0, 3, 3]), torch.tensor([0.0, 0.25, 0.7, 1.0])
    result = mixup(x, partner, lam)
    pixels = x.tolist()
    for i, (j, share) in enumerate(zip(partner.tolist(), lam.tolist(), strict=True)):
        for channel in range(3):
            for row in range(6):
                for column in range(5):
                    own, other = pixels[i][channel][row][column], pixels[j][channel][row][column]
                    assert float(result[i, channel, row, column]) == pytest.approx(
                        share * own + (1 - share) * other, abs=1e-12
                    )
    assert torch.equal(result[0], x[2])
    assert torch.equal(result[3], x[3])


@settings(max_examples=200)
@given(LAMBDAS, st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
def test_the_box_is_inside_the_image_and_of_the_stated_size(
    lam: list[float], height: int, width: int, seed: int
) -> None:
    edges = cutmix_box(torch.tensor(lam), height, width, generator(seed))
    for share, top, bottom, left, right in zip(lam, *(edge.tolist() for edge in edges), strict=True):
        assert all(float(edge).is_integer() for edge in (top, bottom, left, right))
        assert 0 <= top <= bottom <= height
        assert 0 <= left <= right <= width
        assert abs((bottom - top) - height * math.sqrt(1 - share)) <= 0.5001
        assert abs((right - left) - width * math.sqrt(1 - share)) <= 0.5001


def test_the_box_is_placed_by_the_draws() -> None:
    lam = torch.tensor([0.0, 0.1, 0.5, 0.75, 0.99, 1.0])
    corners = torch.rand(2, 6, generator=generator(3)).tolist()
    top, bottom, left, right = (edge.tolist() for edge in cutmix_box(lam, 21, 33, generator(3)))
    for number, share in enumerate(lam.tolist()):
        box_height, box_width = round(21 * math.sqrt(1 - share)), round(33 * math.sqrt(1 - share))
        assert top[number] == math.floor(corners[0][number] * (21 - box_height + 1))
        assert left[number] == math.floor(corners[1][number] * (33 - box_width + 1))
        assert bottom[number] - top[number] == box_height
        assert right[number] - left[number] == box_width


def test_every_place_of_the_box_is_equally_likely_from_one_end_to_the_other() -> None:
    draws = 20_000
    top, _, left, _ = cutmix_box(torch.full((draws,), 0.75), 8, 12, generator())
    for corner, places in ((top, 5), (left, 7)):
        counts = Counter(corner.tolist())
        assert set(counts) == set(range(places))
        allowed = 5 * math.sqrt(draws / places * (1 - 1 / places))
        assert all(abs(times - draws / places) < allowed for times in counts.values())


def test_cutmix_pastes_the_box_of_the_partner() -> None:
    x, partner, lam = images(5), torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    result = cutmix(x, partner, lam, generator(7))
    boxes = zip(*(edge.tolist() for edge in cutmix_box(lam, 6, 5, generator(7))), strict=True)
    for i, (top, bottom, left, right) in enumerate(boxes):
        for row in range(6):
            for column in range(5):
                inside = top <= row < bottom and left <= column < right
                source = int(partner[i]) if inside else i
                assert torch.equal(result[i, :, row, column], x[source, :, row, column])
    assert torch.equal(result[0], x[1])
    assert torch.equal(result[4], x[4])


def test_soft_labels_are_the_formula() -> None:
    labels, partner, lam = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 2]), torch.tensor([0.3, 0.0, 0.6])
    result = soft_labels(labels, partner, lam, 4)
    expected = [[0.0] * 4 for _ in range(3)]
    for i in range(3):
        expected[i][int(labels[i])] += float(lam[i])
        expected[i][int(labels[partner[i]])] += 1 - float(lam[i])
    torch.testing.assert_close(result, torch.tensor(expected))


@given(LABELS, st.floats(1e-6, 1e6), st.integers(0, 999))
def test_virtual_labels_sum_to_one(labels: list[int], beta: float, seed: int) -> None:
    virtual = mix(images(len(labels)), torch.tensor(labels), 5, beta, generator(seed))
    assert virtual.labels.shape == (len(labels), 5)
    assert (virtual.labels >= 0).all()
    torch.testing.assert_close(virtual.labels.sum(dim=1), torch.ones(len(labels)))
    assert torch.equal(virtual.labels[:, 4], torch.zeros(len(labels)))


@settings(max_examples=50)
@given(st.integers(2, 8), st.integers(1, 33), st.integers(1, 33), st.integers(0, 999))
def test_both_branches_and_the_label_share_partner_and_lambda(batch: int, height: int, width: int, seed: int) -> None:
    """Image i is filled with the number i and has class i, so that every result tells what it was made from."""
    numbers = torch.arange(batch, dtype=torch.float64)
    x = numbers.view(-1, 1, 1, 1).expand(batch, 3, height, width)
    virtual = mix(x, torch.arange(batch), batch, 1.0, generator(seed))
    for i in range(batch):
        lam = float(virtual.labels[i, i])
        others = [c for c in range(batch) if c != i and float(virtual.labels[i, c]) > 0]
        assert len(others) == 1
        partner = others[0]
        mixed, pasted_on = (branch[i] for branch in virtual.branches)
        assert float(mixed.amax() - mixed.amin()) == 0.0
        assert float(mixed[0, 0, 0]) == pytest.approx(lam * i + (1 - lam) * partner, abs=1e-5)
        pasted = pasted_on == partner
        assert torch.equal(pasted, pasted_on != i)
        area = round(height * math.sqrt(1 - lam)) * round(width * math.sqrt(1 - lam))
        assert int(pasted.sum()) == 3 * area


def test_each_pair_keeps_one_lambda_whatever_the_others_have() -> None:
    lam = [float(row[i]) for i, row in enumerate(mix(images(16), torch.arange(16), 16, 1.0, generator()).labels)]
    assert len(set(lam)) == 16


@pytest.mark.parametrize("labels", [[1], [2, 2, 2]])
def test_a_batch_of_one_class_stays_as_it_is(labels: list[int]) -> None:
    x = images(len(labels))
    virtual = mix(x, torch.tensor(labels), 3, 1.0, generator())
    mixed, pasted = virtual.branches
    torch.testing.assert_close(mixed, x, rtol=0, atol=1e-12)
    assert torch.equal(pasted, x)
    torch.testing.assert_close(virtual.labels, torch.eye(3)[labels])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_virtual_images_keep_the_type_and_shape_of_the_images(dtype: torch.dtype) -> None:
    virtual = mix(images(4, 21, 33).to(dtype), torch.arange(4), 4, 1.0, generator())
    assert len(virtual.branches) == 2
    for branch in virtual.branches:
        assert branch.dtype == dtype
        assert branch.shape == (4, 3, 21, 33)
    assert virtual.labels.dtype == torch.float32


def test_the_generator_alone_decides() -> None:
    x, labels = images(8), torch.arange(8) % 4
    first, again, other = (mix(x, labels, 4, 1.0, generator(seed)) for seed in (1, 1, 2))
    pairs = ([*each.branches, each.labels] for each in (first, again, other))
    for one, same, different in zip(*pairs, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


@pytest.mark.parametrize(("mixing", "number"), [("mixup", 0), ("cutmix", 1)])
def test_a_branch_alone_is_what_it_is_beside_the_other(mixing: Mixing, number: int) -> None:
    x, labels = images(8), torch.arange(8) % 4
    both, alone = mix(x, labels, 4, 1.0, generator()), mix(x, labels, 4, 1.0, generator(), mixing)
    [branch] = alone.branches
    assert torch.equal(branch, both.branches[number])
    assert not torch.equal(branch, both.branches[1 - number])
    assert torch.equal(alone.labels, both.labels)


def test_without_mixing_the_clean_images_are_the_branch_and_nothing_is_drawn() -> None:
    source = generator()
    before = source.get_state()
    x = images(3)
    virtual = mix(x, torch.tensor([2, 0, 2]), 4, 1.0, source, "none")
    assert len(virtual.branches) == 1
    assert torch.equal(virtual.branches[0], x)
    assert torch.equal(virtual.labels, torch.eye(4)[[2, 0, 2]])
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_beta_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be a finite number above 0"):
        mix(images(2), torch.tensor([0, 1]), 2, beta, generator())
