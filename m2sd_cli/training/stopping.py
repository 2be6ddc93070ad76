"""Ending a training early without losing it: a time limit, Ctrl-C, or a signal of a terminal or a cluster."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from m2sd_cli.errors import InterruptedTrainingError, SignalledTrainingError

# Ctrl-C; the end of a job; the end of a terminal; the warning that Slurm is told to send; the end of CPU time.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)
]


class StopRequest:
    """A request to save and end, which a training looks at between two steps.

    Args:
        after: seconds from now after which to stop; None for never.
    """

    def __init__(self, after: float | None = None) -> None:
        self._deadline = None if after is None else time.monotonic() + after
        self.interrupted = False
        self._signal: int | None = None

    @property
    def wanted(self) -> bool:
        """True if the training is to save and end now."""
        return self.interrupted or (self._deadline is not None and time.monotonic() >= self._deadline)

    @property
    def error(self) -> type[InterruptedTrainingError]:
        """The error of the signal that made the request: Ctrl-C has another one than the signals of systems."""
        return SignalledTrainingError if self._signal not in (None, signal.SIGINT) else InterruptedTrainingError

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn each of SIGNALS into a request; the same signal a second time has its usual effect, an end at once.

        A signal that the process was started to ignore stays ignored: a shell has SIGINT ignored in the background,
        nohup SIGHUP.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            self.interrupted, self._signal = True, number
            signal.signal(number, before[signal.Signals(number)])

        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
