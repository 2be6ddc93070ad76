"""Initial weights of stage 1, from ImageNet or from a local file."""

import hashlib
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from m2sd_cli.config.stages import NO_INIT, PretrainConfig
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.pairing import import_torchvision
from m2sd_cli.paths import refuse_address
from m2sd_cli.progress import say
from m2sd_cli.reading import open_regular, quoted
from m2sd_cli.registry import load
from m2sd_cli.runs.manifest import WeightsRecord
from m2sd_cli.tables import BACKBONES, FOLDER, HUB, TIMM, ImageNetWeights
from m2sd_cli.training.state_dicts import check_weights, describe_content, select_weights, without_classifier

IMAGENET = "imagenet"
NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|amlr|seer", re.IGNORECASE)  # names of licences
INIT_LIMIT = 4 * 2**30  # bytes of a file to begin from, unpacked


def initialise(backbone: Backbone, name: str, init: str) -> None:
    """Load the weights to begin from: those of the table BACKBONES, timm's of an origin, or those of a local file.

    Args:
        backbone: the network.
        name: its name in the table BACKBONES.
        init: `imagenet`, `local-dir:DIR` or `hf-hub:OWNER/MODEL` as timm knows them, or the path of a file.

    Raises:
        UsageError: there are no weights of ImageNet for this backbone; the message names the backbones that have some.
        DataError: the file is missing, no state dict, or of another network; or the download failed.
    """
    content = _published_state(name, init) if is_published(init) else read_weights(Path(init))
    try:
        load_initial_weights(backbone, select_weights(content, backbone))
    except ValueError as error:
        raise DataError(
            f"--init {init}: not the weights of this backbone: {error}; --init none begins from random weights"
        ) from None


def load_initial_weights(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Copy a state dict with torchvision's names into the backbone; a classifier in it is left out.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or kind, or holds a number that is not finite; the
            message names the first few.
    """
    state = without_classifier(state, backbone)
    weights = backbone.state_dict()
    mismatch = check_weights(backbone, state)
    if mismatch is not None:
        raise ValueError(mismatch)
    with torch.no_grad():
        for name, tensor in state.items():
            weights[name].copy_(tensor)


def known_weights(backbone: object, init: object) -> ImageNetWeights | None:
    """Look up the weights of ImageNet that go with a backbone, or the weights of an origin that timm knows.

    A file does not tell how its images were prepared: the preparation of the backbone's ImageNet weights is assumed.

    Args:
        backbone, init: of the configuration of stage 1, or of a record of it, which may hold anything.

    Raises:
        UsageError: the origin has weights of another network.
        M2sdError: the package that has the backbone is not installed.
    """
    name, origin = str(backbone), str(init)
    if init in (None, NO_INIT) or name not in BACKBONES:
        return None
    entry = BACKBONES[name]
    if origin.startswith((HUB, FOLDER)):
        found = BACKBONES[TIMM + origin]
        if (found.recorded or "").partition(".")[0] != (entry.recorded or name).partition(".")[0]:
            raise UsageError(
                f"--init {origin}: these are weights of {found.recorded}, and not of {name}; choose that --backbone"
            )
        entry = found
    return entry.imagenet


def separate_origin(config: PretrainConfig) -> PretrainConfig:
    """Split a backbone's name from the place of its weights, which becomes `init`: the weights to begin from."""
    recorded = BACKBONES[config.backbone].recorded
    if recorded is None or recorded == config.backbone:
        return config
    init = config.backbone.removeprefix(TIMM) if config.init == IMAGENET else config.init
    return replace(config, backbone=recorded, init=init)


def without_path(init: str | None) -> str | None:
    """Return the weights to begin from without their folder: no record holds a path of this machine."""
    prefix = next((each for each in (HUB, FOLDER) if init and init.startswith(each)), "")
    return init and prefix + Path(init.removeprefix(prefix)).name


def weights_record(backbone: str, init: str) -> WeightsRecord | None:
    """Record the weights that stage 1 began from, and warn if their licence forbids commercial use.

    Returns:
        None if nothing tells how their images were prepared.

    Raises:
        DataError: their file cannot be read.
    """
    weights = known_weights(backbone, init)
    if weights is None:
        return None
    published = is_published(init)
    path = load(weights.file)(weights.name) if published and weights.file else None
    sha256 = file_digest(str(path) if path else init)
    if published and weights.licence and NON_COMMERCIAL.search(weights.licence):
        say(f"{weights.name}: the licence of these weights, {weights.licence}, does not allow commercial use")
    return WeightsRecord(
        name=without_path(weights.name if published else init) or "",
        sha256=sha256,
        licence=weights.licence if published else None,
        tag=weights.tag if published else None,
        image_size=weights.image_size,
        crop=weights.image_size / weights.resize,
        mean=weights.mean,
        std=weights.std,
        squash=weights.squash,
        interpolation=weights.interpolation,
    )


def prepared_for_weights(
    data: DataSet, weights: ImageNetWeights | WeightsRecord | None, image_size: int | None
) -> DataSet:
    """Prepare the images of a folder as the images were that trained the initial weights.

    Args:
        data: the folder.
        weights: None to leave the images as they are.
        image_size: side of the square that the network sees, in pixels; None for that of the weights.
    """
    if weights is None:
        return data
    size = image_size or weights.image_size
    share = weights.crop if isinstance(weights, WeightsRecord) else weights.image_size / weights.resize
    resize = round(size / share)
    transform = TestTransform(resize, size, weights.mean, weights.std, weights.squash, 1, weights.interpolation)
    return replace(data, transform=transform, augmentation=Augmentation(size=size, store=resize))


def is_published(init: str) -> bool:
    """Tell whether a package locates the weights by their name; otherwise the name is the path of a file."""
    return init == IMAGENET or init.startswith((HUB, FOLDER))


def _published_weights(backbone: str, init: str) -> ImageNetWeights:
    weights = known_weights(backbone, init)
    if weights is None:
        others = ", ".join(name for name, entry in BACKBONES.entries.items() if entry.imagenet)
        raise UsageError(f"--init imagenet: no weights of {backbone}; choose --backbone {others}, or --init none")
    return weights


def _published_state(backbone: str, init: str) -> Mapping[object, object]:
    weights = _published_weights(backbone, init)
    return _checked(load(weights.builder)(weights.name), init)


def torchvision_state(name: str) -> object:
    """Load weights of torchvision, which are downloaded unless torch's cache folder has them.

    Args:
        name: the enumeration, such as "ResNet18_Weights".

    Raises:
        DataError: the download failed, or the file in the cache folder is damaged.
        M2sdError: torchvision cannot be imported.
    """
    weights = getattr(import_torchvision("models"), name).IMAGENET1K_V1
    try:
        with redirect_stdout(sys.stderr):  # torch says there that it downloads
            # Torch compares the hash of a download, and not that of a file that is in the cache already.
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"weights of ImageNet: {weights.url} could not be downloaded ({error}); save it in "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or begin from a file with 'm2sd pretrain --init FILE'"
        ) from None
    except Exception as error:
        raise DataError(
            f"--init imagenet: what was downloaded is damaged ({type(error).__name__}); remove "
            f"{Path(weights.url).name} from {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from None


def read_weights(path: Path) -> Mapping[object, object]:
    """Read a file of weights, running none of it.

    Raises:
        DataError: it is missing, too large or no state dict.
    """
    import safetensors.torch

    _require_file(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            is_zip = zipfile.is_zipfile(file)
            if is_zip:
                with zipfile.ZipFile(file) as inside:
                    size = max(size, sum(each.file_size for each in inside.infolist()))
            if size > INIT_LIMIT:
                raise DataError(
                    f"--init {path}: larger than any weights of this backbone; name a file of weights alone"
                )
            file.seek(0)
            start = file.read(9)
            file.seek(0)
            if not is_zip and start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
                content: object = safetensors.torch.load_file(path)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch warns of files that it then refuses by an exception
                    content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"--init {path}: {error.strerror or error}") from None
    except DataError:
        raise
    except Exception as error:  # torch raises a different type for each way in which a file can be wrong
        raise DataError(f"--init {path}: {_unread(error)}") from None
    return _checked(content, str(path))


def require_weights(backbone: str, init: str | None) -> None:
    """Refuse weights to begin from that are missing. Published ones are not downloaded.

    Raises:
        DataError: the file is missing.
        UsageError: nobody has published weights of the backbone.
    """
    if init is None or init == NO_INIT:
        return
    if is_published(init):
        _published_weights(backbone, init)
    else:
        _require_file(Path(init))


def _require_file(path: Path) -> None:
    refuse_address(path, "--init")
    if not path.exists():
        raise DataError(f"--init {path}: no such file")


def _unread(error: Exception) -> str:
    """Describe why a file was not read, by the exception that torch raises."""
    alone = "save its state_dict alone"
    if "TorchScript" in str(error):
        return f"a TorchScript program and no state dict; {alone}"
    code = re.search(r"GLOBAL ([\w.]+) was not an allowed", str(error))
    if code:
        return f"it holds {quoted(code[1])} beside tensors, which might run code, so it is not read; {alone}"
    return "not a state dict that torch.save or safetensors has written, or cut off"


def _checked(content: object, init: str) -> Mapping[object, object]:
    if not isinstance(content, Mapping):
        raise DataError(
            f"--init {init}: not a state dict of tensors: {describe_content(content)}; save its state_dict alone"
        )
    return content


def file_digest(init: str | None) -> str | None:
    """Compute the SHA-256 of the file to begin from; None without a file, and for weights of a package.

    Raises:
        DataError: it cannot be read.
    """
    if init in (None, NO_INIT) or is_published(init):
        return None
    try:
        with open_regular(Path(init)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"--init {init}: {error.strerror or error}") from None
