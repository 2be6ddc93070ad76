"""Figures of every session of a chain, and published figures for comparison."""

from dataclasses import replace
from pathlib import Path

from m2sd_cli.api.tested_images import open_tested_images
from m2sd_cli.distributed.process_group import process_group
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import load_all_sessions
from m2sd_cli.paths import expand_given
from m2sd_cli.reports.evaluation import Evaluation, evaluate_session
from m2sd_cli.reports.published import Comparison, compare_with_published
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import PRETRAIN


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
    ignore_new: bool = False,
    classifier: str | None = None,
    base_cost: float | None = None,
    keep_features: bool = False,
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
        ignore_new: leave out the images of a folder that pretrain did not have.
        classifier: the name in CLASSIFIERS that answers in every session; None for that of the last session.
        base_cost: points of base accuracy that each new class may cost, of `debiased` and `quadratic`; None for those
            of the base session.
        keep_features: return the features of the test images, too, which `draw_figures` needs.

    Raises:
        M2sdError: one of its kinds.
    """
    for option, given in {"--data": data, "--ignore-new": ignore_new or None}.items():
        if test is not None and given is not None:
            raise UsageError(f"--test and {option}: that is for the run's own test images; leave it out")
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    exact = inference_precision(precision)
    with process_group(choose_device(device)) as (group, chosen):
        chain = folder.summary(session)
        models = load_all_sessions(folder, chain, chosen, exact, classifier, base_cost)
        tested = open_tested_images(folder, chain, group, test, data, root, skip_bad, ignore_new)
        keep = tested.data_set is not None
        evaluation = evaluate_session(
            models, tested.source, tested.classes, tested.location, keep, group, keep_features=keep_features
        )
        return replace(evaluation, skipped=tested.skipped)


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
