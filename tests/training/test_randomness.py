"""Streams that a seed, a purpose and a number decide."""

import math

import torch

from m2sd_cli.training.randomness import stream


def test_the_same_name_gives_the_same_numbers() -> None:
    assert torch.equal(
        torch.rand(8, generator=stream(7, "pretrain order", 3)), torch.rand(8, generator=stream(7, "pretrain order", 3))
    )


def test_a_stream_does_not_change_between_versions() -> None:
    """A training begun by one release is resumed by the next."""
    assert stream(0, "pretrain order", 0).initial_seed() == 6706676008897331105
    assert stream(1, "distill step", 999).initial_seed() == 6084360684111832754


def test_any_other_name_gives_other_numbers() -> None:
    seeds = {
        stream(seed, f"{stage} {purpose}", number).initial_seed()
        for seed in (0, 1, 10)
        for stage in ("pretrain", "distill")
        for purpose in ("order", "step")
        for number in (0, 1, 10, 100)
    }
    assert len(seeds) == 3 * 2 * 2 * 4


def test_a_stream_leaves_the_global_one_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=stream(0, "pretrain order", 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_first_numbers_of_consecutive_steps_are_uniform_and_unrelated() -> None:
    count = 4000
    first = torch.stack([torch.rand(1, generator=stream(0, "step", n), dtype=torch.float64)[0] for n in range(count)])
    observed = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    assert float((first.sort().values - observed).abs().amax()) < 1.95 / math.sqrt(count)
    assert abs(float(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1])) < 4 / math.sqrt(count)
