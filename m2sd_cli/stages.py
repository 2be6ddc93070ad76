"""Stages 1 and 2 as the commands and Python run them: from options to a manifest in a locked run folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from m2sd_cli.config import Config, DistillConfig, PretrainConfig, given_options, read_options, resolve
from m2sd_cli.data.catalogue import FOLDER_RECIPE, NAMES, find_info
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.skipping import skip_bad_pictures
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import training_precision
from m2sd_cli.inference.skipping import check_together
from m2sd_cli.inference.team import team_on
from m2sd_cli.recipes import NOTHING, Recipe, find_recipe
from m2sd_cli.recorded import recorded_data, recorded_info
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.reader import PRETRAIN, Link
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import run_distill
from m2sd_cli.training.pretrain import run_pretrain
from m2sd_cli.training.progress import Progress, Silent
from m2sd_cli.training.records import base_records, classes_digest
from m2sd_cli.training.stage import SAVE_EVERY, Machine, begun_config, load_state, refuse_unless_new, require_same


class TrainingOptions(TypedDict, total=False):
    """What may be set for both stages; what is left out comes from the file, the recipe or the data set's defaults."""

    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    momentum: float | None
    weight_decay: float | None
    auto_augment: str | None
    colour: float | None
    cutout: float | None
    seed: int | None


class PretrainOptions(TrainingOptions, total=False):
    """What may be set for stage 1."""

    backbone: str | None
    classifier: str | None
    scale: float | None
    image_size: int | None
    held_out: float | None
    images_per_class: int | None
    init: str | None


class DistillOptions(TrainingOptions, total=False):
    """What may be set for stage 2."""

    mixing: str | None
    enhancement: str | None
    beta: float | None
    temperature: float | None
    ce_weight: float | None
    kl_weight: float | None
    kd_weight: float | None
    attention_weight: float | None
    teacher_weight: float | None
    clean_weight: float | None
    pyramid_width: int | None
    views: int | None
    classifier: str | None


def pretrain(
    data: str | None = None,
    *,
    run: Path | str | None = None,
    data_root: Path | None = None,
    recipe: str | None = None,
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
        data: a built-in data set's name or a folder; else what the file or the recipe names. To resume on a built-in
            one it may be left out.
        run: the run folder.
        data_root: where built-in data sets lie.
        recipe: the name of one that ships in the package; `none` for none.
        config: a TOML file with a table [pretrain], and maybe `data`. What it says wins over the recipe.
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
        M2sdError: one of its kinds; the chain is as it was, and after InterruptedTrainingError the training saved.
    """
    if resume and force:
        raise UsageError("--resume and --force: choose one, to go on or to start over")
    followed = find_recipe(recipe)
    if not resume:
        data = data or named_data(config, followed)
        if data is None:
            raise UsageError(f"name the images with --data: {NAMES}, or a folder; or choose a --recipe")
    folder = open_run(run)
    store = StateStore(folder)
    with _at_work(
        PRETRAIN, folder, device, precision, stop_after, progress, save_every, compiled, deterministic
    ) as machine:
        init = state = None
        if resume:
            given = _given(PretrainConfig, config, dict(options), recipe)
            if "init" in given:
                given["init"] = Path(str(given["init"])).name
            if folder.has_pretrain() and not store.exists():
                link = folder.pretrain()
                return _already(link, link, given, machine, data, data_root)
            state = load_state(store, PRETRAIN)
            require_same(state, given, machine)
            machine = machine.as_begun(state)
            settings = begun_config(store, state, PretrainConfig)
            named = named_data(config)
            if state.data.kind == "folder":
                data = data or named
            elif data is None and named not in (None, state.data.name):
                raise UsageError(
                    f"--config {config}: its data is {named}, and the training began on {state.data.name}; take it "
                    f"out, or start over with --force"
                )
            with machine.team.first_on_machine():
                data_set = recorded_data(state, data, data_root, settings.image_size)
        else:
            assert data is not None
            info = find_info(data)
            finished = "a finished pretrain is in it" if folder.has_pretrain() else None
            refuse_unless_new(store, finished, force)
            defaults = info.recipe if info else FOLDER_RECIPE
            settings = resolve(PretrainConfig, defaults, config, dict(options), followed.options)
            if info is not None and settings.image_size is not None:
                raise UsageError(f"--image-size is for folders; {info.name}'s images have {info.image_size} pixels")
            with machine.team.first_on_machine():
                data_set = open_data(data, data_root, settings.image_size)
            if skip_bad:
                data_set = skip_bad_pictures(data_set, partial(check_together, team=machine.team))
            data_set = choose_training(data_set, settings.held_out, settings.images_per_class)
            init = settings.init
            # Where the file lies on this machine is nobody else's business.
            settings = settings.model_copy(update={"init": init and Path(init).name})
        if tell_skipped is not None and data_set.skipped:
            tell_skipped(data_set.skipped)
        with deterministic_algorithms(machine.deterministic):
            name = state.recipe if state else followed.name
            return run_pretrain(folder, data_set, settings, machine, init, state, name)


def distill(
    data: str | None = None,
    *,
    run: Path | str | None = None,
    data_root: Path | None = None,
    recipe: str | None = None,
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
        recipe: the one of stage 1 by default; `none` for none.

    Returns:
        The manifest of session 0; None if `stop_after` ended the training.

    Raises:
        M2sdError: one of its kinds; the chain is as it was, and after InterruptedTrainingError the training saved.
    """
    if resume and force:
        raise UsageError("--resume and --force: choose one, to go on or to start over")
    folder = open_run(run)
    store = StateStore(folder)
    followed = find_recipe(recipe)
    folder.pretrain()  # a run folder that is not there is not made
    with _at_work(
        "distill", folder, device, precision, stop_after, progress, save_every, compiled, deterministic
    ) as machine:
        parent = folder.pretrain()
        state = None
        if parent.manifest.data.kind == "folder":
            data = data or named_data(config)
        if resume:
            given = _given(DistillConfig, config, dict(options), recipe)
            if folder.sessions() and not store.exists():
                return _already(folder.session(0), parent, given, machine, data, data_root)
            state = load_state(store, "distill")
            require_same(state, given, machine)
            machine = machine.as_begun(state)
            settings = begun_config(store, state, DistillConfig)
        else:
            finished = f"session {folder.sessions()[-1]} is in it" if folder.sessions() else None
            refuse_unless_new(store, finished, force)
            info = recorded_info(parent.manifest.data)
            defaults = {**(info.recipe if info else FOLDER_RECIPE), "seed": parent.manifest.seed}
            followed = find_recipe(recipe or parent.manifest.recipe)
            settings = resolve(DistillConfig, defaults, config, dict(options), followed.options)
        with machine.team.first_on_machine():
            data_set = recorded_data(parent.manifest, data, data_root, parent.manifest.transform.crop)
        with deterministic_algorithms(machine.deterministic):
            name = state.recipe if state else followed.name
            return run_distill(folder, parent, data_set, settings, machine, state, name)


def named_data(config: Path | None, recipe: Recipe = NOTHING) -> str | None:
    """The images that a file of options names, or else a recipe."""
    named = None if config is None else read_options(config).data
    return named or recipe.options.data


def _given(
    model: type[Config], config: Path | None, options: dict[str, object], recipe: str | None
) -> dict[str, object]:
    """What a training that is to be resumed must have begun with."""
    return given_options(model, config, options) | ({} if recipe is None else {"recipe": recipe})


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


def _already(
    link: Link, first: Link, given: dict[str, object], machine: Machine, data: str | None, data_root: Path | None
) -> Link:
    """What a training that is to be resumed came to, since it has finished; with other options it was another one."""
    require_same(link.manifest, given, machine)
    if data is not None:
        with machine.team.first_on_machine():
            data_set = recorded_data(first.manifest, data, data_root, first.manifest.transform.crop)
        if classes_digest(base_records(data_set)) != classes_digest(link.manifest.classes):
            raise UsageError(f"--data {data}: it has finished on other images; --force starts over")
    return link
