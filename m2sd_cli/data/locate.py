"""Opening a data set that a name or a folder stands for."""

import os
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2sd_cli.data.catalogue import DATA_SETS, DataSetInfo, find_info
from m2sd_cli.data.protocol import Protocol, apply_protocol
from m2sd_cli.data.split_list import SplitList
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.paths import environment_path, user_cache
from m2sd_cli.reading import quoted
from m2sd_cli.registry import load, one_of

if TYPE_CHECKING:  # which imports torch, and a list of data sets does without
    from collections.abc import Sequence

    from m2sd_cli.data.datasets import DataSet, Shots, Skipped, Treatment

ROOT_VARIABLE = "M2SD_DATA"
FOLDER_IMAGE_SIZE = 224  # pixels


def data_roots(data_root: Path | None) -> list[Path]:
    """List the folders in which data sets are looked for: `data_root` alone if given; $M2SD_DATA; the cache folder."""
    if data_root is not None:
        return [data_root]
    roots = list(filter(None, [environment_path(ROOT_VARIABLE)]))
    with suppress(UsageError) if roots else nullcontext():  # without a home folder the variable is enough
        roots.append(user_cache(ROOT_VARIABLE))
    return roots


def locate(info: DataSetInfo, data_root: Path | None) -> Path | None:
    """Find the root under which the folder or file of a data set lies; None if it is under none."""
    return next((root for root in data_roots(data_root) if os.path.exists(root / info.layout)), None)


def open_data(
    name: str,
    data_root: Path | None = None,
    image_size: int | None = None,
    skipped: "Sequence[Skipped]" = (),
    protocol: Protocol | None = None,
    transform: str | None = None,
    listed: SplitList | None = None,
) -> "DataSet":
    """Open a data set of the catalogue by name, or a folder.

    Args:
        name: of the catalogue, or a path.
        data_root: the folder of data sets; None for those of `data_roots`.
        image_size: of a folder's images as the network sees them, in pixels; default 224.
        skipped: images to leave out.
        protocol: of a data set of the catalogue; None for the official one.
        transform: the data set of the catalogue whose treatment and image size a folder's images get; None for the
            usual treatment.
        listed: the list that divides a folder.

    Raises:
        UsageError: there is no such data set and no such folder, or an option is not for it.
        DataError: the data set is missing, cannot be downloaded, or is damaged.
    """
    info = find_info(name)
    if info is None:
        from m2sd_cli.data.fixed_split import open_fixed_split
        from m2sd_cli.data.folders import open_folder, usual_treatment

        size = image_size or FOLDER_IMAGE_SIZE
        treatment = usual_treatment(size) if transform is None else treatment_of(transform, image_size)
        if listed is not None:
            return open_fixed_split(Path(name), listed, treatment, skipped)
        return replace(open_folder(Path(name), size, skipped), **treatment._asdict())
    if listed is not None:
        raise UsageError(f"--split is for folders; {info.name} has sessions of its own; leave it out")
    if transform is not None:
        raise UsageError(
            f"--transform is for folders; {info.name}'s images have a treatment of their own; leave it out"
        )
    from m2sd_cli.data.simulation import simulate
    from m2sd_cli.data.skipping import leave_out

    data = _open_original(info, data_root, protocol)
    # Images that cannot be read have their part in the simulation all the same, so that no other changes its part.
    return leave_out(data if info.simulates is None else simulate(data, apply_protocol(info, data.protocol)), skipped)


def open_shot_pool(
    info: DataSetInfo, data_root: Path | None = None, protocol: Protocol | None = None
) -> "tuple[Shots, Path]":
    """Open the images of which shots of a simulated data set are drawn, see `simulation.shot_pool`, and their folder.

    Raises:
        DataError: the original is not there, cannot be downloaded, or is damaged.
    """
    from m2sd_cli.data.simulation import shot_pool

    data = _open_original(info, data_root, protocol)
    return shot_pool(data, apply_protocol(info, protocol)), data.location


def _open_original(info: DataSetInfo, data_root: Path | None, protocol: Protocol | None) -> "DataSet":
    """Open a data set, or the original of a simulated one, divided by a protocol, or officially.

    Raises:
        DataError: it is not there, cannot be downloaded, or is damaged.
        M2sdError: a data set of another package is not as its entry promises.
    """
    build, original = load(info.builder), DATA_SETS[info.simulates or info.name]
    data: DataSet = build(locate(info, data_root) or fetch(info, data_root)) if info.layout else build()
    fault = _find_fault(data, original)
    if fault is not None:
        raise DATA_SETS.broken(original.name, fault)
    if protocol is not None:
        from m2sd_cli.data.dividing import divide

        data = divide(data, original, protocol)
    return replace(data, whole=None)  # so that no training holds the images of later classes


def _find_fault(data: object, info: DataSetInfo) -> str | None:
    """Describe how the result of a builder differs from its entry; None if it does not."""
    from m2sd_cli.data.datasets import DataSet

    if not isinstance(data, DataSet):
        return f"its builder returns a {type(data).__name__}, and no DataSet"
    for noun, found, promised in (
        ("name", data.name, info.name),
        ("number of base classes", data.base, info.base),
        ("number of classes", len(data.classes), info.classes),
        ("number of sessions", data.sessions, info.sessions),
    ):
        if found != promised:
            return f"its builder returns a DataSet whose {noun} is {found!r}; its DataSetInfo says {promised!r}"
    return None


def fetch(info: DataSetInfo, data_root: Path | None) -> Path:
    """Download a data set into the first of its roots, and return that root.

    Raises:
        DataError: it cannot be downloaded.
    """
    root = data_roots(data_root)[0]
    if info.download is None:
        raise DataError(
            f"{info.name}: no {info.layout} in {', '.join(str(each) for each in data_roots(data_root))}; "
            f"it cannot be downloaded from here, so put it there or name its parent with --data-root"
        )
    load(info.download)(root)
    return root


def treatment_of(name: str, image_size: int | None = None) -> "Treatment":
    """Load the treatment of the images of a data set.

    Raises:
        UsageError: there is none of that name, or its images have another size than the one that is asked for.
    """
    treatment = DATA_SETS[name].treatment if name in DATA_SETS else None
    if treatment is None:
        able = [each for each, entry in DATA_SETS.loadable().items() if entry.treatment is not None]
        raise UsageError(f"--transform {quoted(name)}: choose {one_of(able)}")
    size = DATA_SETS[name].image_size
    if image_size not in (None, size):
        raise UsageError(f"--image-size {image_size}: --transform {name} has {size} pixels; leave it out")
    return load_treatment(treatment)


def load_treatment(attribute: str) -> "Treatment":
    """Load the treatment that "module:attribute" names."""
    treatment: Any = load(attribute)
    from m2sd_cli.data.datasets import Treatment

    return Treatment(*treatment)
