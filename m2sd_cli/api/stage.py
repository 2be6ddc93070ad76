"""The beginning and resuming of stages 1 and 2: their options, their data, and trainings that have finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.config import Config, given_options, read_options
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import NOTHING, Recipe
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import base_records, classes_digest
from m2sd_cli.training.resuming import require_same


@dataclass(frozen=True)
class Request:
    """The choices of whoever begins or resumes a stage."""

    data: str | None  # a built-in data set's name or a folder
    data_root: Path | None
    recipe: str | None
    config: Path | None
    options: Mapping[str, Any]

    def given(self, model: type[Config]) -> dict[str, Any]:
        """Return what a training that is resumed must have begun with."""
        given = given_options(model, self.config, self.options)
        return given if self.recipe is None else given | {"recipe": self.recipe}


def named_data(config: Path | None, recipe: Recipe = NOTHING) -> str | None:
    """Return the images that a file of options names, or else a recipe."""
    named = None if config is None else read_options(config).data
    return named or recipe.options.data


def require_one_beginning(resume: bool, force: bool) -> None:
    """Refuse to go on and to start over at once.

    Raises:
        UsageError: both are asked for.
    """
    if resume and force:
        raise UsageError("--resume and --force: choose one, to go on or to start over")


def already_finished(
    stored: StoredManifest, first: StoredManifest, given: Mapping[str, Any], execution: Execution, request: Request
) -> StoredManifest:
    """Return a training that is to be resumed and has finished; under other options it was another one.

    Args:
        stored: its manifest.
        first: the manifest of stage 1.
        given, execution, request: the choices.

    Raises:
        UsageError: it has finished under other options or on other images.
    """
    require_same(stored.manifest, given, execution)
    if request.data is not None:
        with execution.group.local_main_first():
            data_set = recorded_data(first.manifest, request.data, request.data_root, first.manifest.transform.crop)
        if classes_digest(base_records(data_set)) != classes_digest(stored.manifest.classes):
            raise UsageError(f"--data {request.data}: it has finished on other images; --force starts over")
    return stored
