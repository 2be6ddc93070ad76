"""Stage 1: train backbone and classifier on the base classes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.api.stage import already_finished, at_work, given_before, named_data
from m2sd_cli.config import PretrainConfig, resolve, takes_options
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS, NAMES, find_info
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.skipping import skip_bad_pictures
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.skipping import check_pictures_together
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.pretrain import run_pretrain
from m2sd_cli.training.progress import Progress
from m2sd_cli.training.stage import SAVE_EVERY, begun_config, load_state, refuse_unless_new, require_same


@takes_options(PretrainConfig)
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
    compile: bool = False,
    skip_bad: bool = False,
    tell_skipped: Callable[[Sequence[Skipped]], None] | None = None,
    deterministic: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> StoredManifest | None:
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
        compile: whether to compile the network with torch.compile first.
        skip_bad: whether to leave out pictures that cannot be read; the manifest lists them, and no later stage reads
            them. A training that is resumed leaves out those that it began without.
        tell_skipped: hears before the training which these are, if any.
        deterministic: whether to compute so that CUDA repeats exactly, too.
        progress: who watches.

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
    with at_work(
        PRETRAIN, folder, device, precision, stop_after, progress, save_every, compile, deterministic
    ) as execution:
        init = state = None
        if resume:
            given = given_before(PretrainConfig, config, options, recipe)
            if "init" in given:
                given["init"] = Path(str(given["init"])).name
            if folder.has_pretrain() and not store.exists():
                stored = folder.pretrain()
                return already_finished(stored, stored, given, execution, data, data_root)
            state = load_state(store, PRETRAIN)
            require_same(state, given, execution)
            execution = execution.as_begun(state)
            settings = begun_config(store, state, PretrainConfig)
            named = named_data(config)
            if state.data.kind == "folder":
                data = data or named
            elif data is None and named not in (None, state.data.name):
                raise UsageError(
                    f"--config {config}: its data is {named}, and the training began on {state.data.name}; take it "
                    f"out, or start over with --force"
                )
            with execution.group.local_main_first():
                data_set = recorded_data(state, data, data_root, settings.image_size)
        else:
            assert data is not None
            info = find_info(data)
            finished = "a finished pretrain is in it" if folder.has_pretrain() else None
            refuse_unless_new(store, finished, force)
            defaults = info.defaults if info else FOLDER_DEFAULTS
            settings = resolve(PretrainConfig, defaults, config, options, followed.options)
            if info is not None and settings.image_size is not None:
                raise UsageError(f"--image-size is for folders; {info.name}'s images have {info.image_size} pixels")
            with execution.group.local_main_first():
                data_set = open_data(data, data_root, settings.image_size)
            if skip_bad:
                data_set = skip_bad_pictures(data_set, partial(check_pictures_together, group=execution.group))
            data_set = choose_training(data_set, settings.held_out, settings.images_per_class)
            init = settings.init
            # Where the file lies on this machine is nobody else's business.
            settings = replace(settings, init=init and Path(init).name)
        if tell_skipped is not None and data_set.skipped:
            tell_skipped(data_set.skipped)
        with deterministic_algorithms(execution.deterministic):
            name = state.recipe if state else followed.name
            return run_pretrain(folder, data_set, settings, execution, init, state, name)
