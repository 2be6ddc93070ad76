"""Features of images: backbone in eval mode, test transform, one batch in memory at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.data.views import views
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import TrainingError
from m2sd_cli.inference.device import autocast
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.base_statistics import BaseStatistics, BaseSums
from m2sd_cli.method.numerics import float64_device
from m2sd_cli.method.prototypes import ClassMeans
from m2sd_cli.progress import Pass

PIXELS_AT_ONCE = 2**20  # on a CPU, of any number of images
FEATURE_BATCH = 256  # images; changes speed and memory, and results only by rounding
MOST_KEPT = 2048  # images: the 95 % of them are known to half a point


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

    With several `transform.views` these are means over the views of each image. The backbone has to be in eval mode.
    On a CPU a large batch goes through it in parts, which is as fast and takes less memory: 64 images of 224 pixels
    through ResNet-18 took 540 MB as a whole and 240 in parts.
    """
    device = next(backbone.parameters()).device
    fit = PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]) if device.type == "cpu" else len(pixels)
    found = []
    with exact_convolutions(), autocast(device, precision):
        for part in torch.split(pixels, max(1, fit)):
            seen = views(part.to(device, non_blocking=True), transform.views)
            inputs = (transform.normalise(view).contiguous(memory_format=torch.channels_last) for view in seen)
            found.append(torch.stack([backbone(x).pooled.float() for x in inputs]).mean(dim=0))
    return torch.cat(found)


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


def base_features(
    backbone: Backbone,
    source: ImageSource,
    classes: int,
    transform: TestTransform,
    precision: str = "fp32",
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Tensor, BaseStatistics]:
    """The class means (C, D) and the statistics of a source with labels in [0, C), from one pass over it; on the CPU.

    The processes of a team share the images and come to the same.

    Raises:
        TrainingError: a mean is not finite.
    """
    device = float64_device(next(backbone.parameters()).device)
    sums = BaseSums(torch.bincount(source.labels, minlength=classes), backbone.width, device)
    rows = group.shard(len(source))
    steps = Pass("features of base images", rows.stop - rows.start)
    batches = source.batches(transform, FEATURE_BATCH, rows)
    for features, labels in embed_batches(backbone, batches, transform, precision):
        sums.add(features.to(device), labels.to(device))
        steps.add(len(labels))
    group.all_reduce(*sums.totals)
    means = sums.means.means().cpu()
    require_finite(means)
    return means, sums.statistics()


def held_out_sample(source: ImageSource) -> ImageSource:
    """The held-out images that count: all, or of more than MOST_KEPT that many, at equal distances.

    They make 4 MB of features at D = 512. What is fitted to them is fitted whenever a session is loaded.
    """
    count = min(len(source), MOST_KEPT)
    kept = torch.arange(count) * len(source) // count
    return source.select(kept, source.labels[kept])


def held_out_features(
    backbone: Backbone,
    source: ImageSource,
    transform: TestTransform,
    precision: str = "fp32",
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Tensor, Tensor]:
    """The features (K, D) and labels (K,) of `held_out_sample`, images that were not trained on; on the CPU.

    Raises:
        TrainingError: a feature is not finite.
    """
    chosen = held_out_sample(source)
    batches = chosen.for_testing(transform, FEATURE_BATCH, group.shard(len(chosen)))
    found = [features.cpu().flatten() for features, _ in embed_batches(backbone, batches, transform, precision)]
    features = group.all_gather(torch.cat([torch.empty(0), *found])).view(len(chosen), backbone.width)
    require_finite(features)
    return features, chosen.labels


def shot_features(
    backbone: Backbone,
    source: ImageSource,
    classes: int,
    transform: TestTransform,
    count: int = 1,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """The class means (C, D) of `count` views of every shot with labels in [0, C), and the features of all views.

    Returns:
        the means, and the features (shots x count, D), class by class and shot by shot; on the CPU.

    Raises:
        TrainingError: a mean is not finite.
    """
    device = float64_device(next(backbone.parameters()).device)
    means = ClassMeans(classes, backbone.width, device)
    found: list[Tensor] = []
    for pixels, labels in source.batches(transform, FEATURE_BATCH):
        repeated = ((view, labels) for view in views(pixels, count))
        shown = []
        for features, places in embed_batches(backbone, repeated, transform, precision):
            means.add(features.to(device), places.to(device))
            shown.append(features.cpu())
        found.append(torch.stack(shown, dim=1))  # (B, count, D)
    mean = means.means().cpu()
    require_finite(mean)
    order = torch.argsort(source.labels, stable=True)
    return mean, torch.cat(found)[order].flatten(0, 1)


def require_finite(features: Tensor) -> None:
    """Refuse features of a network whose weights have grown beyond all bounds, though each of them may be finite.

    Raises:
        TrainingError: they are not finite.
    """
    if not features.isfinite().all():
        raise TrainingError(
            "the network's features are no finite numbers; train it again, with --force and a lower --learning-rate"
        )
