"""The time of a training: told after its first steps, and given as a budget for the epochs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli.errors import StoppedError, TrainingError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training import loop
from m2sd_cli.training.job import Position
from m2sd_cli.training.loop import Training
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes, tree

WORDS = ["--batch-size", 8, "--device", "cpu", "--precision", "fp32"]
FIRST = ["--image-size", 16, "--backbone", "resnet20", *WORDS]
BUDGET: dict[str, Any] = {name: value for name, value in QUICK.items() if name != "epochs"}
SECOND: dict[str, Any] = {name: value for name, value in QUICK_DISTILL.items() if name != "epochs"}


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step take a second on the clock."""
    measure = Training.step_seconds

    def step_seconds(training: Training, _enough: float | None = None) -> float:
        measure(training)
        return 1.0

    monkeypatch.setattr(Training, "step_seconds", step_seconds)


@pytest.mark.usefixtures("quick_steps")
def test_a_budget_becomes_epochs_that_repeat_the_training_exactly(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    budget, again = RunFolder(tmp_path / "budget"), RunFolder(tmp_path / "again")
    done = m2sd("pretrain", "--data", stripes.folder, "--run", budget.path, *FIRST, "--time-budget", "20s")
    assert done.code == 0, done.err
    found = re.search(
        r"^pretrain: --time-budget allows (\d+) epochs; --epochs \1 repeats the training$", done.err, re.M
    )
    assert found is not None
    epochs = int(found[1])
    assert 1 <= epochs <= 4  # of 4 steps of a second; reading the images takes time, too
    assert budget.pretrain().manifest.config["epochs"] == len(budget.pretrain().manifest.history) == epochs
    m2sd_cli.pretrain(stripes.folder, run=again.path, epochs=epochs, **BUDGET)
    first, second = budget.pretrain().manifest, again.pretrain().manifest
    assert (first.checkpoint, first.history, first.config) == (second.checkpoint, second.history, second.config)
    m2sd_cli.distill(stripes.folder, run=budget.path, time_budget=20, **SECOND)
    epochs = int(str(budget.session(0).manifest.config["epochs"]))
    m2sd_cli.distill(stripes.folder, run=again.path, epochs=epochs, **SECOND)
    assert budget.session(0).manifest.checkpoint == again.session(0).manifest.checkpoint


@pytest.mark.usefixtures("quick_steps")
def test_a_training_within_a_budget_is_resumed_with_its_epochs(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    words = ["pretrain", "--data", stripes.folder, "--run", run.path, *FIRST, "--time-budget", "20s"]
    assert m2sd(*words, "--stop-after", "0s").code == StoppedError.exit_code
    done = m2sd(*words, "--resume")
    assert done.code == 0, done.err
    epochs = run.pretrain().manifest.config["epochs"]
    assert f"pretrain: the budget of time allowed {epochs} epochs when it began" in done.err


def test_the_first_step_of_each_size_is_not_counted(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 images in batches of 24: a compiled network is compiled for 24 images, and once more for the other 8.
    clock: list[float] = [0.0]
    found: list[float] = []
    sizes: set[int] = set()
    step, measure = Training._step, Training.step_seconds

    def timed(training: Training, sums: Any) -> None:
        begin, end = training.bounds[training.position.step % len(training.bounds)]
        clock[0] += 1.0 if end - begin in sizes else 100.0
        sizes.add(end - begin)
        step(training, sums)

    def step_seconds(training: Training, enough: float | None = None) -> float:
        with monkeypatch.context() as patch:
            patch.setattr(Training, "_step", timed)
            patch.setattr("m2sd_cli.training.loop.time.monotonic", lambda: clock[0])
            found.append(measure(training, enough))
        return found[-1]

    monkeypatch.setattr(Training, "step_seconds", step_seconds)
    options = {**BUDGET, "batch_size": 24, "held_out": 0}
    m2sd_cli.pretrain(stripes.folder, run=tmp_path / "run", time_budget=10, **options)
    assert sizes == {24, 8}
    assert found == [1.0]


def test_a_warm_up_of_all_epochs_is_refused(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "step_seconds", lambda *_: 1.0)
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *FIRST, "--time-budget", "14s"]
    for plan in ([], ["--dry-run"]):
        done = m2sd(*words, "--warmup-epochs", 5, *plan)
        assert done.code == 2
        assert re.search(r"--time-budget: it allows \d epochs?, and --warmup-epochs 5 take all of", done.err)
    assert m2sd("pretrain", "--data", stripes.folder, *FIRST, "--time-budget", "").code == 2


def test_steps_that_were_timed_leave_no_trace(stripes: Stripes, tmp_path: Path) -> None:
    states: list[dict[str, Any]] = []
    run = Training.run

    def timed(training: Training, stop: Any) -> bool:
        before = {name: tensor.clone() for name, tensor in training.tensors().items()}
        assert training.step_seconds() > 0
        after = training.tensors()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert training.position == Position()
        states.append(before)
        return run(training, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run", timed)
        timed_run = m2sd_cli.pretrain(stripes.folder, run=tmp_path / "timed", optimizer="adamw", **QUICK)
    plain = m2sd_cli.pretrain(stripes.folder, run=tmp_path / "plain", optimizer="adamw", **QUICK)
    assert len(states) == 1
    assert timed_run is not None
    assert plain is not None
    assert timed_run.manifest.checkpoint == plain.manifest.checkpoint


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--time-budget", "20s", "--epochs", 3], "--time-budget and --epochs: choose one"),
        (
            ["--time-budget", "20s", "--schedule", "multistep", "--milestones", 1],
            "--time-budget and --milestones:",
        ),
        (["--time-budget", "0s"], "--time-budget: an epoch takes about 4 s, and 0 s are too little for it; allow more"),
        (["--time-budget", "2"], "--time-budget 2: write 90s, 9m or 2h"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, words: list[object], says: str
) -> None:
    done = m2sd("pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *FIRST, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"m2sd: {says}")
    assert set(tree(tmp_path)) <= {"run", "run/places.json"}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory left"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["accelerator", "cpu"],
)
def test_steps_that_are_timed_explain_a_lack_of_memory(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def step(_training: Training, _sums: object) -> None:
        raise error

    monkeypatch.setattr(Training, "_step", step)
    for options in ({"epochs": 1}, {"time_budget": 60.0}):
        with pytest.raises(TrainingError, match=r"^pretrain: the memory of cpu is too small .*; lower --batch-size$"):
            m2sd_cli.pretrain(stripes.folder, run=tmp_path / "run", **BUDGET, **options)


def test_the_time_is_told_after_the_first_steps(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TOLD_AFTER", 0.0)
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *FIRST, "--epochs", 2]
    said = [line for line in m2sd(*words).err.splitlines() if "from now on" in line]
    assert len(said) == 1
    assert re.fullmatch(r"pretrain: 2 epochs of 4 steps, about \d+ s from now on", said[0])
    assert "from now on" not in m2sd(*words, "--force", "-q").err
    assert "5 epochs of 1 step, about" in m2sd(*words, "--force", "--batch-size", 64, "--epochs", 5).err
