"""The functions behind the commands, with the same defaults; `import m2sd_cli` offers them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from m2sd_cli.bench.machine import cores
from m2sd_cli.bench.report import Report
from m2sd_cli.bench.run import run_bench
from m2sd_cli.bench.settings import MOST_WORKERS, configure
from m2sd_cli.config import DistillConfig, PretrainConfig, given_options, resolve
from m2sd_cli.data.catalogue import BUILT_IN, FOLDER_RECIPE, DataSetInfo, find_info
from m2sd_cli.data.datasets import DataSet, Skipped
from m2sd_cli.data.folders import folder_name, read_shots
from m2sd_cli.data.images import find_pictures
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.skipping import check_pictures, skip_bad_pictures, skip_bad_shots, skip_bad_tests
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.exporting.export import export_session
from m2sd_cli.inference.device import choose_device, inference_precision, training_precision
from m2sd_cli.inference.prediction import Prediction, predict_files
from m2sd_cli.inference.session import load_chain, load_session
from m2sd_cli.inference.skipping import check_together
from m2sd_cli.inference.team import team_on
from m2sd_cli.reports.evaluation import Evaluation, evaluate_session
from m2sd_cli.runs.chain import PRETRAIN, Link
from m2sd_cli.runs.folder import RunFolder, default_path
from m2sd_cli.runs.manifest import DataRecord, SkippedRecord
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import run_distill
from m2sd_cli.training.increment import check_names, check_session, run_increment
from m2sd_cli.training.pretrain import run_pretrain
from m2sd_cli.training.progress import Progress, Silent
from m2sd_cli.training.records import base_records, classes_digest, data_record, left_out, shots_record
from m2sd_cli.training.stage import SAVE_EVERY, Machine, begun_config, load_state, refuse_unless_new, require_same


class TrainingOptions(TypedDict, total=False):
    """What may be set for both stages; what is left out comes from the file, the data set's recipe or the defaults."""

    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    momentum: float | None
    weight_decay: float | None
    seed: int | None


class PretrainOptions(TrainingOptions, total=False):
    """What may be set for stage 1."""

    backbone: str | None
    classifier: str | None
    scale: float | None
    image_size: int | None
    init: str | None


class DistillOptions(TrainingOptions, total=False):
    """What may be set for stage 2."""

    beta: float | None
    temperature: float | None
    ce_weight: float | None
    kl_weight: float | None
    kd_weight: float | None
    attention_weight: float | None
    teacher_weight: float | None
    clean_weight: float | None
    pyramid_width: int | None


def open_run(run: Path | str | None = None) -> RunFolder:
    """The run folder at `run`, else $M2SD_RUN, else ./m2sd-run; it need not exist yet."""
    return RunFolder(Path(run) if run is not None else default_path())


def pretrain(
    data: str | None = None,
    *,
    run: Path | str | None = None,
    data_root: Path | None = None,
    config: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    force: bool = False,
    stop_after: float | None = None,
    save_every: float = SAVE_EVERY,
    compiled: bool = False,
    skip_bad: bool = False,
    tell_skipped: Callable[[Sequence[Skipped]], None] | None = None,
    deterministic: bool = False,
    progress: Progress | None = None,
    **options: Unpack[PretrainOptions],
) -> Link | None:
    """Stage 1: train backbone and classifier on the base classes.

    Args:
        data: a built-in data set's name or a folder. To resume on a built-in one it may be left out.
        run: the run folder.
        data_root: where built-in data sets lie.
        config: a TOML file with a table [pretrain].
        device, precision: `auto` chooses.
        resume: go on with an interrupted training.
        force: begin anew although there is a finished or interrupted one.
        stop_after: seconds after which to save and stop.
        save_every: seconds between two saves of the resumable state.
        compiled: whether to compile the network with torch.compile first.
        skip_bad: whether to leave out pictures that cannot be read; the manifest lists them, and no later stage reads
            them. A training that is resumed leaves out those that it began without.
        tell_skipped: hears before the training which these are, if any.
        deterministic: whether to compute so that CUDA repeats exactly, too.
        progress: who watches.
        options: what differs from the recipe.

    Returns:
        The manifest of stage 1; None if `stop_after` ended the training, which can be resumed then.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if resume and force:
        raise UsageError("--resume and --force: choose one, to go on or to start over")
    if not resume and data is None:
        raise UsageError(f"name the images with --data: {', '.join(BUILT_IN)}, or a folder")
    folder = open_run(run)
    store = StateStore(folder)
    with _at_work(
        PRETRAIN, folder, device, precision, stop_after, progress, save_every, compiled, deterministic
    ) as machine:
        init = state = None
        if resume:
            given = given_options(PretrainConfig, config, dict(options))
            if "init" in given:
                given["init"] = Path(str(given["init"])).name
            if folder.has_pretrain() and not store.exists():
                return _already(folder.pretrain(), given, machine, data, data_root)
            state = load_state(store, PRETRAIN)
            require_same(state, given, machine)
            machine = machine.as_begun(state)
            settings = begun_config(store, state, PretrainConfig)
            with machine.team.first_on_machine():
                data_set = recorded_data(state.data, data, data_root, settings.image_size, state.skipped)
        else:
            assert data is not None
            info = find_info(data)
            finished = "a finished pretrain is in it" if folder.has_pretrain() else None
            refuse_unless_new(store, finished, force)
            settings = resolve(PretrainConfig, info.recipe if info else FOLDER_RECIPE, config, dict(options))
            if info is not None and settings.image_size is not None:
                raise UsageError(f"--image-size is for folders; {info.name}'s images have {info.image_size} pixels")
            with machine.team.first_on_machine():
                data_set = open_data(data, data_root, settings.image_size)
            if skip_bad:
                data_set = skip_bad_pictures(data_set, partial(check_together, team=machine.team))
            init = settings.init
            # Where the file lies on this machine is nobody else's business.
            settings = settings.model_copy(update={"init": init and Path(init).name})
        if tell_skipped is not None and data_set.skipped:
            tell_skipped(data_set.skipped)
        with deterministic_algorithms(machine.deterministic):
            return run_pretrain(folder, data_set, settings, machine, init, state)


def distill(
    data: str | None = None,
    *,
    run: Path | str | None = None,
    data_root: Path | None = None,
    config: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    force: bool = False,
    stop_after: float | None = None,
    save_every: float = SAVE_EVERY,
    compiled: bool = False,
    deterministic: bool = False,
    progress: Progress | None = None,
    **options: Unpack[DistillOptions],
) -> Link | None:
    """Stage 2: self-distillation on virtual classes, then session 0. Arguments as for `pretrain`.

    Args:
        data: needed only if the run was pretrained on a folder: that folder.

    Returns:
        The manifest of session 0; None if `stop_after` ended the training.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if resume and force:
        raise UsageError("--resume and --force: choose one, to go on or to start over")
    folder = open_run(run)
    store = StateStore(folder)
    folder.pretrain()  # a run folder that is not there is not made
    with _at_work(
        "distill", folder, device, precision, stop_after, progress, save_every, compiled, deterministic
    ) as machine:
        parent = folder.pretrain()
        record = parent.manifest.data
        state = None
        if resume:
            given = given_options(DistillConfig, config, dict(options))
            if folder.sessions() and not store.exists():
                return _already(folder.session(0), given, machine, data, data_root)
            state = load_state(store, "distill")
            require_same(state, given, machine)
            machine = machine.as_begun(state)
            settings = begun_config(store, state, DistillConfig)
        else:
            finished = f"session {folder.sessions()[-1]} is in it" if folder.sessions() else None
            refuse_unless_new(store, finished, force)
            info = _info(record)
            recipe = dict(info.recipe if info else FOLDER_RECIPE)
            recipe["seed"] = parent.manifest.seed
            settings = resolve(DistillConfig, recipe, config, dict(options))
        with machine.team.first_on_machine():
            data_set = recorded_data(record, data, data_root, parent.manifest.transform.crop, parent.manifest.skipped)
        with deterministic_algorithms(machine.deterministic):
            return run_distill(folder, parent, data_set, settings, machine, state)


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

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    folder = open_run(run)
    chosen = choose_device(device)
    exact = inference_precision(precision)
    chain = folder.outline()
    check_session(folder, len(chain.sessions) - 1, session)
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
    return run_increment(folder, chain, session, taught, record, chosen, exact)


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
) -> Evaluation:
    """Figures of every session of the chain, from one pass over the test images.

    Args:
        run: the run folder.
        session: the last session to look at; None for the newest.
        test: DIR with DIR/CLASS/*.jpg; None for the test images of the data set.
        data: the data set whose test images to take; needed if the run was pretrained on a folder and `test` is None.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        confusion: whether to count which class is taken for which, after the last session.
        skip_bad: whether to leave out test images that cannot be read. Those that stage 1 left out are left out anyway.

    Raises:
        M2sdError: one of its kinds.
    """
    folder = open_run(run)
    exact = inference_precision(precision)
    with team_on(device) as (team, chosen):
        chain = folder.outline(session)
        model = load_chain(folder, chain, chosen, exact)
        if test is not None:
            place = Path(test)
            labelled = read_shots(place)
            if skip_bad:
                labelled = skip_bad_shots(labelled, place, partial(check_together, team=team))
            found = evaluate_session(model, labelled.source, labelled.classes, str(place), confusion, team=team)
            return replace(found, skipped=labelled.skipped)
        base = chain.base
        record = base.manifest.data
        with team.first_on_machine():
            data_set = recorded_data(record, data, data_root, model.transform.crop, base.manifest.skipped)
        if record.kind == "folder" and classes_digest(base_records(data_set)) != classes_digest(base.manifest.classes):
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


def predict(
    images: Sequence[Path | str],
    *,
    run: Path | str | None = None,
    session: int | None = None,
    top_k: int = 5,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
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

    Raises:
        M2sdError: one of its kinds.
    """
    if top_k < 1:
        raise UsageError(f"--top-k {top_k}: at least 1")
    folder = open_run(run)
    chosen = choose_device(device)
    paths = find_pictures([Path(image) for image in images])
    model = load_session(folder, session, chosen, inference_precision(precision))
    return predict_files(model, paths, top_k, skip_bad)


def export(
    form: Literal["safetensors", "onnx", "pt2"],
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
) -> Path:
    """Write backbone and classifier of a session as one file.

    Args:
        form: the format.
        out: the file.
        run: the run folder.
        session: which session; None for the newest.
        force: replace `out` if it exists.

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
    model = load_session(folder, session)
    export_session(model, form, path)
    return path


def bench(
    *,
    backbone: str = "resnet20",
    image_size: int = 32,
    batch_size: int = 128,
    classes: int = 60,
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
        backbone: of ARCHITECTURES.
        image_size: pixels that the network sees.
        batch_size: images a step of training.
        classes: base classes.
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
        backbone, image_size, batch_size, classes, device, precision, seconds, rounds, workers, compiled
    )
    return run_bench(settings, tell or (lambda _: None))


@contextmanager
def _at_work(
    command: str,
    folder: RunFolder,
    device: str,
    precision: str,
    stop_after: float | None,
    progress: Progress | None,
    save_every: float,
    compiled: bool,
    deterministic: bool,
) -> Iterator[Machine]:
    """Where a stage computes, with the run folder locked by the one process that writes to it."""
    with team_on(device) as (team, chosen):
        training_precision(precision, chosen)
        machine = Machine(
            chosen, precision, stop_after, progress or Silent(), save_every, team, compiled, deterministic
        )
        with folder.locked(command) if team.leads else nullcontext():
            yield machine


def _already(link: Link, given: dict[str, object], machine: Machine, data: str | None, data_root: Path | None) -> Link:
    """What a training that is to be resumed came to, since it has finished; with other options it was another one."""
    require_same(link.manifest, given, machine)
    if data is not None:
        with machine.team.first_on_machine():
            data_set = recorded_data(
                link.manifest.data, data, data_root, link.manifest.transform.crop, link.manifest.skipped
            )
        if classes_digest(base_records(data_set)) != classes_digest(link.manifest.classes):
            raise UsageError(f"--data {data}: it has finished on other images; --force starts over")
    return link


def _info(record: DataRecord) -> DataSetInfo | None:
    """The built-in data set of a manifest, whose name is never taken for a path; None for a folder."""
    if record.kind == "folder":
        return None
    if record.name not in BUILT_IN:
        raise RunError(f"this run is of {record.name!r}, and this version knows no data set of that name")
    return BUILT_IN[record.name]


def recorded_data(
    record: DataRecord,
    data: str | None,
    data_root: Path | None,
    image_size: int | None,
    skipped: Sequence[SkippedRecord],
) -> DataSet:
    """The data set of a manifest, as it was seen then; a folder's place is not in it and has to be named again."""
    if _info(record) is not None:
        if data is not None and data != record.name:
            raise UsageError(f"--data {data}: this run is of {record.name}; leave --data out")
        return open_data(record.name, data_root, skipped=left_out(skipped))
    if data is None:
        raise UsageError(f"this run is of the folder {record.name!r}; say where it is with --data")
    if data in BUILT_IN:
        raise UsageError(f"--data {data}: this run is of the folder {record.name!r}")
    return open_data(data, data_root, image_size, left_out(skipped))


def official_data(record: DataRecord, data: str | None, data_root: Path | None, session: int) -> DataSet:
    """The data set whose official session to teach."""
    if data is not None and data not in BUILT_IN:
        raise UsageError(
            f"--data {data}: only {', '.join(BUILT_IN)} have official sessions; name new images with --shots"
        )
    name = data or (record.name if record.kind == "built-in" else None)
    if name not in BUILT_IN:
        raise UsageError(f"session {session}: a folder has no official sessions; name the new images with --shots DIR")
    data_set = open_data(name, data_root)
    if session > data_set.sessions:
        raise RunError(f"{name} has {data_set.sessions} official sessions; teach session {session} with --shots DIR")
    return data_set
