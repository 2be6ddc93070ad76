"""f = W^T phi against loops over the maps of a small network in float64."""

import math

import pytest
import torch

from m2sd_cli.method.class_weights import SIMILARITIES, ClassWeights
from m2sd_cli.method.network import Network
from m2sd_cli.method.resnet import Architecture, ResNet

CLASSES, SCALE = 3, 7.0


def small_network(similarity: str) -> Network:
    """Build a ResNet of a block a level in eval mode, its normalisation no longer the identity."""
    torch.manual_seed(0)
    backbone = ResNet(Architecture(imagenet_stem=False, widths=(2, 3, 5), depths=(1, 1, 1)))
    network = Network(backbone, ClassWeights(5, CLASSES, similarity, SCALE)).double()
    network(torch.randn(4, 3, 8, 8, dtype=torch.float64))
    return network.eval()


def dot(first: list[float], second: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_logits_compare_the_mean_of_the_last_map_with_each_row(similarity: str) -> None:
    network = small_network(similarity)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        logits, features = network(x)
        alone = network.backbone(x)
    assert [each.shape for each in features.maps] == [(2, 2, 8, 8), (2, 2, 8, 8), (2, 3, 4, 4), (2, 5, 2, 2)]
    assert all(torch.equal(one, other) for one, other in zip(features.maps, alone.maps, strict=True))
    rows = network.class_weights.weight.tolist()
    for image in range(2):
        channels = features.maps[3][image].flatten(1).tolist()
        phi = [math.fsum(values) / len(values) for values in channels]
        assert min(dot(phi, phi), *(abs(dot(phi, row)) for row in rows)) > 0.001  # no sign is lost
        assert features.pooled[image].tolist() == pytest.approx(phi, rel=1e-12)
        expected = [dot(phi, row) for row in rows]
        if similarity == "cosine":
            expected = [SCALE * dot(phi, row) / (math.sqrt(dot(phi, phi)) * math.sqrt(dot(row, row))) for row in rows]
        assert logits[image].tolist() == pytest.approx(expected, rel=1e-10)
