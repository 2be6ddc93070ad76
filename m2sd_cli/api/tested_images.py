"""Labelled images to measure a chain with."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from m2sd_cli import progress
from m2sd_cli.api.recorded_data import find_folder, recorded_data, say_changes
from m2sd_cli.api.stage import remember_folder
from m2sd_cli.data.datasets import DataSet, Skipped
from m2sd_cli.data.folders import read_shots
from m2sd_cli.data.skipping import say_skipped, skip_bad_shots, skip_bad_tests
from m2sd_cli.data.sources import FileImages, ImageSource
from m2sd_cli.distributed.process_group import ProcessGroup
from m2sd_cli.errors import DamagedError, DataError
from m2sd_cli.inference.skipping import check_images_together
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.reading import counted
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.reader import PRETRAIN
from m2sd_cli.training.records import base_records, classes_digest, name_changes


@dataclass(frozen=True)
class TestedImages:
    """Test images, and where they came from."""

    __test__ = False  # the name begins with Test, and is none of pytest's

    source: ImageSource  # its labels index `classes`
    classes: list[str]
    location: str  # for messages
    skipped: Sequence[Skipped]  # images that cannot be read and were left out, if that was asked for
    data_set: DataSet | None  # that they are of; None for a folder of labelled images


def open_tested_images(
    folder: RunFolder,
    chain: ChainSummary,
    group: ProcessGroup,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    skip_bad: bool = False,
    ignore_new: bool = False,
) -> TestedImages:
    """Open the test images of a run's data set, or those of a folder.

    Args:
        folder: the run folder.
        chain: of the run.
        group: whose processes share the work.
        test: DIR with DIR/CLASS/*.jpg; None for the test images of the data set.
        data: the folder of pretrain, if it is not where it was.
        data_root: the folder of built-in data sets.
        skip_bad: leave out test images that cannot be read. The images that stage 1 left out are left out anyway.
        ignore_new: leave out the images of a folder that stage 1 did not have.

    Raises:
        M2sdError: one of its kinds.
    """
    check = partial(check_images_together, group=group)
    base = chain.base.manifest
    if test is not None:
        location = expand(test, "--test")
        labelled = read_shots(location)
        if skip_bad:
            labelled = skip_bad_shots(labelled, location, check)
            say_skipped(labelled.skipped)
        with suppress(DamagedError):  # the figures need sessions alone
            _say_learned(labelled.source, _stage_1(folder, base), chain, group)
        return TestedImages(labelled.source, labelled.classes, str(location), labelled.skipped, None)
    first = _stage_1(folder, base) if base.data.kind == "folder" else base
    with group.local_main_first():
        data_set = _open_data(folder, base, first, data, data_root, ignore_new)
    skipped: Sequence[Skipped] = ()
    if skip_bad:
        data_set, skipped = skip_bad_tests(data_set, check)
        say_skipped(skipped)
    _say_learned(data_set.test, first, chain, group)
    return own_tests(data_set, skipped)


def _stage_1(folder: RunFolder, base: Manifest) -> Manifest:
    assert base.parent is not None
    return folder.read(PRETRAIN, base.parent.sha256).manifest


def _say_learned(source: ImageSource, first: Manifest, chain: ChainSummary, group: ProcessGroup) -> None:
    """Say how many of the test images are copies of base images of a folder, or of shots: these prove nothing."""
    if not isinstance(source, FileImages) or not group.is_main:
        return
    learned = {sha256 for sha256 in first.files.values() if sha256 is not None} | chain.taught_images().keys()
    if not learned:
        return
    copies = [path for path, sha256 in zip(source.paths, source.digests(), strict=True) if sha256 in learned]
    if copies:
        progress.say(
            f"{len(copies)} of {counted(len(source), 'test image')} were learned or held out, such as {copies[0]}: "
            f"their answers prove nothing; leave them out"
        )


def own_tests(data_set: DataSet, skipped: Sequence[Skipped] = ()) -> TestedImages:
    """Take the test images of a data set.

    Raises:
        DataError: it has none.
    """
    if len(data_set.test) == 0:
        raise DataError(f"{data_set.location}: no test images in it; name some with --test DIR")
    return TestedImages(data_set.test, data_set.classes, str(data_set.location), skipped, data_set)


def has_test_images(folder: RunFolder) -> bool:
    """Tell whether a run knows of images to test on, for hints; of an older folder, which lists none, it is assumed."""
    files = folder.pretrain().manifest.files
    return not files or None in files.values()


def open_base_data(
    folder: RunFolder,
    chain: ChainSummary,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    ignore_new: bool = False,
    trained: bool = False,
) -> DataSet:
    """Open the data set of a run, which has to be the one that it was trained on.

    Args:
        folder, chain, data, data_root, ignore_new: those of `open_tested_images`.
        trained: the images that were trained on and held out are wanted, too; otherwise a built-in data set has all.

    Raises:
        M2sdError: one of its kinds, as `recorded_data` raises them; DataError for other images.
    """
    base = chain.base.manifest
    # The training images of a folder are compared with the record of stage 1.
    first = _stage_1(folder, base) if base.data.kind == "folder" or trained else base
    return _open_data(folder, base, first, data, data_root, ignore_new)


def _open_data(
    folder: RunFolder,
    base: Manifest,
    first: Manifest,
    data: Path | str | None,
    data_root: Path | str | None,
    ignore_new: bool,
) -> DataSet:
    named = find_folder(folder, first, text_given(data))
    root = expand_given(data_root, "--data-root")
    data_set = recorded_data(first, named, root, base.transform.crop, ignore_new)
    if first is not base and classes_digest(base_records(data_set)) != classes_digest(base.classes):
        raise DataError(
            f"{data_set.location}: not the images that the run was trained on, so its test images may have been; "
            f"name others with --test DIR: {name_changes(base_records(data_set), base.classes)}"
            f"{say_changes(data_set, first)}"
        )
    remember_folder(folder, data_set, first)
    return data_set
