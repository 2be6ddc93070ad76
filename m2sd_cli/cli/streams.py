"""Standard streams as a process may find them: closed, full, or with a reader that has left."""

import os
import sys
from typing import NoReturn, TextIO

from m2sd_cli.errors import M2sdError


def open_missing_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed.

    The next file that is opened would otherwise take their number, and get all that is printed to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def write_result(text: str) -> None:
    """Print a result; the process ends quietly if its reader has left, as `head` does.

    Raises:
        M2sdError: stdout is closed or full.
    """
    if sys.stdout is None:
        raise M2sdError("stdout is closed: the result cannot be written")
    try:
        print(text)
    except OSError as error:
        give_up(error)


def flush_results() -> None:
    """Write out all results; here and not as the interpreter ends, so that a failure can be said.

    Raises:
        M2sdError: stdout is full.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            give_up(error)


def give_up(error: OSError) -> NoReturn:
    """End a process whose results cannot be written: quietly if their reader has left, who misses nothing.

    Raises:
        M2sdError: something else is wrong with stdout.
    """
    silence(sys.stdout)
    if isinstance(error, BrokenPipeError):
        sys.exit(0)
    raise M2sdError(f"stdout: the result cannot be written ({error.strerror or error})") from None


def write_note(text: str) -> None:
    """Print a line on stderr; no work depends on it, so that a line that cannot be written is dropped."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Point a broken stream to the null device, since the interpreter flushes it once more at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
