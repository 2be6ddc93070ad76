"""Ctrl-C as KeyboardInterrupt, but not where that would be lost or do harm."""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = 130
LINE = "m2sd: interrupted"
AGAIN = 0.01  # seconds
PACKAGE = os.path.dirname(os.path.dirname(__file__))
# The package's own __init__ imports a public function when it is first used.
IMPORTING = ("<frozen importlib", importlib.__file__, os.path.join(PACKAGE, "__init__.py"))
COMMANDS = os.path.join(os.path.dirname(__file__), "")
START = os.path.join(PACKAGE, "__main__.py")


def say() -> None:
    """The line that stands for a traceback."""
    print(LINE, file=sys.stderr, flush=True)


class Interrupts:
    """What SIGINT does.

    Commands spend seconds importing, and an import may swallow a KeyboardInterrupt, make another error of it, or leave
    a module half made. If a command is importing what it will need, nothing has begun: the process ends. If something
    at work imports more, and where KeyboardInterrupt was raised in a callback that passes nothing on, it is raised a
    little later.
    """

    def __init__(self) -> None:
        self._report = sys.unraisablehook

    def listen(self) -> None:
        """Begin; a signal that the process was started to ignore stays ignored."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and hasattr(signal, "setitimer"):
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGALRM, self._handle)
            sys.unraisablehook = self._lost

    def end(self) -> None:
        """All is done: what comes now ends the process, without the traceback of whatever Python is leaving."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        importer = None
        while frame is not None:
            if frame.f_code.co_filename.startswith(IMPORTING):
                importer = frame.f_back
            frame = frame.f_back
        if importer is None:
            raise KeyboardInterrupt
        # The outermost import is looked at: within it, modules import one another.
        if importer.f_code.co_filename.startswith((COMMANDS, START)):
            os.write(2, f"{LINE}\n".encode())  # print may be what was interrupted
            os._exit(INTERRUPTED)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)

    def _lost(self, unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            self._report(unraisable)
