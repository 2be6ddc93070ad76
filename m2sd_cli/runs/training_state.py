"""The resumable state of a training under way: one JSON file that names one safetensors file."""

from dataclasses import dataclass

from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError, os_errors_as
from m2sd_cli.runs.files import CHECKPOINT_LIMIT, decode_tensors, encode_tensors, read_verified, write_atomically
from m2sd_cli.runs.folder import STATE, RunFolder
from m2sd_cli.runs.manifest import FileRecord, TrainingState


@dataclass(frozen=True)
class StateStore:
    """The folder in which a run keeps the state. A save replaces the state before it, which is whole until then."""

    run: RunFolder

    def exists(self) -> bool:
        """Tell whether there is a state to go on from."""
        return (self.run.training / STATE).is_file()

    def save(self, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        """Write the tensors under a new name, then the JSON that names them, then remove the old ones.

        Args:
            state: its `tensors` record is filled in here.
            tensors: parameters, buffers, optimiser.

        Raises:
            RunError: it could not be written, or is larger than any state that is read.
        """
        content = encode_tensors(tensors)
        if len(content) > CHECKPOINT_LIMIT:
            raise RunError(
                f"{self.run.path}: the state of the training takes {len(content) / 2**30:.1f} GiB, and "
                f"{CHECKPOINT_LIMIT / 2**30:.0f} are the most; take a smaller --backbone, or --optimizer sgd"
            )
        folder = self.run.training
        with os_errors_as(RunError, f"{folder}: cannot be made"):
            folder.mkdir(exist_ok=True)
        path = folder / f"step-{state.step:09d}.safetensors"
        record = FileRecord(file=path.name, sha256=write_atomically(path, content))
        write_atomically(folder / STATE, state.model_copy(update={"tensors": record}).encoded())
        with os_errors_as(RunError, f"{folder}: an old state could not be removed"):
            for old in folder.glob("step-*.safetensors"):
                if old != path:
                    old.unlink()

    def load(self) -> TrainingState:
        """Read the state without its tensors.

        Raises:
            DamagedError: the file is missing, changed, or no state that this version reads.
        """
        path = self.run.training / STATE
        try:
            return TrainingState.decoded(path, read_verified(path, None))
        except DamagedError as error:
            raise DamagedError(f"{error}; or start over with --force") from None

    def tensors(self, state: TrainingState) -> dict[str, Tensor]:
        """Read the tensors of a state.

        Raises:
            DamagedError: they are missing or changed.
        """
        path = self.run.training / state.tensors.file
        return decode_tensors(path, read_verified(path, state.tensors.sha256, CHECKPOINT_LIMIT))
