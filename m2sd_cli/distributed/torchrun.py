"""The launcher torchrun, which begins several processes of one command; asked before torch is imported."""

import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

from m2sd_cli.errors import UsageError

LAUNCHED: Final = "TORCHELASTIC_RUN_ID"  # a variable that only torchrun sets


def is_distributed() -> bool:
    """Tell whether torchrun began this process."""
    return LAUNCHED in os.environ


def exit_process(code: int) -> NoReturn:
    """End a process of torchrun that has done its work, without the destructors of torch."""
    # With gloo they may abort the process ("terminate called without an active exception" of torch 2.14), and torchrun
    # then reports a failure.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # a closed stream or a full disk takes nothing more
            stream.flush()
    os._exit(code)


def is_main_process() -> bool:
    """Tell whether this process writes and prints: it is the only one, or the first of several."""
    return not is_distributed() or os.environ.get("RANK", "0") == "0"


def launcher_number(variable: str) -> int:
    """Return a number that torchrun has put into the environment, such as LOCAL_RANK.

    Raises:
        UsageError: the variable is missing, or no number.
    """
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise UsageError(
            f"${variable} {value!r}: not as torchrun sets it; begin with torchrun, or unset $TORCHELASTIC_RUN_ID"
        )
    return int(value)
