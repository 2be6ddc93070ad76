"""Expected errors as one line and an exit code; --debug shows the traceback instead."""

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from m2sd_cli.cli.interrupts import INTERRUPTED, say
from m2sd_cli.cli.output import printable
from m2sd_cli.cli.streams import flush_results, give_up, write_note
from m2sd_cli.distributed.torchrun import is_main_process
from m2sd_cli.errors import M2sdError

PATIENCE = 5.0  # seconds

debugging = False


@contextmanager
def reported() -> Iterator[None]:
    """Print the sentence of an expected error and exit as it asks; others keep their traceback.

    A file that the system refuses, as for a name that is too long or rights that are missing, is no fault of a program.
    """
    try:
        try:
            yield
        except OSError as error:
            if error.filename is not None:
                raise M2sdError(f"{os.fsdecode(error.filename)}: {error.strerror or error}") from error
            give_up(error)  # of help pages, which Typer prints
        finally:
            flush_results()
    except M2sdError as error:
        if debugging:
            traceback.print_exc()
        who = "m2sd"
        if not is_main_process():
            # As soon as one process fails torchrun ends the others: if this one still lives, it failed alone.
            time.sleep(PATIENCE)
            who = f"m2sd, process {os.environ['RANK']}"
        for line in error.lines:
            write_note(f"{who}: {printable(line)}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED and is_main_process():  # so Typer ends a command at Ctrl-C
            say()
        if isinstance(end.__context__, BrokenPipeError):  # to which Typer gives another code
            sys.exit(0)
        raise
