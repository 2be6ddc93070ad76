"""Figures of every session of a chain, and published figures for comparison."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.data.folders import read_shots
from m2sd_cli.data.skipping import say_skipped, skip_bad_shots, skip_bad_tests
from m2sd_cli.distributed.process_group import process_group
from m2sd_cli.errors import DataError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import load_chain
from m2sd_cli.inference.skipping import check_pictures_together
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.reports.evaluation import Evaluation, evaluate_session
from m2sd_cli.reports.published import Comparison, compare_with_published
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import PRETRAIN
from m2sd_cli.training.records import base_records, classes_digest, name_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2sd_cli.data.datasets import Skipped


def evaluate(
    *,
    run: Path | str | None = None,
    session: int | None = None,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
) -> Evaluation:
    """Compute the figures of every session of the chain in one pass over the test images.

    Args:
        run: the run folder.
        session: the last session to look at; None for the newest.
        test: DIR with DIR/CLASS/*.jpg; None for the test images of the data set.
        data: the folder of pretrain, whose test images to take; needed for a folder if `test` is None.
        data_root: the folder of built-in data sets.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: leave out test images that cannot be read. The images that stage 1 left out are left out anyway.
        classifier: the name in CLASSIFIERS that answers in every session; None for that of the last session.

    Raises:
        M2sdError: one of its kinds.
    """
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    exact = inference_precision(precision)
    with process_group(choose_device(device)) as (group, chosen):
        chain = folder.summary(session)
        model = load_chain(folder, chain, chosen, exact, classifier)
        if test is not None:
            location = expand(test, "--test")
            labelled = read_shots(location)
            if skip_bad:
                labelled = skip_bad_shots(labelled, location, partial(check_pictures_together, group=group))
                say_skipped(labelled.skipped)
            evaluation = evaluate_session(model, labelled.source, labelled.classes, str(location), group=group)
            return replace(evaluation, skipped=labelled.skipped)
        base = chain.base.manifest
        is_folder = base.data.kind == "folder"
        assert base.parent is not None
        # The training images of a folder are compared with the record of stage 1.
        first = folder.read(PRETRAIN, base.parent.sha256).manifest if is_folder else base
        with group.local_main_first():
            data_set = recorded_data(first, text_given(data), root, model.transform.crop)
        if is_folder and classes_digest(base_records(data_set)) != classes_digest(base.classes):
            raise DataError(
                f"{data_set.location}: not the images that the run was trained on, so its test images may have been; "
                f"name others with --test DIR: {name_changes(base_records(data_set), base.classes)}"
            )
        skipped: Sequence[Skipped] = ()
        if skip_bad:
            data_set, skipped = skip_bad_tests(data_set, partial(check_pictures_together, group=group))
            say_skipped(skipped)
        if len(data_set.test) == 0:
            raise DataError(f"{data_set.location}: no test images in it; name some with --test DIR")
        location = data_set.location
        evaluation = evaluate_session(model, data_set.test, data_set.classes, str(location), keep=True, group=group)
        return replace(evaluation, skipped=skipped)


def compare(run: Path | str | None = None) -> Comparison:
    """Put the figures of a run beside the published ones for its data set and backbone.

    Args:
        run: the run folder.

    Raises:
        UsageError: no figures are published for the data set of the run.
        RunError: the run has no session, or is damaged.
    """
    folder = open_run(run)
    chain = [stored.manifest for stored in folder.chain()]
    assert chain[0].parent is not None
    return compare_with_published(folder.read(PRETRAIN, chain[0].parent.sha256).manifest, chain)
