"""The pyramid: its wiring against one written out by hand, its parts against loops."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.method.bifpn import BiFPN, Fusion, downsample_to, separable

WIDTHS = (2, 3, 4, 5)
SIZES = {
    "halving": ((8, 8), (4, 4), (2, 2), (1, 1)),
    "resnet20": ((8, 8), (8, 8), (4, 4), (2, 2)),  # the stem and the first stage share their resolution
    "odd": ((21, 11), (11, 6), (6, 3), (3, 2)),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pyramid_and_maps(sizes: str, batch: int = 2) -> tuple[BiFPN, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Every parameter and running statistic is away from its start, where a wrong one could hide."""
    generator = torch.Generator().manual_seed(1)
    pyramid = BiFPN(WIDTHS).double().eval()
    with torch.no_grad():
        for tensor in pyramid.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2, generator=generator)
                if tensor.dim() > 1:
                    tensor.sub_(0.5)
    one, two, three, four = (
        draw(batch, width, *size, seed=width) for width, size in zip(WIDTHS, SIZES[sizes], strict=True)
    )
    return pyramid, (one, two, three, four)


def plain_upsample(x: Tensor, height: int, width: int) -> Tensor:
    """The nearest neighbour above and to the left."""
    result = x.new_empty(*x.shape[:2], height, width)
    for i, j in itertools.product(range(height), range(width)):
        result[:, :, i, j] = x[:, :, i * x.shape[2] // height, j * x.shape[3] // width]
    return result


def plain_max_pool(x: Tensor) -> Tensor:
    """The maximum of 3x3 around every second position."""
    height, width = x.shape[2:]
    result = x.new_empty(*x.shape[:2], (height + 1) // 2, (width + 1) // 2)
    for i, j in itertools.product(range(result.shape[2]), range(result.shape[3])):
        rows, columns = slice(max(0, 2 * i - 1), 2 * i + 2), slice(max(0, 2 * j - 1), 2 * j + 2)
        result[:, :, i, j] = x[:, :, rows, columns].amax(dim=(2, 3))
    return result


def plain_resize(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return plain_upsample(x, *like.shape[2:]) if x.shape[2] < like.shape[2] else plain_max_pool(x)


def plain_fuse(fusion: nn.Module, *maps: Tensor) -> Tensor:
    raw = [max(0.0, value) for value in next(fusion.parameters()).tolist()]
    assert len(raw) == len(maps)
    return sum((weight / (sum(raw) + 1e-6) * each for weight, each in zip(raw, maps, strict=True)), torch.zeros(()))


def plain_pyramid(net: BiFPN, phi: tuple[Tensor, ...]) -> list[Tensor]:
    """The paper's order: resize first, project then, fuse, convolve."""
    a_1, a_2, a_3, a_4 = (lateral(each) for lateral, each in zip(net.lateral_up, phi, strict=True))
    b_2, b_3, b_4 = (lateral(each) for lateral, each in zip(net.lateral_down, phi[1:], strict=True))
    m_4 = a_4
    m_3 = net.conv_up[2](plain_fuse(net.fuse_up[2], a_3, net.up[2](plain_resize(m_4, a_3))))
    m_2 = net.conv_up[1](plain_fuse(net.fuse_up[1], a_2, net.up[1](plain_resize(m_3, a_2))))
    m_1 = net.conv_up[0](plain_fuse(net.fuse_up[0], a_1, net.up[0](plain_resize(m_2, a_1))))
    t_1 = m_1
    t_2 = net.conv_down[0](plain_fuse(net.fuse_down[0], b_2, m_2, net.down[0](plain_resize(t_1, b_2))))
    t_3 = net.conv_down[1](plain_fuse(net.fuse_down[1], b_3, m_3, net.down[1](plain_resize(t_2, b_3))))
    t_4 = net.conv_down[2](plain_fuse(net.fuse_down[2], b_4, net.down[2](plain_resize(t_3, b_4))))
    return [t_1, t_2, t_3, t_4]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_wiring_is_the_one_written_out(sizes: str) -> None:
    pyramid, maps = pyramid_and_maps(sizes)
    for result, expected in zip(pyramid(maps), plain_pyramid(pyramid, maps), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("expansion", [1, 2, 3])
def test_every_level_keeps_its_resolution_and_widens(sizes: str, expansion: int) -> None:
    _, maps = pyramid_and_maps(sizes)
    pyramid = BiFPN(WIDTHS, expansion).double()
    assert pyramid.widths == tuple(expansion * width for width in WIDTHS)
    for width, phi, fused in zip(WIDTHS, maps, pyramid(maps), strict=True):
        assert fused.shape == (2, expansion * width, *phi.shape[2:])


def test_a_negative_fusion_weight_counts_as_zero() -> None:
    pyramid, maps = pyramid_and_maps("halving")
    with torch.no_grad():
        for number, fusion in enumerate([*pyramid.fuse_up, *pyramid.fuse_down]):
            next(fusion.parameters())[number % 2] = -0.7
    for result, expected in zip(pyramid(maps), plain_pyramid(pyramid, maps), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("inputs", [2, 3])
def test_fusion_starts_with_equal_weights(inputs: int) -> None:
    assert next(Fusion(inputs).parameters()).tolist() == [1.0] * inputs


def test_fusion_of_nothing_but_negative_weights_is_finite() -> None:
    pyramid, maps = pyramid_and_maps("halving")
    with torch.no_grad():
        for fusion in [*pyramid.fuse_up, *pyramid.fuse_down]:
            next(fusion.parameters()).fill_(-1.0)
    assert all(torch.isfinite(each).all() for each in pyramid(maps))


def test_the_fusion_convolution_is_two_depthwise_separable_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    channels, height, width = 3, 4, 3
    conv = separable(channels).double().eval()
    with torch.no_grad():
        for tensor in conv.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.3, 1.0, generator=generator)
                if tensor.dim() > 1:
                    tensor.sub_(0.5)
    state = [each for each in conv.state_dict().values() if each.is_floating_point()]
    per_layer = 6  # depthwise, pointwise, and scale, shift, mean and variance of the norm
    assert len(state) == 2 * per_layer
    x = draw(1, channels, height, width)
    expected = x[0]
    for start in (0, per_layer):
        deep, point, scale, shift, mean, variance = state[start : start + per_layer]
        filtered = torch.zeros_like(expected)
        for c, i, j, u, v in itertools.product(range(channels), range(height), range(width), range(3), range(3)):
            row, column = i + u - 1, j + v - 1
            if 0 <= row < height and 0 <= column < width:
                filtered[c, i, j] += deep[c, 0, u, v] * expected[c, row, column]
        expected = torch.zeros_like(filtered)
        for c, i, j in itertools.product(range(channels), range(height), range(width)):
            value = sum((point[c, k, 0, 0] * filtered[k, i, j] for k in range(channels)), torch.zeros(()))
            normed = (value - mean[c]) / torch.sqrt(variance[c] + 1e-5) * scale[c] + shift[c]
            expected[c, i, j] = normed.clamp_min(0)
    assert (expected > 0).any()
    assert (expected == 0).any()
    torch.testing.assert_close(conv(x)[0], expected)


def test_gradient_reaches_every_parameter_and_every_map() -> None:
    torch.manual_seed(0)
    pyramid = BiFPN((8, 8, 8, 8)).double()
    maps = [draw(4, 8, side, side, seed=side).requires_grad_() for side in (9, 5, 3, 2)]
    outputs = pyramid((maps[0], maps[1], maps[2], maps[3]))
    torch.autograd.backward(torch.stack([(each * draw(*each.shape, seed=7)).sum() for each in outputs]).sum())
    for name, parameter in pyramid.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 1e-6, name
    for each in maps:
        assert each.grad is not None
        assert each.grad.abs().amax() > 1e-6


def test_the_last_level_sees_the_finest_map() -> None:
    pyramid, maps = pyramid_and_maps("halving")
    changed = (maps[0] + 1, *maps[1:])
    assert (pyramid(maps)[3] - pyramid(changed)[3]).abs().amax() > 1e-6


def test_the_first_level_sees_the_coarsest_map() -> None:
    pyramid, maps = pyramid_and_maps("halving")
    changed = (*maps[:3], maps[3] + 1)
    assert (pyramid(maps)[0] - pyramid(changed)[0]).abs().amax() > 1e-6


def test_a_level_whose_size_was_rounded_down_takes_the_first_rows_and_columns() -> None:
    x = draw(1, 2, 9, 6)
    like = torch.zeros(1, 1, 4, 3)
    assert torch.equal(downsample_to(x, like), plain_max_pool(x)[:, :, :4])


def test_a_level_of_a_quarter_of_the_size_is_pooled_twice_down_to_one_pixel() -> None:
    x = draw(1, 2, 4, 4)
    assert torch.equal(downsample_to(x, torch.zeros(1, 1, 1, 1)), plain_max_pool(plain_max_pool(x)))


@pytest.mark.parametrize(("before", "after"), [(5, 2), (3, 1)])
def test_a_level_of_half_a_small_odd_size_is_pooled_once(before: int, after: int) -> None:
    x = draw(1, 2, before, before)
    assert torch.equal(downsample_to(x, torch.zeros(1, 1, after, after)), plain_max_pool(x)[:, :, :after, :after])


@pytest.mark.parametrize(
    ("before", "after", "poolings"),
    [((28, 28), (7, 7), 2), ((14, 14), (7, 7), 1), ((9, 12), (3, 3), 2), ((6, 6), (6, 6), 0)],
)
def test_maps_are_halved_as_often_as_it_takes(before: tuple[int, int], after: tuple[int, int], poolings: int) -> None:
    x = torch.randn(1, 2, *before)
    pooled = x
    for _ in range(poolings):
        pooled = plain_max_pool(pooled)
    assert torch.equal(downsample_to(x, torch.empty(1, 2, *after)), pooled)


@pytest.mark.parametrize("sizes", [[14] * 4, [14, 9, 9, 4], [56, 14, 7, 7], [5, 1, 1, 1]])
def test_maps_of_any_sizes_are_fused(sizes: list[int]) -> None:
    maps = tuple(torch.randn(2, 8, size, size, requires_grad=True) for size in sizes)
    fused = BiFPN((8, 8, 8, 8))(maps)
    assert [each.shape for each in fused] == [each.shape for each in maps]
    torch.autograd.backward(fused[-1].square().sum())
    assert all(each.grad is not None and each.grad.abs().amax() > 0 for each in maps)


def test_a_map_that_is_no_power_of_two_larger_keeps_its_nearest_positions() -> None:
    x = torch.arange(14.0).view(1, 1, 1, 14).expand(1, 1, 14, 14)
    thinned = downsample_to(x, torch.empty(1, 1, 9, 9))
    assert thinned[0, 0, 0].tolist() == [column * 14 // 9 for column in range(9)]
