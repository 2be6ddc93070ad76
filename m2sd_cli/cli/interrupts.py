"""Ctrl-C as KeyboardInterrupt, but not where that would do harm or be lost."""

import os
import signal
import sys
import threading
from typing import Any

from m2sd_cli.cli.streams import write_note

INTERRUPTED = 130
LINE = "m2sd: interrupted"
PAUSE = 0.01  # seconds


def say() -> None:
    """Print the line that stands for a traceback."""
    write_note(LINE)


def listen() -> None:
    """Begin to listen; a signal that the process was started to ignore stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _repeat


def end() -> None:
    """Let Ctrl-C end the process from now on, without the traceback of whatever Python is leaving."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    # An import can swallow a KeyboardInterrupt, make another error of it or abort the process. It takes seconds with
    # torch, when nothing has begun yet; later a process that is killed does no harm either.
    if any(getattr(getattr(each, "__spec__", None), "_initializing", False) for each in list(sys.modules.values())):
        os.write(2, f"{LINE}\n".encode())  # print may be what was interrupted
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _repeat(unraisable: Any) -> None:
    """Interrupt a little later where KeyboardInterrupt was raised in a callback that passes nothing on."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
    else:
        main = threading.main_thread().ident
        threading.Timer(PAUSE, signal.pthread_kill, (main, signal.SIGINT)).start()
