"""The errors that a person can cause or mend: each has an exit code and a sentence that names the way out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

EXIT_CODES: Final = {
    0: "done",
    1: "failed",
    2: "wrong usage",
    3: "the data is bad",
    4: "the run folder does not allow it: missing, locked, damaged, wrong session; or a file could not be written",
    5: "a training stopped in time and saved: by `--stop-after`, or by a signal to `ablation` or with `--requeue`",
    130: "interrupted",
}


class M2sdError(Exception):
    """The base class of the package's errors, shown without a traceback.

    Each argument is a line of the message, whatever it contains.
    """

    exit_code = 1

    @property
    def lines(self) -> list[str]:
        """Return the lines of the message; a name inside a line may contain a line break."""
        return [str(line) for line in self.args]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class UsageError(M2sdError):
    """An option, name or configuration that makes no sense."""

    exit_code = 2


class DataError(M2sdError):
    """An image, folder or data set that is missing or cannot be read."""

    exit_code = 3


class ImageError(DataError):
    """An image that cannot be read, which --skip-bad leaves out.

    Args:
        path: the image.
        reason: without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class RunError(M2sdError):
    """A run folder that does not allow a command: missing, locked, damaged, or at another session."""

    exit_code = 4


class LockedError(RunError):
    """A run folder that another process is writing to."""


class DamagedError(RunError):
    """A file of the run folder that does not match its manifest."""


class TrainingError(M2sdError):
    """A training that cannot go on, such as one whose loss is not finite."""


class DivergedError(TrainingError):
    """A training whose numbers are no longer finite.

    Args:
        reason: without the way out.
        way: out of it, for a command that trains one network.
    """

    def __init__(self, reason: str, way: str) -> None:
        super().__init__(f"{reason}; {way}")
        self.reason = reason


class InterruptedCommandError(M2sdError):
    """Ctrl-C."""

    exit_code = 130


class InterruptedTrainingError(InterruptedCommandError):
    """Ctrl-C or another signal that ends a training, after the state was saved."""


class SignalledTrainingError(InterruptedTrainingError):
    """A signal other than Ctrl-C that ends a training, as that of a cluster whose time is up."""


class StoppedError(M2sdError):
    """A training that was stopped in time and saved, and goes on when its command is repeated."""

    exit_code = 5


@contextmanager
def os_errors_as(kind: type[M2sdError], problem: str) -> Iterator[None]:
    """Turn an OSError into an error of a kind: the problem, and the system's reason in brackets."""
    try:
        yield
    except OSError as error:
        raise kind(f"{problem} ({error.strerror or error})") from None
