"""A session whose network is quick to export."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.backbones import Features


class OneLayer(nn.Module):
    """A backbone of one convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(width, 3, 3, 3, generator=generator) / 5)

    def forward(self, x: Tensor) -> Features:
        maps = F.relu(F.conv2d(x, self.weight, stride=2))
        return Features((maps,) * 4, maps.mean(dim=(2, 3)))


@pytest.fixture
def load_one_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SessionModel]:
    """Load sessions with a backbone of one convolution, here and in export and predict.

    What is exported around the backbone is under test; tests/exporting export a real one, which takes seconds.
    """

    def load(*arguments: Any, **options: Any) -> SessionModel:
        model = load_session(*arguments, **options)
        backbone: Any = OneLayer(model.record.width).eval()
        return replace(model, backbone=backbone)

    monkeypatch.setattr("m2sd_cli.api.export.load_session", load)
    monkeypatch.setattr("m2sd_cli.api.predict.load_session", load)
    return load
