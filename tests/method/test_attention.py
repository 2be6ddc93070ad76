"""Both attentions written out position by position in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.attention import CoordinateAttention, SelfAttention, cell_means

Vector = list[float]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module) -> None:
    """Every parameter and running statistic away from its start, where a wrong one could hide."""
    generator = torch.Generator().manual_seed(5)
    module.double()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2, generator=generator)
                if tensor.dim() > 1:
                    tensor.sub_(0.7)


def add(*vectors: Vector) -> Vector:
    return [sum(values) for values in zip(*vectors, strict=True)]


def dot(first: Vector, second: Vector) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def linear(layer: nn.Linear | nn.Conv2d, token: Vector) -> Vector:
    """A linear layer or 1x1 convolution on one position."""
    bias = [0.0] * layer.weight.shape[0] if layer.bias is None else layer.bias.tolist()
    return add([dot(row, token) for row in layer.weight.flatten(1).tolist()], bias)


def layer_norm(layer: nn.LayerNorm, token: Vector) -> Vector:
    mean = sum(token) / len(token)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in token) / len(token) + layer.eps)
    return [
        (value - mean) / deviation * scale + shift
        for value, scale, shift in zip(token, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def pool(tokens: list[list[Vector]], grid: int) -> list[Vector]:
    """Means of the cells of a grid, those of an uneven one overlapping; a side within the grid stays as it is."""
    height, width = len(tokens), len(tokens[0])
    cells = []
    rows, columns = min(height, grid), min(width, grid)
    for i in range(rows):
        for j in range(columns):
            inside = [
                tokens[r][c]
                for r in range(i * height // rows, math.ceil((i + 1) * height / rows))
                for c in range(j * width // columns, math.ceil((j + 1) * width / columns))
            ]
            cells.append([value / len(inside) for value in add(*inside)])
    return cells


def attend(query: Vector, keys: list[Vector], values: list[Vector], heads: int) -> Vector:
    """Softmax attention of one token, head by head."""
    size = len(query) // heads
    result: Vector = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        powers = [math.exp(dot(query[part], key[part]) / math.sqrt(size)) for key in keys]
        weighted = [
            [power / sum(powers) * each for each in value[part]] for power, value in zip(powers, values, strict=True)
        ]
        result += add(*weighted)
    return result


def plain_self_attention(module: SelfAttention, x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    channels = x.shape[1]
    for number, image in enumerate(x):
        tokens: list[list[Vector]] = image.permute(1, 2, 0).tolist()
        normed = [[layer_norm(module.norm, token) for token in row] for row in tokens]
        both = [linear(module.key_value, cell) for cell in pool(normed, module.grid)]
        keys, values = [each[:channels] for each in both], [each[channels:] for each in both]
        for i, row in enumerate(normed):
            for j, token in enumerate(row):
                seen = attend(linear(module.query, token), keys, values, module.heads)
                result[number, :, i, j] = torch.tensor(add(tokens[i][j], linear(module.out, seen)))
    return result


def plain_coordinate_attention(module: CoordinateAttention, x: Tensor) -> Tensor:
    """Batch norm takes its statistics from the batch in training mode, from memory in evaluation."""
    batch, _, height, width = x.shape
    lines: list[list[Vector]] = []  # of each image: one vector a row, then one a column
    for image in x.permute(0, 2, 3, 1).tolist():
        by_row = [[value / width for value in add(*row)] for row in image]
        by_column = [[value / height for value in add(*(row[j] for row in image))] for j in range(width)]
        lines.append([linear(module.reduce, each) for each in by_row + by_column])
    gates: list[list[Vector]] = []
    for image_lines in lines:
        normed = []
        for line in image_lines:
            hidden = []
            for channel, value in enumerate(line):
                if module.training:
                    every = [each[channel] for of_image in lines for each in of_image]
                    mean = sum(every) / len(every)
                    variance = sum((each - mean) ** 2 for each in every) / len(every)
                else:
                    assert module.norm.running_mean is not None
                    assert module.norm.running_var is not None
                    mean, variance = float(module.norm.running_mean[channel]), float(module.norm.running_var[channel])
                scale, shift = module.norm.weight.tolist()[channel], module.norm.bias.tolist()[channel]
                y = (value - mean) / math.sqrt(variance + module.norm.eps) * scale + shift
                hidden.append(y * min(max(y + 3, 0), 6) / 6)
            normed.append(hidden)
        layers = [module.rows] * height + [module.columns] * width
        gates.append(
            [
                [1 / (1 + math.exp(-value)) for value in linear(layer, line)]
                for layer, line in zip(layers, normed, strict=True)
            ]
        )
    result = torch.empty_like(x)
    for number in range(batch):
        for i in range(height):
            for j in range(width):
                row_gate, column_gate = torch.tensor(gates[number][i]), torch.tensor(gates[number][height + j])
                result[number, :, i, j] = x[number, :, i, j] * row_gate * column_gate
    return result


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("height", "width", "grid"), [(3, 2, 8), (2, 2, 2), (5, 3, 2), (4, 6, 2), (1, 7, 3)])
def test_self_attention_token_by_token(heads: int, height: int, width: int, grid: int) -> None:
    module = SelfAttention(8, heads=heads, grid=grid)
    randomise(module)
    x = draw(2, 8, height, width)
    torch.testing.assert_close(module(x), plain_self_attention(module, x))


@pytest.mark.parametrize("sizes", [(8, 8), (32, 16), (21, 21), (9, 56), (11, 30), (17, 8)])
def test_cell_means_are_those_of_adaptive_pooling(sizes: tuple[int, int]) -> None:
    x = draw(2, *sizes, 3).requires_grad_()
    weights = draw(2, 8, 8, 3, seed=1)
    means = cell_means(x, 8, 8)
    expected = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), (8, 8)).permute(0, 2, 3, 1)
    torch.testing.assert_close(means, expected)
    gradients = [torch.autograd.grad((each * weights).sum(), x)[0] for each in (means, expected)]
    torch.testing.assert_close(*gradients)


def test_cell_means_are_not_rounded_to_half_precision() -> None:
    x = draw(1, 10, 11, 2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = cell_means(x, 4, 4)
    torch.testing.assert_close(means, cell_means(x.double(), 4, 4).float())


def test_a_map_that_fits_the_grid_is_attended_to_in_full() -> None:
    module = SelfAttention(8, heads=2, grid=4)
    randomise(module)
    x = draw(1, 8, 4, 4)
    pooled = module(x)
    module.grid = 100
    torch.testing.assert_close(pooled, module(x))
    module.grid = 3
    assert (pooled - module(x)).abs().amax() > 1e-6


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (32, 2), (50, 2), (64, 4), (185, 1), (270, 3), (512, 4)])
def test_heads_and_grid_by_default(channels: int, heads: int) -> None:
    module = SelfAttention(channels)
    assert (module.heads, module.grid) == (heads, 8)


def test_self_attention_is_a_residual() -> None:
    module = SelfAttention(8, heads=2).double()
    nn.init.zeros_(module.out.weight)
    nn.init.zeros_(module.out.bias)
    x = draw(2, 8, 3, 3)
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("heads", [3, 5])
def test_channels_must_divide_into_heads(heads: int) -> None:
    with pytest.raises(ValueError, match=f"8 channels do not divide into {heads} heads"):
        SelfAttention(8, heads=heads)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("height", "width"), [(4, 3), (1, 5), (2, 2)])
def test_coordinate_attention_position_by_position(height: int, width: int, training: bool) -> None:
    module = CoordinateAttention(5)
    randomise(module)
    module.train(training)
    x = draw(2, 5, height, width)
    expected = plain_coordinate_attention(module, x)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("channels", "hidden"), [(16, 8), (256, 8), (512, 16)])
def test_the_hidden_width_of_coordinate_attention(channels: int, hidden: int) -> None:
    module = CoordinateAttention(channels)
    assert module.reduce.weight.shape == (hidden, channels, 1, 1)


def test_coordinate_attention_only_damps() -> None:
    module = CoordinateAttention(16).double()
    x = draw(4, 16, 5, 6)
    y = module(x)
    assert (y.abs() < x.abs()).all()
    assert torch.equal(y.sign(), x.sign())


@pytest.mark.parametrize("kind", [SelfAttention, CoordinateAttention])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (21, 21), (33, 17), (9, 8)])
def test_shape_and_gradient_for_any_size(kind: type[nn.Module], height: int, width: int) -> None:
    torch.manual_seed(0)
    module = kind(16).double()
    x = draw(2, 16, height, width).requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    torch.autograd.backward((y * draw(2, 16, height, width, seed=1)).sum())
    assert x.grad is not None
    assert x.grad.abs().amax() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        if height * width > 1 or not name.startswith("query"):  # softmax over one key leaves the query nothing to learn
            assert parameter.grad.abs().amax() > 1e-7, name


@pytest.mark.parametrize("kind", [SelfAttention, CoordinateAttention])
def test_zero_features_stay_finite(kind: type[nn.Module]) -> None:
    module = kind(16)
    x = torch.zeros(2, 16, 10, 10, requires_grad=True)
    y = module(x)
    assert torch.isfinite(y).all()
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("kind", [SelfAttention, CoordinateAttention])
def test_bf16_autocast_stays_near_float32(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind(32)
    x = draw(2, 32, 10, 10).float()
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(x)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
