"""The whole life of a model on real CIFAR-100 with the official split, in the shortest training that says anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from m2sd_cli.errors import StoppedError
from tests.helpers import Cli


@pytest.mark.realdata
def test_the_official_benchmark(m2sd: Cli, real_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def do(*words: object) -> dict[str, Any]:
        done = m2sd(*words, "--run", run, "--data-root", real_data, "--device", "cpu", "--json")
        assert done.code in (0, StoppedError.exit_code), done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    def step() -> int:
        found: int = json.loads((run / "training" / "state.json").read_bytes())["step"]
        return found

    trained = do("pretrain", "--data", "cifar100", "--epochs", 1, "--batch-size", 512)
    assert (trained["classes"], trained["epochs"]) == (60, 1)

    assert do("distill", "--epochs", 1, "--batch-size", 128, "--stop-after", "2s")["finished"] is False
    stopped = step()
    assert stopped >= 1
    assert do("distill", "--resume", "--stop-after", "1s")["finished"] is False
    assert step() > stopped
    assert do("distill", "--force", "--epochs", 0)["finished"] is True
    assert not (run / "training").exists()

    for number in range(1, 9):
        taught = do("increment", "--session", number)
        assert [each["shots"] for each in taught["classes"]] == [5] * 5
        assert taught["classes_so_far"] == 60 + 5 * number
    refused = m2sd("increment", "--session", 9, "--run", run, "--data-root", real_data)
    assert refused.code == 4

    figures = do("evaluate")
    assert [each["classes"] for each in figures["sessions"]] == list(range(60, 101, 5))
    assert [each["images"] for each in figures["sessions"]] == list(range(6000, 10001, 500))
    assert figures["untested_classes"] == figures["unknown_classes"] == []
    first, last = figures["sessions"][0]["overall"], figures["sessions"][-1]["overall"]
    assert first > 100 / 60 * 3  # chance is one in sixty
    assert last > 100 / 100 * 2
    assert figures["drop"] == pytest.approx(first - last)
    assert m2sd("sessions", "verify", "--run", run).code == 0
