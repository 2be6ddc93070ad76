"""Batch normalisation folded into convolutions, beside the network as it was."""

import copy

import pytest
import torch
from torch import nn

from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.method.folding import folded_copy
from m2sd_cli.method.resnet12 import ResNet12
from m2sd_cli.tables import BACKBONES
from tests.helpers import OneLayer


def lived_in(network: nn.Module) -> None:
    """Give batch normalisations the statistics and factors of a trained network."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                assert tensor is not None
                tensor.data.uniform_(0.5, 2.0, generator=generator)
            for tensor in (module.running_mean, module.bias):
                assert tensor is not None
                tensor.data.normal_(generator=generator)


@pytest.fixture(scope="module", params=["resnet20", "resnet12", "resnet18", "resnet50", "efficientnet-lite0"])
def network(request: pytest.FixtureRequest) -> Backbone:
    backbone = build_backbone(request.param)
    lived_in(backbone)
    return backbone.eval().double()


def test_the_features_are_the_same(network: Backbone) -> None:
    images = torch.randn(3, 3, 40, 33, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    folded = network.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        wanted, found = network(images), folded(images)
    torch.testing.assert_close(found.pooled, wanted.pooled, rtol=1e-9, atol=1e-9)
    for one, other in zip(found.maps, wanted.maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_network_may_be_folded_where_features_are_computed(network: Backbone) -> None:
    with torch.inference_mode():
        folded = network.for_inference()
    assert not any(tensor.is_inference() for tensor in folded.state_dict().values())


def test_every_network_of_the_package_is_folded() -> None:
    assert all(build_backbone(name).folds for name in BACKBONES.entries)
    own = OneLayer()
    assert own.for_inference() is own


def test_a_subclass_may_have_another_order() -> None:
    class PreActivated(ResNet12):
        pass

    own = PreActivated().eval()
    assert own.for_inference() is own


def test_a_normalisation_without_a_convolution_before_it_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    lived_in(network)
    images = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        assert torch.equal(folded_copy(network)(images), network(images))
