"""Stage 2: self-distillation on virtual classes, then session 0."""

from pathlib import Path
from typing import Any

from m2sd_cli.api.recorded_data import recorded_data, recorded_info
from m2sd_cli.api.stage import already_finished, at_work, given_before, named_data
from m2sd_cli.config import DistillConfig, resolve, takes_options
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import run_distill
from m2sd_cli.training.progress import Progress
from m2sd_cli.training.stage import SAVE_EVERY, begun_config, load_state, refuse_unless_new, require_same


@takes_options(DistillConfig)
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
    compile: bool = False,
    deterministic: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> StoredManifest | None:
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
    with at_work(
        "distill", folder, device, precision, stop_after, progress, save_every, compile, deterministic
    ) as execution:
        parent = folder.pretrain()
        state = None
        if parent.manifest.data.kind == "folder":
            data = data or named_data(config)
        if resume:
            given = given_before(DistillConfig, config, options, recipe)
            if folder.sessions() and not store.exists():
                return already_finished(folder.session(0), parent, given, execution, data, data_root)
            state = load_state(store, "distill")
            require_same(state, given, execution)
            execution = execution.as_begun(state)
            settings = begun_config(store, state, DistillConfig)
        else:
            finished = f"session {folder.sessions()[-1]} is in it" if folder.sessions() else None
            refuse_unless_new(store, finished, force)
            info = recorded_info(parent.manifest.data)
            defaults = {**(info.defaults if info else FOLDER_DEFAULTS), "seed": parent.manifest.seed}
            followed = find_recipe(recipe or parent.manifest.recipe)
            settings = resolve(DistillConfig, defaults, config, options, followed.options)
        with execution.group.local_main_first():
            data_set = recorded_data(parent.manifest, data, data_root, parent.manifest.transform.crop)
        with deterministic_algorithms(execution.deterministic):
            name = state.recipe if state else followed.name
            return run_distill(folder, parent, data_set, settings, execution, state, name)
