"""Export of a session as one file, or as a folder for a model hub."""

from pathlib import Path

from m2sd_cli.api.tested_images import TestedImages, open_tested_images
from m2sd_cli.distributed.process_group import SINGLE_PROCESS
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, check_licence, choose_format, folder_formats
from m2sd_cli.exporting.export import export_session
from m2sd_cli.exporting.hub.card import UNSTATED, ChainFigures, Origin, SessionRow
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import load_all_sessions, load_session
from m2sd_cli.output_files import check_new_folder, check_output
from m2sd_cli.paths import expand_given
from m2sd_cli.progress import say
from m2sd_cli.reports.evaluation import evaluate_session
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.reader import PRETRAIN
from m2sd_cli.training.initial_weights import IMAGENET, known_weights


def export(
    form: str | None,
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
    classifier: str | None = None,
    licence: str | None = None,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    ignore_new: bool = False,
) -> Path:
    """Write backbone and classifier of a session as one file, or as a folder for a model hub.

    Args:
        form: a name in EXPORT_FORMATS; None for the one that the suffix of `out` names.
        out: the file or folder.
        run: the run folder.
        session: a number; None for the newest.
        force: replace `out` if it exists.
        classifier: a name in CLASSIFIERS; None for the one that the session names.
        licence: identifier of the licence of a folder; None if nobody states one.
        test: DIR with DIR/CLASS/*.jpg, to measure the figures of a folder with; None for the test images of the data
            set. If these are missing or cannot be read, the folder has no figures, and a line says why.
        data: the folder of pretrain, if it is not where it was.
        data_root: the folder of built-in data sets.
        ignore_new: leave out the images of a folder that pretrain did not have.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    path = Path(out)
    chosen = choose_format(form, path)
    given: dict[str, object] = {"--license": licence, "--test": test, "--data": data, "--data-root": data_root}
    given["--ignore-new"] = ignore_new or None
    folder = open_run(run)
    entry = EXPORT_FORMATS[chosen]
    if not entry.folder:
        for option in (name for name, value in given.items() if value is not None):
            raise UsageError(f"{option} and --format {chosen}: it is for --format {folder_formats()}; leave it out")
        check_output("--out", path, folder, replace=force)
        export_session(load_session(folder, session, classifier=classifier), chosen, path)
        return path
    check_licence(licence)
    check_new_folder("--out", path, folder, entry.files, replace=force)
    model = load_session(folder, session, classifier=classifier)
    chain = folder.summary(session)
    root = expand_given(data_root, "--data-root")
    try:
        images = open_tested_images(folder, chain, SINGLE_PROCESS, test, data, root, ignore_new=ignore_new)
        figures = _measure(folder, chain, classifier, images)
    except (DataError, UsageError) as error:
        if test is not None or data is not None or root is not None:
            raise
        say(f"the model card has no figures: {error}")
        figures = None
    export_session(model, chosen, path, _origin(folder, chain, licence or UNSTATED, figures))
    return path


def _measure(folder: RunFolder, chain: ChainSummary, classifier: str | None, images: TestedImages) -> ChainFigures:
    models = load_all_sessions(folder, chain, choose_device("auto"), inference_precision("auto"), classifier)
    own = images.data_set is None
    evaluation = evaluate_session(models, images.source, images.classes, images.location, keep=not own)
    figures = evaluation.figures
    rows = [
        SessionRow(each.session, each.classes, each.images, each.overall, each.base, each.novel, each.harmonic)
        for each in figures.sessions
    ]
    return ChainFigures(rows, figures.average, figures.drop, own_images=own, untested=evaluation.untested)


def _origin(folder: RunFolder, chain: ChainSummary, licence: str, figures: ChainFigures | None) -> Origin:
    sessions = [stored.manifest for stored in folder.chain(len(chain.sessions) - 1)]
    assert sessions[0].parent is not None
    first = folder.read(PRETRAIN, sessions[0].parent.sha256).manifest
    trained = any(manifest.config.get("epochs") for manifest in (first, sessions[0]))
    return Origin(sessions, licence, *_weights(first), figures, trained)


def _weights(first: Manifest) -> tuple[str | None, str | None]:
    """Name the weights that stage 1 began from, and their licence as their publisher states it."""
    backbone, init = first.config.get("backbone"), first.config.get("init")
    if init in (None, "none"):
        return None, None
    published = known_weights(backbone, init) if init == IMAGENET else None
    name = first.weights.name if first.weights else published.name if published else str(init)
    recorded = first.weights.licence if first.weights else None
    return name, recorded or (published.licence if published else None)
