"""Ending a training early without losing it: a time limit, Ctrl-C, or the SIGTERM of a cluster."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Looked at between two steps.

    Args:
        after: seconds from now after which to stop; None for never.
    """

    def __init__(self, after: float | None = None) -> None:
        self._deadline = None if after is None else time.monotonic() + after
        self.interrupted = False

    @property
    def wanted(self) -> bool:
        """Whether to save and end now."""
        return self.interrupted or (self._deadline is not None and time.monotonic() >= self._deadline)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request; a second one ends the process at once, as it would have.

        A signal that the process was started to ignore, as a shell does for SIGINT in the background, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(number, before[signal.Signals(number)])

        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
