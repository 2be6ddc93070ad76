"""Class activation maps against plain loops in float64, and their means against the scores of heads."""

import math

import pytest
import torch

from m2sd_cli.method.activation_map import activation_maps
from m2sd_cli.method.class_weights import class_logits
from m2sd_cli.method.numerics import global_average_pool


@pytest.mark.parametrize("similarity", ["cosine", "linear"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 1)], ids=str)
def test_a_map_is_as_the_loop_says_and_its_mean_is_the_score(similarity: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64)
    rows = torch.randn(shape[0], 3, shape[1], generator=generator, dtype=torch.float64)
    found = activation_maps(maps, rows, similarity, 16.0)
    images, width, height, breadth = shape
    for b in range(images):
        phi = [
            sum(float(maps[b, d, y, x]) for y in range(height) for x in range(breadth)) / (height * breadth)
            for d in range(width)
        ]
        for k in range(3):
            factor = 1.0
            if similarity == "cosine":
                lengths = (math.sqrt(sum(each**2 for each in vector)) for vector in (phi, rows[b, k].tolist()))
                factor = 16.0 / math.prod(lengths)
            for y in range(height):
                for x in range(breadth):
                    part = factor * sum(float(rows[b, k, d] * maps[b, d, y, x]) for d in range(width))
                    assert float(found[b, k, y, x]) == pytest.approx(part, rel=1e-12)
        score = class_logits(global_average_pool(maps[b : b + 1]), rows[b], similarity, 16.0)[0]
        torch.testing.assert_close(found[b].mean(dim=(1, 2)), score, rtol=1e-10, atol=1e-10)


def test_an_image_without_any_feature_has_maps_of_zeros() -> None:
    assert not activation_maps(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 4), "cosine").any()


def test_half_precision_is_computed_in_single() -> None:
    maps, rows = torch.ones(1, 4, 2, 2, dtype=torch.bfloat16), torch.ones(1, 2, 4, dtype=torch.bfloat16)
    assert activation_maps(maps, rows, "linear").dtype == torch.float32
