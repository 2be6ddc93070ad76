"""A network so small that a run of it fits beside the tests."""

from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.numerics import global_average_pool


class Tiny(Backbone):
    """Four convolutions, whose outputs are phi_1 .. phi_4; each of the last three halves the resolution."""

    level_widths = (8, 8, 16, 24)
    width = 24

    def __init__(self) -> None:
        super().__init__()
        channels = zip((3, 8, 8, 16), self.level_widths, (1, 2, 2, 2), strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in channels
        )

    def forward(self, x: Tensor) -> Features:
        """Map normalised images (B, 3, H, W) to phi_1 .. phi_4 and the pooled feature (B, 24)."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return Features(tuple(maps), global_average_pool(x))
