"""The request to stop a training."""

import signal
import threading

import pytest

from m2sd_cli.errors import InterruptedTrainingError, SignalledTrainingError
from m2sd_cli.training.stopping import StopRequest


def test_signals_are_the_main_threads_business() -> None:
    request = StopRequest()

    def elsewhere() -> None:
        with request.on_signals():
            request.interrupted = True

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert request.wanted


def test_a_time_limit_is_counted_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    request, endless = StopRequest(after=30), StopRequest()
    now = 129.0
    assert not request.wanted
    now = 130.0
    assert request.wanted
    assert not endless.wanted


@pytest.mark.usefixtures("signals_as_at_a_terminal")
@pytest.mark.parametrize(
    ("number", "error"),
    [
        ("SIGINT", InterruptedTrainingError),
        *((number, SignalledTrainingError) for number in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")),
    ],
)
def test_a_signal_of_a_cluster_is_told_from_ctrl_c(number: str, error: type[InterruptedTrainingError]) -> None:
    request = StopRequest()
    with request.on_signals():
        signal.raise_signal(getattr(signal, number))
    assert request.wanted
    assert request.error is error
