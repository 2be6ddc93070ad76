"""Features of images: backbone in eval mode, test transform, one batch in memory at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.data.views import views
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DivergedError
from m2sd_cli.inference.device import autocast
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.base_statistics import BaseStatistics, BaseSums
from m2sd_cli.method.numerics import float64_device
from m2sd_cli.method.prototypes import ClassMeans
from m2sd_cli.progress import Pass

PIXELS_AT_ONCE = 2**20  # on a CPU, in all images of a part of a batch
FEATURE_BATCH = 256  # images; results depend on it by rounding only
MOST_KEPT = 2048  # images: the standard error of an accuracy of 95 % is half a point then


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolve in full float32 on CUDA, which otherwise rounds the inputs to the ten bits of TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.inference_mode()
def embed(backbone: Backbone, pixels: Tensor, transform: TestTransform, precision: str = "fp32") -> Tensor:
    """Compute features (B, D) float32 of pixels (B, 3, H, W) uint8 after the test transform.

    With several `transform.views` a feature is the mean over the views of its image. The backbone has to be in eval
    mode, and the features are on its device.
    """
    device = next(backbone.parameters()).device
    # On a CPU parts are as fast as the whole batch, and take less memory.
    images = PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]) if device.type == "cpu" else len(pixels)
    features = []
    with exact_convolutions(), autocast(device, precision):
        for part in torch.split(pixels, max(1, images)):
            shown = views(part.to(device, non_blocking=True), transform.views)
            inputs = (transform.normalise(view).contiguous(memory_format=torch.channels_last) for view in shown)
            features.append(torch.stack([backbone.session_feature(x).float() for x in inputs]).mean(dim=0))
    return torch.cat(features)


def embed_batches(
    backbone: Backbone,
    batches: Iterable[tuple[Tensor, Tensor]],
    transform: TestTransform,
    precision: str = "fp32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the features (B, D) and labels (B,) of each batch, on the backbone's device."""
    device = next(backbone.parameters()).device
    network = backbone.eval().for_inference()
    for pixels, labels in batches:
        yield embed(network, pixels, transform, precision), labels.to(device)


class Sample:
    """Chosen images of a source, whose features a pass over all images keeps.

    Args:
        chosen: (N,) bool.
    """

    def __init__(self, chosen: Tensor) -> None:
        self._chosen = chosen
        self._parts: list[Tensor] = []
        self._next = 0
        self.features = torch.empty(0)

    def begin(self, first: int) -> None:
        """Begin a pass at the image with index `first`."""
        self._parts, self._next = [], first

    def add(self, features: Tensor) -> None:
        """Keep the chosen ones of the features (B, D) of the next images."""
        end = self._next + len(features)
        self._parts.append(features.cpu()[self._chosen[self._next : end]])
        self._next = end

    def end(self, width: int, group: ProcessGroup) -> None:
        """Join the features (K, D) of all processes of the pass, in the order of the source."""
        own = torch.cat([torch.empty(0, width), *self._parts])
        self.features = group.all_gather(own.flatten()).view(-1, width)
        self._parts = []


def base_features(
    backbone: Backbone,
    source: ImageSource,
    classes: int,
    transform: TestTransform,
    precision: str = "fp32",
    group: ProcessGroup = SINGLE_PROCESS,
    sample: Sample | None = None,
) -> tuple[Tensor, BaseStatistics]:
    """Compute class means (C, D) and statistics of a source with labels in [0, C) in one pass; both are on the CPU.

    The processes of a group share the images and get the same numbers. A sample keeps the features of its images.

    Raises:
        DivergedError: a mean is not finite.
    """
    device = float64_device(next(backbone.parameters()).device)
    sums = BaseSums(torch.bincount(source.labels, minlength=classes), backbone.session_width, device)
    shard = group.shard(len(source))
    steps = Pass("features of base images", shard.stop - shard.start)
    batches = source.batches(transform, FEATURE_BATCH, shard)
    if sample is not None:
        sample.begin(shard.start)
    for features, labels in embed_batches(backbone, batches, transform, precision):
        if sample is not None:
            sample.add(features)
        sums.add(features.to(device), labels.to(device))
        steps.add(len(labels))
    group.all_reduce(*sums.totals)
    if sample is not None:
        sample.end(backbone.session_width, group)
    means = sums.means.means().cpu()
    require_finite(means)
    return means, sums.statistics()


def held_out_sample(source: ImageSource) -> ImageSource:
    """Select the held-out images to calibrate with: all, or MOST_KEPT of them at equal distances."""
    # Not more: the calibration is fitted to their features whenever a session is loaded.
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
    """Compute the features (K, D) and labels (K,) of `held_out_sample`; they are on the CPU.

    Raises:
        DivergedError: a feature is not finite.
    """
    sample = held_out_sample(source)
    batches = sample.for_testing(transform, FEATURE_BATCH, group.shard(len(sample)))
    parts = [features.cpu().flatten() for features, _ in embed_batches(backbone, batches, transform, precision)]
    features = group.all_gather(torch.cat([torch.empty(0), *parts])).view(len(sample), backbone.session_width)
    require_finite(features)
    return features, sample.labels


def shot_features(
    backbone: Backbone,
    source: ImageSource,
    classes: int,
    transform: TestTransform,
    count: int = 1,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Compute class means (C, D) over `count` views of every shot with labels in [0, C), and the features of all views.

    Returns:
        The means, and the features (shots x count, D), class by class and shot by shot; they are on the CPU.

    Raises:
        DivergedError: a mean is not finite.
    """
    device = float64_device(next(backbone.parameters()).device)
    means = ClassMeans(classes, backbone.session_width, device)
    batches: list[Tensor] = []
    network = backbone.eval().for_inference()
    for pixels, labels in source.batches(transform, FEATURE_BATCH):
        by_view = []
        for view in views(pixels, count):
            features = embed(network, view, transform, precision)
            means.add(features.to(device), labels.to(device))
            by_view.append(features.cpu())
        batches.append(torch.stack(by_view, dim=1))  # (B, count, D)
    mean = means.means().cpu()
    require_finite(mean)
    order = torch.argsort(source.labels, stable=True)
    return mean, torch.cat(batches)[order].flatten(0, 1)


def require_finite(features: Tensor) -> None:
    """Refuse features that are not finite, as very large finite weights may make them.

    Raises:
        DivergedError: a feature is not finite.
    """
    if not features.isfinite().all():
        raise DivergedError(
            "the network's features are no finite numbers",
            "train it again, with --force and a lower --learning-rate, or begin from other weights",
        )
