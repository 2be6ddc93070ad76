"""What stages 1 and 2 share as functions: options, the run folder locked, a training that has finished."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.config import Config, given_options, read_options
from m2sd_cli.distributed.process_group import process_group
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import choose_device, training_precision
from m2sd_cli.recipes import NOTHING, Recipe
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.progress import Progress, Silent
from m2sd_cli.training.records import base_records, classes_digest
from m2sd_cli.training.stage import Execution, require_same


def named_data(config: Path | None, recipe: Recipe = NOTHING) -> str | None:
    """The images that a file of options names, or else a recipe."""
    named = None if config is None else read_options(config).data
    return named or recipe.options.data


def given_before(
    model: type[Config], config: Path | None, options: dict[str, Any], recipe: str | None
) -> dict[str, object]:
    """What a training that is to be resumed must have begun with."""
    return given_options(model, config, options) | ({} if recipe is None else {"recipe": recipe})


@contextmanager
def at_work(
    command: str,
    folder: RunFolder,
    device: str,
    precision: str,
    stop_after: float | None,
    progress: Progress | None,
    save_every: float,
    compile: bool,
    deterministic: bool,
) -> Iterator[Execution]:
    """Where a stage computes, with the run folder locked by the one process that writes to it."""
    with process_group(choose_device(device)) as (group, chosen):
        training_precision(precision, chosen)
        execution = Execution(
            chosen, precision, stop_after, progress or Silent(), save_every, group, compile, deterministic
        )
        with folder.locked(command) if group.is_main else nullcontext():
            yield execution


def already_finished(
    stored: StoredManifest,
    first: StoredManifest,
    given: dict[str, object],
    execution: Execution,
    data: str | None,
    data_root: Path | None,
) -> StoredManifest:
    """What a training that is to be resumed came to, since it has finished; with other options it was another one."""
    require_same(stored.manifest, given, execution)
    if data is not None:
        with execution.group.local_main_first():
            data_set = recorded_data(first.manifest, data, data_root, first.manifest.transform.crop)
        if classes_digest(base_records(data_set)) != classes_digest(stored.manifest.classes):
            raise UsageError(f"--data {data}: it has finished on other images; --force starts over")
    return stored
