"""Models of ONNX in integers of eight bits, and the loss of accuracy by them."""

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from m2sd_cli.exporting.export import METADATA
from m2sd_cli.method.calibration import Confidence

QUANTIZED = ["Conv"]  # the head and the score, of few numbers, stay in float32; see README.md


@dataclass(frozen=True)
class QuantizationLoss:
    """Answers of a model in float32 and in integers to the same test images of known classes, in per cent of them."""

    images: int  # the number of test images
    plain: float  # top-1 accuracy in float32
    int8: float
    same: float  # images with the same answer
    plain_unknown: float | None  # images called unknown in float32; None without a threshold
    int8_unknown: float | None
    plain_bytes: int
    int8_bytes: int


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}


def quantize(content: bytes, calibration: Iterable[Tensor]) -> bytes:
    """Turn the convolutions of a model into integers: weights by channel, activations by their range.

    Args:
        content: of the file in float32.
        calibration: batches (B, 3, H, W) uint8 of images, on which the ranges of activations are measured.
    """
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain, prepared, done = (Path(folder, f"{name}.onnx") for name in ("plain", "prepared", "done"))
            plain.write_bytes(content)
            quant_pre_process(plain, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                done,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return done.read_bytes()
    finally:
        logger.setLevel(level)


def with_loss(content: bytes, loss: QuantizationLoss) -> bytes:
    """Add the loss to the description in a quantised file."""
    proto = onnx.load_from_string(content)
    (entry,) = (each for each in proto.metadata_props if each.key == METADATA)
    entry.value = json.dumps(json.loads(entry.value) | {"quantization": asdict(loss)}, ensure_ascii=False)
    written: bytes = proto.SerializeToString()
    return written


def measure_loss(
    plain: bytes, int8: bytes, batches: Iterable[tuple[Tensor, Tensor]], confidence: Confidence
) -> QuantizationLoss:
    """Compare two files by their answers to test images.

    Args:
        plain: in float32.
        int8: quantised.
        batches: images (B, 3, H, W) uint8, at least one, and their classes (B,) in [0, C).
        confidence: has the threshold of "unknown".
    """
    sessions = [onnxruntime.InferenceSession(content) for content in (plain, int8)]
    below = confidence.unknown_below
    images, same = 0, 0
    right, unknown = np.zeros(2, int), np.zeros(2, int)
    for pixels, labels in batches:
        answers = []
        for number, session in enumerate(sessions):
            logits, scores = session.run(None, {"images": pixels.numpy()})
            answers.append(logits.argmax(axis=1))
            right[number] += (answers[-1] == labels.numpy()).sum()
            unknown[number] += 0 if below is None else (scores < below).sum()
        images += len(labels)
        same += int((answers[0] == answers[1]).sum())
    share = 100 / images
    return QuantizationLoss(
        images=images,
        plain=float(right[0] * share),
        int8=float(right[1] * share),
        same=same * share,
        plain_unknown=None if below is None else float(unknown[0] * share),
        int8_unknown=None if below is None else float(unknown[1] * share),
        plain_bytes=len(plain),
        int8_bytes=len(int8),
    )
