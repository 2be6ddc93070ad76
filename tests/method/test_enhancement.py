"""FE(x) = FPN(EN(phi(x))) and p_hat = W'(T_4)."""

import math

import pytest
import torch
from torch import Tensor

from m2sd_cli.method.attention import CoordinateAttention, SelfAttention
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.tables import BACKBONES

WIDTHS = (4, 8, 8, 12)


def maps(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, two, three, four = (
        torch.randn(batch, width, side, side, dtype=torch.float64, generator=generator)
        for width, side in zip(WIDTHS, (9, 5, 3, 2), strict=True)
    )
    return one, two, three, four


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def test_self_attention_on_the_outer_levels_and_coordinate_attention_on_the_inner() -> None:
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3).double()
    kinds = [type(each) for each in enhancement.attention]
    assert kinds == [SelfAttention, CoordinateAttention, CoordinateAttention, SelfAttention]
    phi = maps()
    attended = [attend(each) for attend, each in zip(enhancement.attention, phi, strict=True)]
    assert enhancement.pyramid is not None
    for result, expected in zip(enhancement(phi).maps, enhancement.pyramid(tuple(attended)), strict=True):
        torch.testing.assert_close(result, expected)


def test_without_attention_the_pyramid_fuses_the_maps_themselves() -> None:
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3, attention=False).double()
    phi = maps()
    assert enhancement.pyramid is not None
    for result, expected in zip(enhancement(phi).maps, enhancement.pyramid(phi), strict=True):
        torch.testing.assert_close(result, expected)
    assert {name.split(".")[0] for name, _ in enhancement.named_parameters()} == {"pyramid", "class_weights"}


def test_without_pyramid_the_attended_last_map_is_what_it_makes() -> None:
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3, similarity="linear", pyramid=False).double()
    phi = maps()
    result = enhancement(phi)
    attend, t_4 = enhancement.attention[0], result.maps[0]
    assert isinstance(attend, SelfAttention)
    assert (len(enhancement.attention), len(result.maps)) == (1, 1)
    torch.testing.assert_close(t_4, attend(phi[3]))
    assert {name.split(".")[0] for name, _ in enhancement.named_parameters()} == {"attention", "class_weights"}
    for number, image in enumerate(t_4.tolist()):
        pooled = [sum(map(sum, channel)) / 4 for channel in image]
        for c, row in enumerate(enhancement.class_weights.weight.tolist()):
            assert result.logits[number, c].item() == pytest.approx(dot(pooled, row), rel=1e-9)


@pytest.mark.parametrize(("attention", "pyramid"), [(True, True), (False, True), (True, False)])
def test_p_hat_teaches_all_of_it(attention: bool, pyramid: bool) -> None:
    """A parameter that p_hat does not depend on would stay as it was drawn, and teach all the same."""
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3, attention=attention, pyramid=pyramid).double()
    enhancement(maps(batch=4)).logits.square().sum().backward()
    for name, parameter in enhancement.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("similarity", ["cosine", "linear"])
def test_p_hat_compares_the_mean_of_the_last_level_with_the_class_weights(similarity: str) -> None:
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3, similarity=similarity, scale=5.0).double()
    result = enhancement(maps())
    weight = enhancement.class_weights.weight.tolist()
    for number, image in enumerate(result.maps[3].tolist()):
        pooled = [sum(map(sum, channel)) / 4 for channel in image]
        for c, row in enumerate(weight):
            expected = dot(pooled, row)
            if similarity == "cosine":
                expected *= 5.0 / math.sqrt(dot(pooled, pooled) * dot(row, row))
            assert result.logits[number, c].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("expansion", [1, 2])
def test_the_levels_widen_by_the_expansion(expansion: int) -> None:
    enhancement = FeatureEnhancement(WIDTHS, classes=3, expansion=expansion).double()
    for width, phi, fused in zip(WIDTHS, maps(), enhancement(maps()).maps, strict=True):
        assert fused.shape == (2, expansion * width, *phi.shape[2:])


@pytest.mark.parametrize("name", BACKBONES.entries)
@pytest.mark.parametrize("side", [21, 33])
def test_odd_images_pass_through_every_backbone(name: str, side: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    enhancement = FeatureEnhancement(backbone.level_widths, classes=3)
    with torch.no_grad():
        phi = backbone(torch.randn(2, 3, side, side - 2)).maps
        result = enhancement(phi)
    assert result.logits.shape == (2, 3)
    assert torch.isfinite(result.logits).all()
    for before, after in zip(phi, result.maps, strict=True):
        assert after.shape == before.shape


def test_the_cross_entropy_of_p_hat_reaches_every_parameter_and_every_map() -> None:
    torch.manual_seed(0)
    enhancement = FeatureEnhancement(WIDTHS, classes=3).double()
    phi = [each.requires_grad_() for each in maps(4)]
    logits = enhancement((phi[0], phi[1], phi[2], phi[3])).logits
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])))
    for name, parameter in enhancement.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 0, name
    for each in phi:
        assert each.grad is not None
        assert each.grad.abs().amax() > 1e-9


def test_zero_features_give_no_nan() -> None:
    enhancement = FeatureEnhancement(WIDTHS, classes=3).double()
    phi = [torch.zeros_like(each).requires_grad_() for each in maps()]
    result = enhancement((phi[0], phi[1], phi[2], phi[3]))
    torch.autograd.backward(result.logits.square().sum())
    for each in (result.logits, *result.maps, *(every.grad for every in phi)):
        assert each is not None
        assert torch.isfinite(each).all()


@pytest.mark.parametrize("widths", [(8, 8, 8), (8, 8, 8, 8, 8)])
def test_other_than_four_levels_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"needs four levels, not {len(widths)}"):
        FeatureEnhancement(widths, classes=3)
