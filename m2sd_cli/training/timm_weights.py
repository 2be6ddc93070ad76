"""The backbones `timm:NAME`, with NAME as timm's `create_model` takes it, and their weights."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import timm
import torch
from timm.models import PretrainedCfg

from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.method.timm_backbone import TimmBackbone
from m2sd_cli.reading import quoted, read_regular
from m2sd_cli.tables import FOLDER, HUB, TIMM, BackboneEntry, ImageNetWeights, Numbers
from m2sd_cli.training.initial_weights import read_weights

FILES: Final = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
DESCRIPTION: Final = "config.json"
DESCRIPTION_LIMIT = 2**24  # bytes; some list thousands of labels
ARGUMENTS = {"num_classes", "pretrained", "img_size"}  # of a network; none changes the backbone that its name builds


@lru_cache
def find_model(name: str) -> BackboneEntry:
    """Make the entry of a network of timm.

    Args:
        name: after `timm:`; a network's name with a tag or without, `local-dir:DIR` or `hf-hub:OWNER/MODEL`.

    Raises:
        UsageError: timm knows none of that name; the message names the nearest one.
        DataError: the description in a folder or on the hub cannot be read.
    """
    config: PretrainedCfg | None
    if name.startswith((HUB, FOLDER)):
        config, model = read_description(name)
        recorded = model  # a run is not to need the folder or the hub
    else:
        _require_known(name)
        config, model, recorded = timm.get_pretrained_cfg(name), name.partition(".")[0], name
    weights = None if config is None else _weights(name, config)
    return BackboneEntry(partial(TimmBackbone, model), recorded, weights, sized=True, recorded=f"{TIMM}{recorded}")


def _weights(name: str, config: PretrainedCfg) -> ImageNetWeights:
    size = min(config.input_size[-2:])
    squash = config.crop_mode == "squash"
    return ImageNetWeights(
        "m2sd_cli.training.timm_weights:timm_state",
        name,
        image_size=size,
        resize=size if squash else int(size / config.crop_pct),
        mean=_three(config.mean),
        std=_three(config.std),
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        squash=squash,
        file="m2sd_cli.training.timm_weights:weights_file",
        licence=config.license or "unknown",
        tag=config.tag or None,
    )


def _three(values: Any) -> Numbers:
    first, second, third = map(float, values)
    return first, second, third


def _require_known(name: str) -> None:
    tagged, plain = timm.list_pretrained(), timm.list_models()
    if name in tagged or name in plain:
        return
    from difflib import get_close_matches

    near = get_close_matches(name, tagged if "." in name else plain, n=1, cutoff=0.4)
    hint = f" (did you mean {TIMM}{near[0]}?)" if near else ""
    raise UsageError(f"--backbone {TIMM}{quoted(name)}: timm {timm.__version__} knows none of that name{hint}")


def timm_state(name: str) -> Mapping[object, object]:
    """Read the weights of a name as `timm:` takes it; they are downloaded unless a cache folder has them.

    Raises:
        DataError: the name has no weights, the download failed, or the file cannot be read.
    """
    return read_weights(weights_file(name))


def weights_file(name: str) -> Path:
    """Locate the file of the weights of a name, and download it unless a cache folder has it.

    Raises:
        DataError: the name has no weights, or the download failed.
    """
    if name.startswith(FOLDER):
        return _file_in(Path(name.removeprefix(FOLDER)).expanduser())
    if name.startswith(HUB):
        return _download(name.removeprefix(HUB), FILES)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise DataError(f"--init imagenet: timm {timm.__version__} has no weights of {name}; name a file with --init")
    if config.hf_hub_id:
        return _download(config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else FILES)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(config.url)).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(str(config.url), str(path), progress=False)
        except OSError as error:
            raise _not_downloaded(error) from None
    return path


def read_description(name: str) -> tuple[PretrainedCfg, str]:
    """Read timm's description of a network, config.json, from a folder or the hub.

    Returns:
        The preparation of its images, and its name without a tag.

    Raises:
        DataError: there is no such file, or it describes no network of timm's.
    """
    if name.startswith(FOLDER):
        path = Path(name.removeprefix(FOLDER)).expanduser() / DESCRIPTION
    else:
        path = _download(name.removeprefix(HUB), (DESCRIPTION,))
    try:
        content = json.loads(read_regular(path, DESCRIPTION_LIMIT))
        model, arguments = content["architecture"], content.get("model_args") or {}
        described = {**content, **content.get("pretrained_cfg", {})}
        known = {each.name for each in fields(PretrainedCfg)}
        config = PretrainedCfg(**{key: value for key, value in described.items() if key in known})
        if arguments.get("img_size"):
            size = arguments["img_size"]
            config = replace(config, input_size=(3, *([size, size] if isinstance(size, int) else size)))
        numbers = [*config.input_size, config.crop_pct, *config.mean, *config.std]
        if not all(isinstance(each, int | float) and each >= 0 for each in numbers) or not config.crop_pct:
            raise ValueError("its numbers make no sense")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; timm describes a network there") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: no description of a network of timm's ({quoted(str(error))})") from None
    if not isinstance(model, str) or not timm.is_model(model):
        raise DataError(f"{path}: timm {timm.__version__} knows no network {quoted(str(model))}")
    others = {each: value for each, value in arguments.items() if each not in ARGUMENTS}
    if others and not _builds_the_usual(model, others):
        raise DataError(
            f"{path}: the network was built with another {quoted(' or '.join(others))} than {model}, and a run builds "
            f"it by its name alone; if the weights fit without, --backbone {TIMM}{model} --init FILE"
        )
    return config, model


def _builds_the_usual(model: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether the arguments that a folder names make the same network as its name alone."""
    try:
        return repr(timm.create_model(model, **arguments)) == repr(timm.create_model(model))
    except Exception:  # timm passes the arguments on unchecked, and the network may raise anything
        return False


def _file_in(folder: Path) -> Path:
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        found = sorted(path for kind in ("safetensors", "pth", "bin") for path in folder.glob(f"*.{kind}"))
        if len(found) > 1:
            raise DataError(f"{folder}: several files of weights; rename one to {FILES[0]}")
    if not found:
        raise DataError(f"{folder}: no {FILES[0]} and no other weights in it")
    return found[0]


def _download(repository: str, names: tuple[str, ...]) -> Path:
    """Download the first of some files that a repository of the hub has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    owner, _, revision = repository.partition("@")
    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(owner, name, revision=revision or None))
        except LocalEntryNotFoundError as error:
            raise _not_downloaded(error) from None
        except EntryNotFoundError as error:
            missing = error
        except Exception as error:  # the hub's client has several HTTP libraries, each with errors of its own
            raise _not_downloaded(error) from None
    raise DataError(
        f"--init imagenet: {quoted(owner)} has no {' or '.join(names)} ({missing and _first(missing)}); name another "
        f"--init"
    )


def _first(error: Exception) -> Any:
    return quoted((str(error) or type(error).__name__).splitlines()[0])


def _not_downloaded(error: Exception) -> DataError:
    return DataError(
        f"weights of ImageNet: they could not be downloaded ({_first(error)}); name a folder that has them with "
        f"--backbone {TIMM}{FOLDER}DIR, or begin from a file with 'm2sd pretrain --init FILE'"
    )
