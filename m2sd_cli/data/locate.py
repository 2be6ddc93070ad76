"""From a name or a folder to a data set that is at hand."""

import os
from collections.abc import Sequence
from pathlib import Path

from m2sd_cli.data.catalogue import DataSetInfo, find_info
from m2sd_cli.data.datasets import DataSet, Shots, Skipped
from m2sd_cli.errors import DataError

ROOT_VARIABLE = "M2SD_DATA"
FOLDER_IMAGE_SIZE = 224  # pixels


def data_roots(data_root: Path | None) -> list[Path]:
    """Where data sets are looked for, in order: `data_root` alone if given; $M2SD_DATA; the cache folder."""
    if data_root is not None:
        return [data_root]
    from platformdirs import user_cache_path

    named = os.environ.get(ROOT_VARIABLE)
    return ([Path(named)] if named else []) + [user_cache_path("m2sd")]


def locate(info: DataSetInfo, data_root: Path | None) -> Path | None:
    """The root under which a built-in data set lies, or None."""
    return next((root for root in data_roots(data_root) if os.path.isdir(root / info.layout)), None)


def open_data(
    name: str, data_root: Path | None = None, image_size: int | None = None, skipped: Sequence[Skipped] = ()
) -> DataSet:
    """Open a built-in data set by name, or a folder.

    Args:
        name: of the catalogue, or a path.
        data_root: where built-in data sets lie; `data_roots` says where else.
        image_size: of a folder's images as the network sees them, in pixels; default 224.
        skipped: pictures to leave out.

    Raises:
        UsageError: there is no such data set and no such folder.
        DataError: it is not there, cannot be downloaded, or is damaged.
    """
    info = find_info(name)
    if info is None:
        from m2sd_cli.data.folders import open_folder

        return open_folder(Path(name), image_size or FOLDER_IMAGE_SIZE, skipped)
    from m2sd_cli.data.simulation import simulate
    from m2sd_cli.data.skipping import leave_out

    data = _open_built_in(info, data_root)
    # What cannot be read has its part in the simulation all the same, so that nothing else changes its part.
    return leave_out(data if info.simulates is None else simulate(data, info), skipped)


def open_shot_pool(info: DataSetInfo, data_root: Path | None = None) -> tuple[Shots, Path]:
    """What the shots of a simulated data set may be drawn of, see `simulation.shot_pool`, and where they lie.

    Raises:
        DataError: what it simulates is not there, cannot be downloaded, or is damaged.
    """
    from m2sd_cli.data.simulation import shot_pool

    data = _open_built_in(info, data_root)
    return shot_pool(data, info), data.location


def _open_built_in(info: DataSetInfo, data_root: Path | None) -> DataSet:
    """A built-in data set as it was published, or that which a simulated one is to be made of."""
    name = info.simulates or info.name
    if name == "demo":
        from m2sd_cli.data.demo import open_demo

        return open_demo()
    root = locate(info, data_root) or fetch(info, data_root)
    if name == "cifar100":
        from m2sd_cli.data.cifar100 import open_cifar100

        return open_cifar100(root)
    from m2sd_cli.data.file_sets import open_cub200, open_miniimagenet

    return open_cub200(root) if name == "cub200" else open_miniimagenet(root)


def fetch(info: DataSetInfo, data_root: Path | None) -> Path:
    """Download a data set into the first of its roots, and return that root.

    Raises:
        DataError: it cannot be downloaded.
    """
    root = data_roots(data_root)[0]
    if not info.download:
        raise DataError(
            f"{info.name}: no folder {info.layout} in {', '.join(str(each) for each in data_roots(data_root))}; "
            f"it cannot be downloaded from here, so put it there or name its parent with --data-root"
        )
    from m2sd_cli.data.cifar100 import download_cifar100

    download_cifar100(root)
    return root
