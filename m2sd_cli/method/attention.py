"""EN, the attention of feature enhancement, paper section 3.3: MHSA on levels 1 and 4, coordinate attention on 2, 3."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.numerics import at_least_float32, to_nhwc


def shares(length: int, cells: int, like: Tensor) -> Tensor:
    """Compute the weight of each of `length` positions in the mean of each cell: (cells, length), rows of sum 1.

    Cell i reaches from floor(i length / cells) to ceil((i + 1) length / cells), so that neighbours may overlap.
    """
    cell, position = torch.arange(cells, device=like.device)[:, None], torch.arange(length, device=like.device)
    inside = (position >= cell * length // cells) & (position < -(-(cell + 1) * length // cells))
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


def cell_means(x: Tensor, rows: int, columns: int) -> Tensor:
    """Average over a grid of cells, (B, H, W, C) -> (B, rows, columns, C).

    F.adaptive_avg_pool2d does the same, but its gradient has no fixed order of summation on CUDA.
    """
    batch, height, width, channels = x.shape
    if height % rows == 0 and width % columns == 0:
        cell = (height // rows, width // columns)
        return F.avg_pool2d(x.permute(0, 3, 1, 2), cell).permute(0, 2, 3, 1)
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_float32(x)
        by_row = shares(height, rows, x) @ x.reshape(batch, height, width * channels)
        return shares(width, columns, x) @ by_row.view(batch, rows, width, channels)


class SelfAttention(nn.Module):
    """x + MHSA(norm(x)), every position of a map being a token (Vaswani et al., 2017).

    There are four heads, or fewer where they would have less than 16 channels each, or not the same number of them:
    heads of few channels see little and are slow on a CPU.

    Keys and values are averaged over a grid of at most `grid` x `grid` cells, so that the cost grows linearly with the
    number of positions. A map that fits the grid is attended to in full.

    Raises:
        ValueError: the number of channels is no multiple of a given number of heads.
    """

    def __init__(self, channels: int, heads: int | None = None, grid: int = 8) -> None:
        super().__init__()
        heads = heads or next(n for n in range(max(1, min(4, channels // 16)), 0, -1) if channels % n == 0)
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.grid = grid
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        batch, length, channels = tokens.shape
        return tokens.view(batch, length, self.heads, channels // self.heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        normed = self.norm(x.permute(0, 2, 3, 1))  # (B, H, W, C)
        context = normed
        if height > self.grid or width > self.grid:
            context = cell_means(normed, min(height, self.grid), min(width, self.grid))
        query = self._split(self.query(normed.flatten(1, 2)))
        key, value = map(self._split, self.key_value(context.flatten(1, 2)).chunk(2, dim=2))
        # In float32 even under autocast: fused attention in bf16 is slower on a CPU.
        with torch.autocast(x.device.type, enabled=False):
            mixed = F.scaled_dot_product_attention(
                at_least_float32(query), at_least_float32(key), at_least_float32(value)
            )
        tokens: Tensor = self.out(mixed.transpose(1, 2).flatten(2))  # (B, H * W, C)
        return x + tokens.transpose(1, 2).reshape(x.shape)


class CoordinateAttention(nn.Module):
    """x * g_h * g_w with one gate a row and one a column (Hou et al., CVPR 2021); no residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 32)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.columns = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        nhwc = to_nhwc(x)
        means = torch.cat([nhwc.mean(dim=2), nhwc.mean(dim=1)], dim=1)  # (B, H + W, C): of each row and column
        joint = F.hardswish(self.norm(self.reduce(means.transpose(1, 2).unsqueeze(3))))
        from_rows, from_columns = torch.split(joint, [height, width], dim=2)
        gate_rows = torch.sigmoid(self.rows(from_rows))  # (B, C, H, 1)
        gate_columns = torch.sigmoid(self.columns(from_columns)).transpose(2, 3)  # (B, C, 1, W)
        return x * gate_rows * gate_columns
