"""The weights that stage 1 may begin from: torchvision's, downloaded, or those of a local file."""

import hashlib
import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from m2sd_cli.errors import DataError
from m2sd_cli.method.backbones import Backbone, load_initial_weights
from m2sd_cli.reading import open_regular

IMAGENET = "imagenet"
NO_INIT = "none"
INIT_LIMIT = 4 * 2**30  # bytes of a file to begin from, unpacked


def initialise(backbone: Backbone, init: str) -> None:
    """Begin from other weights: `imagenet`, downloaded through torchvision, or a local file.

    Raises:
        DataError: the file is missing, no state dict, or of another network; or the download failed.
    """
    state = _imagenet_state() if init == IMAGENET else _file_state(Path(init))
    try:
        load_initial_weights(backbone, state)
    except ValueError as error:
        raise DataError(
            f"--init {init}: not the weights of this backbone: {error}; --init none begins from random weights"
        ) from None


def _imagenet_state() -> dict[str, Tensor]:
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.IMAGENET1K_V1
    try:
        # Torch compares the hash of what it downloads, and not that of what was there already.
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"--init imagenet: the weights could not be downloaded ({error}); name a local file with --init FILE, or "
            f"begin from random weights with --init none"
        ) from None
    except Exception as error:
        raise DataError(
            f"--init imagenet: what was downloaded is damaged ({type(error).__name__}); remove "
            f"{Path(weights.url).name} from {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from None
    return _checked(state, IMAGENET)


def _file_state(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    if not path.exists():
        raise DataError(f"--init {path}: no such file")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as inside:
                    size = max(size, sum(each.file_size for each in inside.infolist()))
            if size > INIT_LIMIT:
                raise DataError(f"--init {path}: larger than any weights of this backbone")
            file.seek(0)
            if path.suffix == ".safetensors":
                state = safetensors.torch.load_file(path)
            else:
                state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"--init {path}: {error.strerror or error}") from None
    except DataError:
        raise
    except Exception as error:  # torch raises a different type for each way in which a file can be wrong
        raise DataError(f"--init {path}: not a state dict that can be read ({type(error).__name__})") from None
    return _checked(state, str(path))


def _checked(state: object, init: str) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in state.items()
    ):
        raise DataError(f"--init {init}: not a state dict of tensors")
    return state


def file_digest(init: str | None) -> str | None:
    """The SHA-256 of the file to begin from; None if there is none.

    Raises:
        DataError: it cannot be read.
    """
    if init in (None, NO_INIT, IMAGENET):
        return None
    try:
        with open_regular(Path(init)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"--init {init}: {error.strerror or error}") from None
