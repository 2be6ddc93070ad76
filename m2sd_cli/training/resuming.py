"""The conditions for beginning a training anew, and for going on with an interrupted one."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from m2sd_cli.config.option import shown
from m2sd_cli.config.stages import Config, recorded_config
from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.runs.manifest import Manifest, TrainingState
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import require_plugins

# Flags that could change a result, and their names in an Execution and in a record.
FLAGS = {"compile": ("compile", "compiled"), "deterministic": ("deterministic", "deterministic")}


def require_same(begun: TrainingState | Manifest, options: Mapping[str, Any], execution: Execution) -> None:
    """Refuse options under which a training, interrupted or finished, would have had another result.

    Args:
        begun: the training.
        options: the given options by name.
        execution: the conditions with the given precision or `auto`; the device may be another one.

    Raises:
        UsageError: an option differs; the message names it.
    """
    asked: dict[str, Any] = dict(options)
    if execution.precision != "auto":
        asked["precision"] = execution.precision
    asked |= {name: True for name, (field, _) in FLAGS.items() if getattr(execution, field)}
    began: dict[str, Any] = {**begun.config, "precision": begun.precision, "recipe": begun.recipe or "none"}
    began |= {name: getattr(begun, field) for name, (_, field) in FLAGS.items()}
    for name, value in asked.items():
        before = began.get(name)
        if before != value:
            option = "--" + name.replace("_", "-") + ("" if name in FLAGS else f" {shown(value)}")
            how = "without it" if before is None or before is False else f"with {before}"
            raise UsageError(f"{option}: the training began {how}; leave it out, or start over with --force")


def load_state(store: StateStore, stage: Literal["pretrain", "distill"]) -> TrainingState:
    """Load the state of an interrupted training.

    Raises:
        RunError: there is no state, it belongs to the other stage, the chain has changed since, or a file of one's own
            is missing.
        UsageError: a file of one's own was changed since.
    """
    if not store.exists():
        raise RunError(f"{store.run.path}: no interrupted training in it; leave --resume out to begin one")
    state = store.load()
    if state.stage != stage:
        raise RunError(f"{store.run.path}: the interrupted training is {state.stage}'s; 'm2sd {state.stage} --resume'")
    require_plugins(state.plugins, f"{store.run.path}: the interrupted training")
    newest = store.run.newest()
    if state.head != (newest and newest.sha256):
        raise RunError(
            f"{store.run.path}: {newest.file if newest else 'the chain'} was written after this training began, which "
            f"would replace it; start over with --force if it may be lost"
        )
    return state


def begun_config(store: StateStore, state: TrainingState, model: type[Config]) -> Config:
    """Return the configuration that a training began with.

    Raises:
        DamagedError: the recorded configuration is not valid.
    """
    try:
        return recorded_config(model, state.config, str(store.run.training))
    except UsageError as error:
        raise DamagedError(
            f"{store.run.training}: not a state to go on from: {error}; start over with --force"
        ) from None


def refuse_unless_new(
    store: StateStore, finished: str | None, force: bool, when: str = "once the new training has finished"
) -> None:
    """Refuse to replace a finished or an interrupted training in silence.

    Args:
        finished: the sentence that names a finished training, or None.
        when: the time at which `force` replaces it, for the message.

    Raises:
        RunError: there is a training, and no `force`.
    """
    if force:
        return
    if finished is not None:
        taught = None
        with suppress(RunError):  # there is no session, or one that cannot be read
            taught = store.run.summary().describe_taught()
        lost = f", and removes {taught}" if taught else ""
        raise RunError(f"{store.run.path}: {finished}; --force replaces it {when}{lost}")
    if store.exists():
        stage = store.load().stage
        raise RunError(
            f"{store.run.path}: an interrupted {stage} is in it; go on with 'm2sd {stage} --resume', or start over "
            f"with --force"
        )
