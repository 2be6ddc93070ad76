"""The functions behind the commands, with the same defaults; `import m2sd_cli` offers them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from m2sd_cli.bench.machine import cores
from m2sd_cli.bench.report import Report
from m2sd_cli.bench.run import run_bench
from m2sd_cli.bench.settings import MOST_WORKERS, configure
from m2sd_cli.data.catalogue import SHOTS, SIMULATED
from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.folders import folder_name, read_shots
from m2sd_cli.data.images import find_pictures
from m2sd_cli.data.locate import open_shot_pool
from m2sd_cli.data.skipping import check_pictures, skip_bad_shots, skip_bad_tests
from m2sd_cli.data.views import MOST_VIEWS
from m2sd_cli.errors import DamagedError, DataError, UsageError
from m2sd_cli.exporting.export import export_session
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.prediction import Prediction, predict_files
from m2sd_cli.inference.session import MEANS, choose_classifier, load_chain, load_checkpoint, load_session, to_transform
from m2sd_cli.inference.skipping import check_together
from m2sd_cli.inference.team import team_on
from m2sd_cli.method.stage3 import choices
from m2sd_cli.recipes import find_recipe
from m2sd_cli.recorded import official_data, recorded_data, recorded_info
from m2sd_cli.reports.draws import Simulation, labelled, over_draws
from m2sd_cli.reports.evaluation import Evaluation, evaluate_session
from m2sd_cli.reports.published import Comparison, compare_with_published
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import PRETRAIN, Link
from m2sd_cli.stages import distill, pretrain
from m2sd_cli.training.increment import check_names, check_session, run_increment
from m2sd_cli.training.records import base_records, classes_digest, data_record, shots_record

__all__ = [
    "bench",
    "compare",
    "distill",
    "evaluate",
    "export",
    "increment",
    "open_run",
    "predict",
    "pretrain",
    "simulate",
]


def increment(
    session: int,
    shots: Path | str | None = None,
    *,
    run: Path | str | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
    views: int = 1,
) -> Link:
    """Stage 3: teach new classes from a few images each.

    Args:
        session: the number of the new session, one above the newest.
        shots: DIR with DIR/CLASS/*.jpg; None for a built-in data set's official session.
        run: the run folder.
        data: the built-in data set whose official session to take, if it is not the one of stage 1.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: whether to leave out pictures that cannot be read; the manifest lists them.
        classifier: of HEADS, what the chain answers with from now on; None for what it did so far.
        views: of each shot to take the mean of: 1 the shot alone, 2 with its mirror image, more with shifted crops.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if not 1 <= views <= MOST_VIEWS:
        raise UsageError(f"--views {views}: 1 to {MOST_VIEWS}")
    folder = open_run(run)
    chosen = choose_device(device)
    exact = inference_precision(precision)
    chain = folder.outline()
    choose_classifier(folder, chain, classifier)
    check_session(folder, len(chain.sessions) - 1, session)
    if views == chain.base.manifest.transform.views == 2:
        raise UsageError("--views 2: this chain sees every image and its mirror image already; leave it out")
    if shots is not None:
        if data is not None:
            raise UsageError("--shots and --data: choose one, your own images or an official session")
        place = Path(shots)
        taught = read_shots(place)
        record = shots_record(folder_name(place))
    else:
        data_set = official_data(chain.base.manifest.data, data, data_root, session)
        place = data_set.location
        taught = data_set.session(session)
        record = data_record(data_set)
    check_names(chain.taught(), taught.classes)
    if skip_bad:
        taught = skip_bad_shots(taught, place, check_pictures)
    return run_increment(folder, chain, session, taught, record, chosen, exact, classifier, views)


def evaluate(
    *,
    run: Path | str | None = None,
    session: int | None = None,
    test: Path | str | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    confusion: bool = False,
    skip_bad: bool = False,
    classifier: str | None = None,
) -> Evaluation:
    """Figures of every session of the chain, from one pass over the test images.

    Args:
        run: the run folder.
        session: the last session to look at; None for the newest.
        test: DIR with DIR/CLASS/*.jpg; None for the test images of the data set.
        data: the folder that the run was pretrained on, whose test images to take; needed there if `test` is None.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        confusion: whether to count which class is taken for which, after the last session.
        skip_bad: whether to leave out test images that cannot be read. Those that stage 1 left out are left out anyway.
        classifier: of HEADS, what answers in every session; None for what the last one names.

    Raises:
        M2sdError: one of its kinds.
    """
    folder = open_run(run)
    exact = inference_precision(precision)
    with team_on(device) as (team, chosen):
        chain = folder.outline(session)
        model = load_chain(folder, chain, chosen, exact, classifier)
        if test is not None:
            place = Path(test)
            labelled = read_shots(place)
            if skip_bad:
                labelled = skip_bad_shots(labelled, place, partial(check_together, team=team))
            found = evaluate_session(model, labelled.source, labelled.classes, str(place), confusion, team=team)
            return replace(found, skipped=labelled.skipped)
        base = chain.base.manifest
        is_folder = base.data.kind == "folder"
        assert base.parent is not None
        # Of a folder the training images are compared, and which they were stage 1 alone knows.
        first = folder.read(PRETRAIN, base.parent.sha256).manifest if is_folder else base
        with team.first_on_machine():
            data_set = recorded_data(first, data, data_root, model.transform.crop)
        if is_folder and classes_digest(base_records(data_set)) != classes_digest(base.classes):
            raise DataError(
                f"{data_set.location}: not the images that the run was trained on, so its test images may have been; "
                f"name others with --test DIR"
            )
        skipped: Sequence[Skipped] = ()
        if skip_bad:
            data_set, skipped = skip_bad_tests(data_set, partial(check_together, team=team))
        if len(data_set.test) == 0:
            raise DataError(f"{data_set.location}: no test images in it; name some with --test DIR")
        where = str(data_set.location)
        found = evaluate_session(model, data_set.test, data_set.classes, where, confusion, keep=True, team=team)
        return replace(found, skipped=skipped)


def simulate(
    *,
    run: Path | str | None = None,
    draws: int = 20,
    classifiers: Sequence[str] | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
) -> Simulation:
    """Which classifier is best for a network, over many draws of the shots; no test image has a say.

    Session 0 of a run on a simulated data set is taught the sessions after it anew with every draw. The run stays as
    it is.

    Args:
        run: the run folder.
        draws: how many.
        classifiers: of HEADS; None for all that the run can answer with.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: whether to draw no shots that cannot be read. Test images that stage 1 left out are left out anyway.

    Raises:
        M2sdError: one of its kinds.
    """
    if draws < 1:
        raise UsageError(f"--draws {draws}: at least 1")
    folder = open_run(run)
    chosen, exact = choose_device(device), inference_precision(precision)
    chain = folder.outline(0)
    base = chain.base.manifest
    assert base.parent is not None
    info = recorded_info(base.data)
    if info is None or info.simulates is None:
        raise UsageError(
            f"this run is of {base.data.name}; to choose without its test images, pretrain on a data set of base "
            f"training images alone, as with --data cifar100{SIMULATED}"
        )
    names = [
        choose_classifier(folder, chain, name)
        for name in dict.fromkeys(classifiers or choices(base.backbone.classifier, base.holds_statistics))
    ]
    data = recorded_data(folder.read(PRETRAIN, base.parent.sha256).manifest, None, data_root, None)
    checkpoint = load_checkpoint(folder, chain.base, MEANS)
    checkpoint.backbone.to(chosen).to(memory_format=torch.channels_last)
    transform = to_transform(base.transform)
    tested = labelled(checkpoint.backbone, data.test, transform, exact, "features of test images")
    shots, place = open_shot_pool(info, data_root)
    if skip_bad:
        shots = skip_bad_shots(shots, place, check_pictures)
    pool = labelled(checkpoint.backbone, shots.source, transform, exact, "features of shots")
    sizes = [data.base + session * info.way for session in range(1 + data.sessions)]
    try:
        found = over_draws(checkpoint, base.backbone, tested, pool, sizes, names, draws, SHOTS)
    except ValueError as error:
        file = folder.path / base.checkpoint.file
        raise DamagedError(f"{file}: {error}; restore it from a backup") from None
    return Simulation(info.name, sizes, SHOTS, base.transform.views, found, shots.skipped)


def compare(run: Path | str | None = None) -> Comparison:
    """The published rows of a run's data set and backbone, to read its figures beside.

    Args:
        run: the run folder.

    Raises:
        UsageError: nothing is published on the run's data set.
        RunError: the run has no session, or is damaged.
    """
    folder = open_run(run)
    chain = [link.manifest for link in folder.chain()]
    assert chain[0].parent is not None
    return compare_with_published(folder.read(PRETRAIN, chain[0].parent.sha256).manifest, chain)


def predict(
    images: Sequence[Path | str],
    *,
    run: Path | str | None = None,
    session: int | None = None,
    top_k: int = 5,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
) -> Iterator[Prediction]:
    """Label pictures.

    Args:
        images: files, and folders whose pictures are taken, those of their sub-folders too.
        run: the run folder.
        session: which session answers; None for the newest.
        top_k: how many classes to name for each, at least 1.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: whether to go on after a picture that cannot be read; its prediction then says why and guesses
            nothing.
        classifier: of HEADS, what answers; None for what the session names.

    Raises:
        M2sdError: one of its kinds.
    """
    if top_k < 1:
        raise UsageError(f"--top-k {top_k}: at least 1")
    folder = open_run(run)
    chosen = choose_device(device)
    paths = find_pictures([Path(image) for image in images])
    model = load_session(folder, session, chosen, inference_precision(precision), classifier)
    return predict_files(model, paths, top_k, skip_bad)


def export(
    form: Literal["safetensors", "onnx", "pt2"],
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
    classifier: str | None = None,
) -> Path:
    """Write backbone and classifier of a session as one file.

    Args:
        form: the format.
        out: the file.
        run: the run folder.
        session: which session; None for the newest.
        force: replace `out` if it exists.
        classifier: of HEADS, what the file answers with; None for what the session names.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    path = Path(out)
    folder = open_run(run)
    if path.is_dir():
        raise UsageError(f"--out {path}: it is a folder; name a file")
    if folder.owns(path):
        raise UsageError(f"--out {path}: that is a file of the run; name another one")
    if path.exists() and not force:
        raise UsageError(f"--out {path}: it exists already; --force replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: no such folder as {path.parent}")
    model = load_session(folder, session, classifier=classifier)
    export_session(model, form, path)
    return path


def bench(
    *,
    recipe: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    classes: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    seconds: float = 30.0,
    rounds: int = 5,
    against_reference: bool = False,
    workers: int | None = None,
    compiled: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """What this machine does: throughput of both stages and of features on random images, and how long commands take.

    Everything is measured in turn, round after round, so that ratios do not depend on what else the machine does.

    Args:
        recipe: measure both stages as it has them, and tell how long its epochs would take; see `recipes.recipe_names`.
        backbone: of ARCHITECTURES; None for the recipe's, else `resnet20`.
        image_size: pixels that the network sees; a recipe's is fixed, without one it is 32.
        batch_size: images a step of training; None for the recipe's, else 128.
        classes: base classes; a recipe's are fixed, without one there are 60.
        device, precision: `auto` chooses; for features and commands precision `auto` is fp32.
        seconds: that throughput is measured; the commands take as long as they do.
        rounds: how often each is measured; each command at most three times.
        against_reference: also measure a plain loop of the field's kind, torch's DataLoader and PIL in float32.
        workers: of that loop; None for one a core, at most eight.
        tell: hears what is being done.

    Raises:
        M2sdError: one of its kinds.
    """
    if workers is not None and not against_reference:
        raise UsageError(f"--workers {workers}: these are the reference loop's; add --against-reference")
    if against_reference and workers is None:
        workers = min(MOST_WORKERS, cores())
    settings = configure(
        backbone=backbone,
        image_size=image_size,
        batch_size=batch_size,
        classes=classes,
        device=device,
        precision=precision,
        seconds=seconds,
        rounds=rounds,
        workers=workers,
        compiled=compiled,
        recipe=find_recipe(recipe),
    )
    return run_bench(settings, tell or (lambda _: None))
