"""Export of a session as a file of ONNX in integers, with the loss of accuracy measured: `quantize`."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m2sd_cli.api.tested_images import TestedImages, open_base_data, open_tested_images, own_tests
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.sources import select_where
from m2sd_cli.distributed.process_group import SINGLE_PROCESS
from m2sd_cli.errors import DataError, M2sdError
from m2sd_cli.exporting import INT8
from m2sd_cli.exporting.deployed import description
from m2sd_cli.exporting.export import to_onnx
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.output_files import check_output, write_output
from m2sd_cli.paths import expand_given
from m2sd_cli.progress import Pass
from m2sd_cli.runs.folder import open_run

if TYPE_CHECKING:
    from m2sd_cli.exporting.quantization import QuantizationLoss

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `quantize`
CALIBRATED = 128  # images whose activations tell the ranges
BATCH = 64  # images


def quantize(
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
    classifier: str | None = None,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    ignore_new: bool = False,
) -> "QuantizationLoss":
    """Write a session as a file of ONNX whose convolutions compute in integers of eight bits.

    The ranges of activations are those of base images that were held out of training, else of training images. The loss
    of accuracy is measured on the test images, which choose nothing, and is in the file, too.

    Args:
        out: the file.
        run: the run folder.
        session: a number; None for the newest.
        force: replace `out` if it exists.
        classifier: a name in CLASSIFIERS; None for the one that the session names.
        test: DIR with DIR/CLASS/*.jpg to measure with; None for the test images of the data set.
        data: the folder of pretrain, if it is not where it was.
        data_root: the folder of built-in data sets.
        ignore_new: leave out the images of a folder that pretrain did not have.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if any(find_spec(package) is None for package in PACKAGES):
        raise M2sdError(f"--quantize {INT8} needs more packages: {install_extra('quantize')}")
    from m2sd_cli.exporting import quantization

    path, folder = Path(out), open_run(run)
    check_output("--out", path, folder, replace=force)
    model = load_session(folder, session, classifier=classifier)
    chain, root = folder.summary(session), expand_given(data_root, "--data-root")
    labelled = None if test is None else open_tested_images(folder, chain, SINGLE_PROCESS, test)
    data_set = open_base_data(folder, chain, data, root, ignore_new, trained=True)
    images = labelled or own_tests(data_set)
    labels = _known_labels(model, images)
    plain = to_onnx(model, json.dumps(description(model), ensure_ascii=False))
    int8 = quantization.quantize(plain, _calibration(model, data_set))
    loss = quantization.measure_loss(plain, int8, _tested(model, images, labels), model.confidence)
    write_output(path, quantization.with_loss(int8, loss))
    return loss


def _known_labels(model: SessionModel, images: TestedImages) -> Tensor:
    """Return the class (N,) of each test image by its place in the session; -1 for one that it does not know."""
    known = model.find(images.classes)[images.source.labels]
    if not bool((known >= 0).any()):
        raise DataError(
            f"{images.location}: no test image of a class that the model knows; classes are matched by name"
        )
    return known


def _calibration(model: SessionModel, data: DataSet) -> Iterator[Tensor]:
    """Yield base images at equal distances."""
    source = data.held_out if data.held_out is not None and len(data.held_out) else data.train
    count = min(CALIBRATED, len(source))
    chosen = torch.arange(count) * len(source) // count
    for pixels, _ in source.select(chosen, source.labels[chosen]).batches(model.transform, BATCH):
        yield pixels


def _tested(model: SessionModel, images: TestedImages, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the test images of known classes."""
    source = images.source.select(torch.arange(len(labels)), labels)
    known = select_where(source, labels >= 0)
    steps = Pass("comparing with float32", len(known))
    for pixels, classes in known.batches(model.transform, BATCH):
        yield pixels, classes
        steps.add(len(classes))
