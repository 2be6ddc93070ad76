"""The conditions of a training: device, precision, saving, time limit, processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup, process_group
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import training_precision
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import TrainingState

if TYPE_CHECKING:
    from m2sd_cli.training.epochs import EpochFigures

SAVE_EVERY = 300.0  # seconds


@dataclass(frozen=True)
class Execution:
    """The conditions under which a stage is trained; the objective does not depend on them.

    Raises:
        UsageError: several processes would compile, or the precision is unknown.
    """

    device: torch.device
    precision: str = "auto"
    stop_after: float | None = None  # seconds
    save_every: float = SAVE_EVERY  # seconds between two saves of the resumable state
    compile: bool = False
    deterministic: bool = False
    group: ProcessGroup = SINGLE_PROCESS
    on_epoch: "Callable[[EpochFigures], None] | None" = None
    tensorboard: Path | None = None  # the folder of its files
    time_budget: float | None = None  # seconds; decides the epochs of a new training
    force: bool = False  # the command starts over, and has to be repeated without that to go on

    def __post_init__(self) -> None:
        training_precision(self.precision, self.device)
        if self.compile and self.group.size > 1:
            raise UsageError("--compile: for one process only; leave it out, or begin without torchrun")

    @property
    def exact_precision(self) -> str:
        """The precision in use, `fp32` or `bf16`."""
        return training_precision(self.precision, self.device)

    @property
    def way_on(self) -> str:
        """The way to go on with a saved training, for messages."""
        return f"go on with the same command and --resume{', but without --force' if self.force else ''}"

    def resumed_from(self, state: TrainingState) -> "Execution":
        """Return the same conditions, with the precision and algorithms of an interrupted training.

        Raises:
            UsageError: it was compiled, and several processes would go on with it.
        """
        if state.compiled and self.group.size > 1:
            raise UsageError("the training began with --compile, which is for one process; go on without torchrun")
        return replace(self, precision=state.precision, compile=state.compiled, deterministic=state.deterministic)


@contextmanager
def executing(asked: Execution, run: RunFolder, command: str) -> Iterator[Execution]:
    """Join the process group of a command, with the run folder locked by the one process that writes to it.

    Args:
        asked: the conditions of one process.
        run: the run folder.
        command: that writes, for messages of others.

    Yields:
        The conditions of this process, which has a device of its own.

    Raises:
        UsageError: the conditions make no sense for several processes.
        RunError: another process is writing to the folder.
    """
    with process_group(asked.device) as (group, device):
        execution = replace(asked, group=group, device=device)
        with run.locked(command) if group.is_main else nullcontext():
            yield execution
