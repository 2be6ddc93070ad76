"""Predictions of the classes of image files."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.data.deep_grey import Scales
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.threads import in_order
from m2sd_cli.errors import ImageError
from m2sd_cli.inference.explanation import explain
from m2sd_cli.inference.features import require_finite
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.calibration import known_score

PREDICT_BATCH = 64  # images; small, so that the first answers come soon


@dataclass(frozen=True)
class Guess:
    """One of the likeliest classes of an image."""

    name: str
    probability: float  # softmax of the logits over T
    similarity: float  # cosine of the image's feature and the class mean, -1 to 1, whatever the classifier


@dataclass(frozen=True)
class Evidence:
    """An image as the network sees it, and the heat maps of its likeliest classes."""

    pixels: Tensor  # (3, S, S) uint8
    maps: Tensor  # (K, H, W) of the likeliest classes, see `explain`


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, the likeliest first."""

    path: Path
    guesses: list[Guess]
    score: float | None = None  # `known_score`
    unknown: bool = False  # the score is too low for a class that was taught; False if not calibrated
    calibrated: bool = False  # T was fitted to images that were not trained on; else it is 1
    told: float | None = None  # estimated chance in per cent that a known image scores higher than an unknown one
    tells_little: bool = False  # True if that is hardly more than chance
    skipped: str | None = None  # the reason why the image cannot be read: there are no guesses and no score then
    evidence: Evidence | None = None  # if it was asked for


def predict_files(
    model: SessionModel, paths: Sequence[Path], top_k: int, skip_bad: bool = False, explained: int = 0
) -> Iterator[Prediction]:
    """Label images of any size, in their order, with one batch in memory at a time.

    Args:
        top_k: the number of guesses an image.
        skip_bad: go on after an image that cannot be read.
        explained: the number of likeliest classes to compute heat maps of, whatever `top_k` is; 0 for none. The network
            sees an image once more for them.

    Raises:
        ImageError: an image cannot be read, and `skip_bad` is false.
    """
    scales = Scales()

    def decode(path: Path) -> Tensor | ImageError:
        try:
            return model.transform.pixels(scales.note(open_rgb(path)))
        except ImageError as error:
            if not skip_bad:
                raise
            return error

    with closing(in_order(decode, paths, ahead=PREDICT_BATCH)) as decoded:
        for start in range(0, len(paths), PREDICT_BATCH):
            batch = list(islice(decoded, PREDICT_BATCH))
            named = list(zip(paths[start:], batch, strict=False))
            images = [(path, pixels) for path, pixels in named if isinstance(pixels, Tensor)]
            predictions = iter(_predict(model, images, top_k, explained))
            for path, pixels in named:
                yield next(predictions) if isinstance(pixels, Tensor) else Prediction(path, [], skipped=pixels.reason)
    scales.say()


@torch.inference_mode()
def _predict(model: SessionModel, images: list[tuple[Path, Tensor]], top_k: int, explained: int) -> list[Prediction]:
    """Label images (3, H, W) uint8 after the test transform."""
    if not images:
        return []
    batch = torch.stack([pixels for _, pixels in images])
    features = model.embed(batch)
    require_finite(features)  # else every class would be as likely, and none unknown
    confidence = model.confidence
    logits = model.classify(features)
    # Few numbers, which go to the CPU: not every device has float64.
    tempered, scores = confidence.tempered(logits).cpu(), known_score(model.recognise(features, logits)).cpu().double()
    likeliest, order = tempered.softmax(dim=1).topk(min(max(top_k, explained), len(model.classes)), dim=1)
    similarity = (F.normalize(features, dim=1) @ F.normalize(model.means, dim=1).T).cpu().gather(1, order)
    guesses = [
        [Guess(model.classes[index], *figures) for index, *figures in zip(*row, strict=True)][:top_k]
        for row in zip(order.tolist(), likeliest.tolist(), similarity.tolist(), strict=True)
    ]
    evidence: list[Evidence | None] = [None] * len(images)
    if explained:
        maps = explain(model, batch, order[:, :explained])
        evidence = [Evidence(*each) for each in zip(batch, maps, strict=True)]
    return [
        Prediction(
            path,
            likely,
            score,
            confidence.is_unknown(score),
            confidence.calibrated,
            confidence.told,
            confidence.tells_little,
            evidence=shown,
        )
        for (path, _), likely, score, shown in zip(images, guesses, scores.tolist(), evidence, strict=True)
    ]
