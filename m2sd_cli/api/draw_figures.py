"""Figures of an evaluation, drawn as SVG: `draw_figures`."""

from collections.abc import Iterator
from pathlib import Path

from m2sd_cli.config.stages import STAGES
from m2sd_cli.errors import UsageError
from m2sd_cli.reports.evaluation import Evaluation
from m2sd_cli.reports.figures.svg import LeftOutError
from m2sd_cli.reports.figures.table import History, Material, draw_all
from m2sd_cli.reports.published import compare_with_published
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.reader import PRETRAIN
from m2sd_cli.runs.training_log import TrainingLog


def draw_figures(
    evaluation: Evaluation, *, run: Path | str | None = None, own_images: bool = False
) -> Iterator[tuple[str, str | LeftOutError]]:
    """Draw every figure of a run.

    Args:
        evaluation: of the run, with its features.
        run: the run folder.
        own_images: the test images were not those of the data set, so that nothing published is to be drawn beside.

    Yields:
        The name of each figure, and SVG to be put into HTML, or the reason why the run cannot tell.

    Raises:
        M2sdError: one of its kinds.
    """
    folder = open_run(run)
    manifests = [stored.manifest for stored in folder.chain(len(evaluation.figures.sessions) - 1)]
    return draw_all(material_of(evaluation, folder, manifests, own_images))


def material_of(
    evaluation: Evaluation, folder: RunFolder, manifests: list[Manifest], own_images: bool = False
) -> Material:
    """Collect the data that the figures are drawn from.

    Args:
        evaluation: of the run, with its features.
        folder: the run folder.
        manifests: of sessions 0, 1, ..., up to the last one that was evaluated.
        own_images: see `draw_figures`.

    Raises:
        M2sdError: one of its kinds.
    """
    assert evaluation.embedded is not None, "asked for with keep_features"
    base = manifests[0]
    assert base.parent is not None
    first = folder.read(PRETRAIN, base.parent.sha256).manifest
    try:
        comparison = compare_with_published(first, manifests)
        published = comparison.rows if comparison.comparable and not own_images else []
    except UsageError:  # nothing is published on this data set
        published = []
    return Material(
        evaluation=evaluation,
        features=evaluation.embedded.features,
        means=evaluation.embedded.means,
        published=published,
        history=histories_of(folder, first, base),
    )


def histories_of(folder: RunFolder, first: Manifest, base: Manifest) -> dict[int, History]:
    """Read the epochs of stages 1 and 2 from their manifests, and held-out accuracies from the log, if it has them.

    A log of another training, which has begun over the chain, is passed over: its losses are others.
    """
    try:
        lines = TrainingLog(folder.path, STAGES).lines()
    except OSError:  # nothing depends on the log
        lines = []
    histories = {}
    for number, (stage, manifest) in enumerate(zip(STAGES, (first, base), strict=True), start=1):
        losses = {each.epoch: each.loss for each in manifest.history}
        own = (line for line in lines if line["stage"] == stage and line.get("loss") == losses.get(line["epoch"]))
        shares = {line["epoch"]: line.get("held_out_accuracy") for line in own}
        held_out = {epoch: float(share) for epoch, share in shares.items() if type(share) is float and 0 <= share <= 1}
        histories[number] = History(manifest.history, held_out)
    return histories
