"""Looking at one workload alone: what is counted, what is timed, and what is no longer there meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from m2sd_cli.benchmark import run
from m2sd_cli.benchmark.run import COMPILED_WARM_UP, WARM_UP, _survey
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.data.sources import TrainingImages
from tests.benchmark.small import few, tiny


class Products:
    """Steps of one matrix product of 2 x 3 x 4 multiplications and additions."""

    images = 7

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log
        log.append(f"{name} begins")

    def prepare(self, steps: int) -> None:
        self.log.append(f"{self.name} prepares")

    def run(self, steps: int) -> None:
        self.log.append(f"{self.name} does {steps}")
        for _ in range(steps):
            torch.ones(2, 3) @ torch.ones(3, 4)

    def close(self) -> None:
        self.log.append(f"{self.name} ends")


@pytest.mark.parametrize(("compiled", "warm_up"), [(False, WARM_UP), (True, COMPILED_WARM_UP)])
def test_operations_are_counted_in_what_is_plain_and_before_anything_is_timed(compiled: bool, warm_up: int) -> None:
    log: list[str] = []
    settings = replace(tiny(), compile=compiled)
    found = _survey("pretrain", lambda: Products("own", log), lambda: Products("plain", log), 1e-9, settings)
    assert log[:7] == [
        "plain begins",
        "plain prepares",
        "plain does 1",
        "plain ends",
        "own begins",
        "own prepares",
        f"own does {warm_up}",
    ]
    assert log[-1] == "own ends"
    assert (found.images, found.flops, found.steps) == (7, 2 * 2 * 3 * 4, 1)


def test_what_a_workload_keeps_is_given_back_before_the_next_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Kept:
        def __init__(self, device: torch.device) -> None:
            pass

        def __enter__(self) -> None:
            log.append("keeps")

        def __exit__(self, *_: object) -> None:
            log.append("gives back")

    monkeypatch.setattr(run, "freed_memory_kept", Kept)
    _survey(
        "pretrain",
        lambda: Products("own", log),
        lambda: Products("plain", log),
        1e-9,
        tiny(),
    )
    marks = [each for each in log if each in ("keeps", "gives back") or each.endswith(("begins", "ends"))]
    assert marks == [
        "keeps",
        "plain begins",
        "plain ends",
        "gives back",
        "keeps",
        "own begins",
        "own ends",
        "gives back",
    ]


def test_images_are_made_once_even_if_stages_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    surveyed: list[tuple[str, bool]] = []

    def images(settings: Settings) -> TrainingImages:
        made.append(1)
        return few()

    def survey(name: str, make: Callable[[], Any], plain: Callable[[], Any], *others: Any) -> None:
        surveyed.append((name, make is plain))
        if name == "distill":
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "random_images", images)
    monkeypatch.setattr(run, "_survey", survey)
    with pytest.raises(KeyboardInterrupt):
        run.run_bench(replace(tiny(), compile=True), lambda run, images, settings: None)
    assert made == [1]
    assert surveyed == [("features", False), ("pretrain", False), ("distill", False)]
