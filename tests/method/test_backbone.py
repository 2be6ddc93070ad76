"""Every backbone of the table keeps the contract."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.method.backbone import Backbone, Features, build_backbone, check_features
from m2sd_cli.tables import BACKBONES, BackboneEntry
from m2sd_cli.training.pretrain import build_network


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    torch.autograd.backward(backbone(torch.randn(2, 3, 64, 64)).pooled.square().sum())
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().amax() > 0, parameter_name


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_half_precision_is_pooled_in_float32(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = backbone(x).pooled
        with torch.autocast("cpu", torch.bfloat16):
            maps, pooled = backbone(x)
    assert maps[3].dtype == torch.bfloat16
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, plain, rtol=0, atol=0.06 * float(plain.abs().amax()))


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_the_blocks_map_one_map_to_the_next(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        maps = backbone(x).maps
        for block in backbone.blocks:
            x = getattr(backbone, block)(x)
    assert torch.equal(x, maps[3]) or not backbone.blocks


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--backbone resnet21: choose .* \(did you mean resnet20\?\); m2sd --plugin "
    ):
        build_backbone("resnet21")


class Narrow(Backbone):
    """A backbone of a plug-in whose attributes may be wrong."""

    def __init__(self, width: int, level_widths: tuple[int, ...]) -> None:
        super().__init__()
        self.width, self.level_widths = width, level_widths


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        (lambda: nn.Linear(1, 1), "it builds a Linear, and no Backbone"),
        (lambda: 1 / 0, r"it fails \(ZeroDivisionError: division by zero\); --debug shows where"),
        (lambda: Backbone(), r"it fails \(AttributeError: .* has no attribute 'level_widths'\); --debug shows"),
        (lambda: Narrow(4, (1, 2, 4)), r"level_widths \(1, 2, 4\) and width 4: four levels"),
        (lambda: Narrow(5, (1, 2, 3, 4)), r"level_widths \(1, 2, 3, 4\) and width 5: four levels"),
    ],
)
def test_a_builder_that_breaks_the_contract_is_named(
    builder: Callable[[], nn.Module], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES.entries, "broken", BackboneEntry(builder, "Broken"))
    with pytest.raises(M2sdError, match=f"^--backbone broken: {says}"):
        build_backbone("broken")


class Sized(Backbone):
    """A backbone of a plug-in that makes maps of given shapes."""

    level_widths = (2, 2, 4, 4)
    width = 4

    def __init__(self, sizes: tuple[int, ...], widths: tuple[int, ...] = (2, 2, 4, 4), pooled: str = "mean") -> None:
        super().__init__()
        self.sizes, self.widths, self.pooled = sizes, widths, pooled

    def forward(self, x: Tensor) -> Features:
        """See Backbone."""
        assert not self.training
        maps = tuple(torch.ones(len(x), width, size, size) for width, size in zip(self.widths, self.sizes, strict=True))
        mean = maps[-1].mean(dim=(2, 3))
        return Features(maps, {"mean": mean, "other": mean + 1, "wide": mean.repeat(1, 2)}[self.pooled])


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        (Sized((8, 4, 5, 2)), "its maps are 2x8x8, 2x4x4, 4x5x5, 4x2x2: each has to be as large as the one before, or"),
        (
            Sized((8, 4, 2, 1), (2, 2, 4, 3)),
            "its maps are 2x8x8, 2x4x4, 4x2x2, 3x1x1; level_widths promises four of 2, ",
        ),
        (
            Sized((8, 4, 2), (2, 2, 4)),
            "its maps are 2x8x8, 2x4x4, 4x2x2; level_widths promises four of 2, 2, 4, 4 channels",
        ),
        (Sized((8, 4, 2, 1), pooled="wide"), r"its pooled feature has shape \(1, 8\); width promises \(1, 4\)"),
        (Sized((8, 4, 2, 1), pooled="other"), "its pooled feature is not the mean of the last map; pools_last = False"),
        (Sized((8, 4, 2, 1), (2,)), "it fails at an image of 8 pixels: zip"),
    ],
)
def test_features_that_break_the_contract_are_told(backbone: Sized, reason: str) -> None:
    with pytest.raises(M2sdError, match=rf"^--backbone own: (of an image of 8 pixels )?{reason}"):
        check_features(backbone.train(), "own", 8)
    assert backbone.training


class Checked(Sized):
    """A backbone that refuses small images."""

    def check(self, image_size: int) -> None:
        """See Backbone."""
        if image_size < 16:
            raise UsageError(f"--image-size {image_size}: at least 16")


class Unbiased(Backbone):
    """A backbone of one convolution without bias, whose maps of a black image are zeros."""

    level_widths = (4,) * 4
    width = 4

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.level = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = pool

    def forward(self, x: Tensor) -> Features:
        """See Backbone."""
        level = self.level(x)
        return Features((level,) * 4, self.pool(level))


def test_another_pooling_is_found_in_a_network_without_biases() -> None:
    largest, mean = Unbiased(lambda level: level.amax(dim=(2, 3))), Unbiased(lambda level: level.mean(dim=(2, 3)))
    assert not largest.eval()(torch.zeros(1, 3, 8, 8)).pooled.any()
    random = torch.get_rng_state()
    says = "^--backbone own: of an image of 8 pixels its pooled feature is not the mean of the last map; pools_last = F"
    with pytest.raises(M2sdError, match=says):
        check_features(largest, "own", 8)
    check_features(mean, "own", 8)
    assert torch.equal(torch.get_rng_state(), random)  # the weights that are drawn next stay as they were


@pytest.mark.parametrize("sizes", [(8, 4, 2, 1), (8, 8, 8, 8), (7, 3, 1, 1)])
def test_maps_that_grow_nowhere_are_taken(sizes: tuple[int, ...]) -> None:
    check_features(Sized(sizes), "own", 8)


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_the_networks_of_the_package_keep_what_others_are_held_to(name: str) -> None:
    torch.manual_seed(0)
    check_features(build_backbone(name), name, 33)


def test_a_training_of_a_broken_plug_in_ends_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKBONES, "entries", dict(BACKBONES.entries))
    BACKBONES.register("own", BackboneEntry(lambda: Sized((8, 4, 5, 2)), "Own"), "own:build")
    config = PretrainConfig(epochs=1, backbone="own")
    with pytest.raises(M2sdError, match="own, of own without a version: of an image of 32 pixels its maps are "):
        build_network(config, 3, 32)
    BACKBONES.register("checked", BackboneEntry(lambda: Checked((8, 4, 5, 2)), "Own"), "own:build")
    with pytest.raises(M2sdError, match="checked, of own without a version: of an image of 32 pixels its maps are "):
        build_network(PretrainConfig(epochs=1, backbone="checked"), 3, 32)
    with pytest.raises(UsageError, match=r"^--image-size 8: at least 16$"):
        build_network(PretrainConfig(epochs=1, backbone="checked"), 3, 8)
    BACKBONES.register("fine", BackboneEntry(lambda: Sized((8, 4, 2, 1)), "Own"), "own:build")
    build_network(PretrainConfig(epochs=1, backbone="fine"), 3, 32)
