"""Labelling a person's own pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from m2sd_cli.data.sources import FileImages
from m2sd_cli.inference.session import SessionModel

PREDICT_BATCH = 64  # images; small, so that the first answers come soon


@dataclass(frozen=True)
class Guess:
    """One of the likeliest classes of a picture."""

    name: str
    probability: float  # softmax of the logits
    similarity: float  # cosine of the picture's feature and the class mean, -1 to 1


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of a picture, the likeliest first."""

    path: Path
    guesses: list[Guess]


@torch.inference_mode()
def predict_files(model: SessionModel, paths: Sequence[Path], top_k: int) -> Iterator[Prediction]:
    """Label pictures of any size, in their order, no more than a batch of them in memory.

    Raises:
        DataError: a picture cannot be read.
    """
    source = FileImages(tuple(paths), torch.zeros(len(paths), dtype=torch.int64))
    done = 0
    directions = F.normalize(model.weight, dim=1)
    for pixels, _ in source.batches(model.transform, PREDICT_BATCH):
        features = model.embed(pixels)
        probabilities = model.classify(features).softmax(dim=1)
        likeliest, order = probabilities.topk(min(top_k, len(model.classes)), dim=1)
        similarity = (F.normalize(features, dim=1) @ directions.T).gather(1, order)
        for path, row in zip(
            paths[done:], zip(order.tolist(), likeliest.tolist(), similarity.tolist(), strict=True), strict=False
        ):
            guesses = [
                Guess(model.classes[index], probability, cosine)
                for index, probability, cosine in zip(*row, strict=True)
            ]
            yield Prediction(path, guesses)
        done += len(pixels)
