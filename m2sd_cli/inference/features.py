"""Features of images: backbone in eval mode, test transform, one batch in memory at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import TrainingError
from m2sd_cli.inference.device import autocast
from m2sd_cli.inference.team import ALONE, Team
from m2sd_cli.method.backbones import Backbone
from m2sd_cli.method.prototypes import ClassMeans

FEATURE_BATCH = 256  # images; changes speed and memory, and results only by rounding


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Full float32 on CUDA, where convolutions otherwise round their inputs to TF32's ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.inference_mode()
def embed(backbone: Backbone, pixels: Tensor, transform: TestTransform, precision: str = "fp32") -> Tensor:
    """Pixels (B, 3, H, W) uint8 after the test transform to features (B, D) float32, on the backbone's device.

    The backbone has to be in eval mode.
    """
    device = next(backbone.parameters()).device
    x = transform.normalise(pixels.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
    with exact_convolutions(), autocast(device, precision):
        features: Tensor = backbone(x).pooled
    return features.float()


def embed_batches(
    backbone: Backbone,
    batches: Iterable[tuple[Tensor, Tensor]],
    transform: TestTransform,
    precision: str = "fp32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """(features (B, D), labels (B,)) of each batch, on the backbone's device."""
    device = next(backbone.parameters()).device
    backbone.eval()
    for pixels, labels in batches:
        yield embed(backbone, pixels, transform, precision), labels.to(device)


def mean_features(
    backbone: Backbone,
    source: ImageSource,
    classes: int,
    transform: TestTransform,
    precision: str = "fp32",
    team: Team = ALONE,
) -> Tensor:
    """The class means of a source with labels in [0, classes), by the test transform: (classes, D) on the CPU.

    The processes of a team share the images and have the same means.

    Raises:
        TrainingError: a mean is not finite.
    """
    device = next(backbone.parameters()).device
    means = ClassMeans(classes, backbone.width, device)
    batches = source.batches(transform, FEATURE_BATCH, team.share(len(source)))
    for features, labels in embed_batches(backbone, batches, transform, precision):
        means.add(features, labels)
    team.add(*means.totals)
    found = means.means().cpu()
    require_finite(found)
    return found


def require_finite(features: Tensor) -> None:
    """Refuse features of a network whose weights have grown beyond all bounds, though each of them may be finite.

    Raises:
        TrainingError: they are not finite.
    """
    if not features.isfinite().all():
        raise TrainingError(
            "the network's features are no finite numbers; train it again, with --force and a lower --learning-rate"
        )
