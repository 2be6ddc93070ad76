"""Features of the images that a run was trained or tested on, as arrays: `features`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from m2sd_cli.api.tested_images import open_base_data
from m2sd_cli.data.names import relative_name
from m2sd_cli.data.parts import check_part
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import load_chain
from m2sd_cli.reports.draws import embed_source
from m2sd_cli.runs.folder import open_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureSet:
    """Features of N images, with their labels."""

    features: "NDArray[np.float32]" = field(repr=False)  # (N, D)
    labels: "NDArray[np.int64]" = field(repr=False)  # (N,), that index `classes`
    classes: list[str]  # of the data set, base classes first
    paths: list[Path] | None = field(repr=False)  # of the images; None if they are no files of their own
    part: str
    data: str
    location: Path = field(repr=False)  # the folder of the data set
    sha256: str = field(repr=False)  # of the manifest of session 0, whose network it is

    @property
    def names(self) -> list[str] | None:
        """The files below the folder of the data set, as text."""
        return None if self.paths is None else [relative_name(path, self.location) for path in self.paths]


def features(
    run: Path | str | None = None,
    data: Path | str | None = None,
    part: str = "train",
    *,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    ignore_new: bool = False,
) -> FeatureSet:
    """Compute the features of the images of a run's data set, by its network and its test transform.

    Args:
        run: the run folder.
        data: the folder of pretrain, if it is not where it was.
        part: one of PARTS. `train` has the base images that were trained on, without the held-out ones.
        data_root: the folder of built-in data sets.
        device, precision: `auto` chooses; precision `auto` is fp32.
        ignore_new: leave out the images of a folder that pretrain did not have.

    Raises:
        UsageError: there is no such part.
        DataError: the part has no images, or the images are not those that the run was trained on.
        M2sdError: another one of its kinds.
    """
    check_part(part)
    folder = open_run(run)
    exact = inference_precision(precision)
    chain = folder.summary(0)
    model = load_chain(folder, chain, choose_device(device), exact, "means")
    data_set = open_base_data(folder, chain, data, data_root, ignore_new, trained=part != "test")
    source = {"train": data_set.train, "held-out": data_set.held_out, "test": data_set.test}[part]
    if source is None or not len(source):
        why = ", since pretrain held none out" if part == "held-out" else ""
        raise DataError(f"{data_set.location}: no {part} images{why}; choose another --part")
    with torch.inference_mode():
        embedded = embed_source(model.backbone, source, model.transform, exact, "computing features")
    return FeatureSet(
        features=embedded.features.numpy(),
        labels=source.labels.numpy(),
        classes=data_set.classes,
        paths=[*source.paths] if isinstance(source, FileImages) else None,
        part=part,
        data=data_set.name,
        location=data_set.location,
        sha256=chain.base.record.sha256,
    )
