"""A training that leaves the finite numbers stops, says where, and keeps what it last saved."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.errors import TrainingError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training import distill, pretrain
from m2sd_cli.training.loop import Training
from m2sd_cli.training.sums import Sums, all_finite
from tests.helpers import QUICK, QUICK_DISTILL, Stripes, tree

Bad = dict[str, float]
STAGES = ["pretrain", "distill"]
STEPS = 8  # of both stages as they are begun here: two epochs of four
LATER = "goes on to the same end: start over with --force and a lower --learning-rate"


@pytest.fixture
def begin(run: Path, stripes: Stripes) -> Callable[..., object]:
    """Begin one of the stages on a finished run."""

    def call(stage: str, **options: Any) -> object:
        usual = (QUICK if stage == "pretrain" else QUICK_DISTILL) | {"run": run, "force": True, "epochs": 2}
        return getattr(m2sd_cli, stage)(str(stripes.folder), **usual | options)

    return call


def inject(monkeypatch: pytest.MonkeyPatch, stage: str, bad: dict[int, Bad]) -> None:
    """Let terms be other than they are at some steps of a stage, counted from 1."""
    monkeypatch.setattr("m2sd_cli.training.loop.spare_memory", lambda *_: None)  # a loss of noise is no step
    step = 0
    terms_of: Any = vars(distill)["distillation_terms"]
    loss_of: Any = vars(pretrain)["cross_entropy"]

    def distillation_terms(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        nonlocal step
        step += 1
        terms: dict[str, Tensor] = terms_of(*arguments, **options)
        return {name: term + bad.get(step, {}).get(name, 0.0) for name, term in terms.items()}

    def cross_entropy(*arguments: Any) -> Tensor:
        nonlocal step
        step += 1
        loss: Tensor = loss_of(*arguments)
        return loss + bad.get(step, {}).get("loss", 0.0)

    if stage == "distill":
        monkeypatch.setattr(distill, "distillation_terms", distillation_terms)
    else:
        monkeypatch.setattr(pretrain, "cross_entropy", cross_entropy)


def check_kept(run: Path, step: int) -> None:
    """The state of that step is there, whole, and holds numbers only."""
    store = StateStore(RunFolder(run))
    state = store.load()
    assert state.step == step
    assert all_finite(store.tensors(state))
    assert all(math.isfinite(each) for each in state.sums.values())
    assert [path.name for path in (run / "training").glob("*.safetensors")] == [state.tensors.file]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("stage", "term"), [("pretrain", "loss"), ("distill", "kd"), ("distill", "attention")])
def test_the_step_and_the_term_are_named_though_nobody_looks_before_the_epoch_ends(
    begin: Callable[..., object], run: Path, monkeypatch: pytest.MonkeyPatch, stage: str, term: str, value: float
) -> None:
    before = tree(run)
    # At the next step everything is bad: what began it is named, not what it led to.
    later = dict.fromkeys(["loss", "ce", "kl", "kd", "attention", "teacher"], math.nan)
    inject(monkeypatch, stage, {6: {term: value}, 7: later})
    with pytest.raises(TrainingError) as raised:
        begin(stage)
    assert str(raised.value) == (
        f"{stage}: no finite value of {term} at step 6 of {STEPS}; no state was saved before; start over with a lower "
        f"--learning-rate"
    )
    assert tree(run) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("stage", "term"), [("pretrain", "loss"), ("distill", "kd")])
def test_the_learning_rate_is_not_blamed_for_the_first_step(
    begin: Callable[..., object], monkeypatch: pytest.MonkeyPatch, stage: str, term: str, precision: str
) -> None:
    inject(monkeypatch, stage, {1: {term: math.nan}})
    with pytest.raises(TrainingError) as raised:
        begin(stage, precision=precision)
    more = ", or try --precision fp32" if precision == "bf16" else ""
    assert str(raised.value) == (
        f"{stage}: no finite value of {term} at step 1 of {STEPS}; no learning rate did that: look at the weights that "
        f"it began from{more}"
    )


@pytest.mark.parametrize(("stage", "term"), [("pretrain", "loss"), ("distill", "teacher")])
def test_the_state_before_it_is_kept(
    begin: Callable[..., object], run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, stage: str, term: str
) -> None:
    before = tree(run)
    begin(stage)
    name = "pretrain" if stage == "pretrain" else "session-000"
    whole = RunFolder(run).read(name).manifest
    with monkeypatch.context() as patch:
        inject(patch, stage, {6: {term: math.nan}})
        with pytest.raises(TrainingError) as raised:
            begin(stage, save_every=0.0)
    assert str(raised.value) == (
        f"{stage}: no finite value of {term} at step 6 of {STEPS}; the last good state, of step 5, is kept, but {LATER}"
    )
    check_kept(run, 5)
    resume: Any = getattr(m2sd_cli, stage)
    resume(str(stripes.folder), run=run, resume=True, device="cpu")
    again = RunFolder(run).read(name).manifest
    assert (again.checkpoint, again.history) == (whole.checkpoint, whole.history)
    assert before.keys() >= tree(run).keys()


def test_all_terms_of_the_first_bad_step_are_named(
    begin: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, "distill", {3: {"ce": math.inf, "kl": -math.inf}, 4: {"teacher": math.nan}})
    with pytest.raises(TrainingError, match=r"^distill: no finite value of ce and kl at step 3 of 8;"):
        begin("distill")


def test_the_total_is_named_if_no_term_is_to_blame(
    begin: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, "distill", {2: {"attention": 1e37}})  # times its weight of 100
    with pytest.raises(TrainingError, match=r"^distill: no finite value of loss at step 2 of 8;"):
        begin("distill")


@pytest.mark.parametrize("rate", [1e10, 1e30, 1e38])
@pytest.mark.parametrize("stage", STAGES)
def test_a_training_that_explodes_keeps_a_state_of_numbers(
    begin: Callable[..., object], run: Path, stage: str, rate: float
) -> None:
    def chain() -> dict[str, bytes | None]:
        return {name: content for name, content in tree(run).items() if not name.startswith("training")}

    before = chain()
    with pytest.raises(TrainingError, match=f"^{stage}: no finite (value|weights)") as raised:
        begin(stage, learning_rate=rate, save_every=0.0)
    assert chain() == before
    if "is kept" in str(raised.value):
        check_kept(run, 1)
    else:
        assert "no finite weights after step 1 of 8; no state was saved before" in str(raised.value)
        assert not (run / "training").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_network_that_its_only_step_has_ruined_becomes_no_manifest(
    begin: Callable[..., object], run: Path, stage: str
) -> None:
    before = tree(run)
    with pytest.raises(TrainingError, match=r"no finite weights after step 1 of 1|features are no finite numbers"):
        begin(stage, learning_rate=1e38, batch_size=64, epochs=1)
    if (run / "training").exists():
        check_kept(run, 1)
        RunFolder(run).remove_training()
    assert tree(run) == before


@pytest.mark.parametrize("kind", ["parameter", "buffer", "momentum"])
def test_no_state_holds_anything_but_numbers(
    begin: Callable[..., object], run: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    step = vars(Training)["_step"]

    def poisoned(training: Training, sums: Sums) -> None:
        step(training, sums)
        if training.position.step == 3:
            tensors = training.tensors()
            name = {
                "parameter": "module.backbone.conv1.weight",
                "buffer": "module.backbone.bn1.running_var",
                "momentum": "momentum.class_weights.weight",
            }[kind]
            with torch.no_grad():
                tensors[name][-1].fill_(math.inf)

    monkeypatch.setattr(Training, "_step", poisoned)
    with pytest.raises(TrainingError, match=r"no finite weights after step 3 of 8; the last good state, of step 2, is"):
        begin("pretrain", save_every=0.0)
    check_kept(run, 2)


@pytest.mark.parametrize("stage", STAGES)
def test_finite_weights_without_finite_features_become_no_manifest(
    begin: Callable[..., object], run: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    step = vars(Training)["_step"]

    def grown(training: Training, sums: Sums) -> None:
        step(training, sums)
        if training.position.step == STEPS:
            with torch.no_grad():
                for name, tensor in training.tensors().items():
                    if name.endswith("bn1.weight"):
                        tensor.fill_(1e38)

    monkeypatch.setattr(Training, "_step", grown)
    before = tree(run)
    with pytest.raises(TrainingError, match="features are no finite numbers; train it again, with --force and a lower"):
        begin(stage)
    assert {name for name in tree(run) if not name.startswith("training")} == before.keys()
    assert RunFolder(run).verify() == []


def test_a_resumed_epoch_knows_what_it_had_added_up() -> None:
    sums = Sums(torch.device("cpu"), {"loss": 1.5, "ce": 2.5})
    sums.add(["loss", "ce"], torch.tensor([1.0, 2.0]), 7)
    assert sums.read() == {"loss": 2.5, "ce": 4.5}
    sums.add(["loss", "ce"], torch.tensor([1.0, math.inf]), 8)
    sums.add(["loss", "ce"], torch.tensor([math.nan, -math.inf]), 9)
    assert sums.end() == (8, ["ce"])


def test_a_sum_that_overflows_is_found_like_a_term_that_does() -> None:
    sums = Sums(torch.device("cpu"), {})
    for step in range(1, 5):
        sums.add(["loss"], torch.tensor([1.5e38]), step)
    assert sums.end() == (3, ["loss"])


def test_looking_costs_no_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a step waited for the device")

    sums = Sums(torch.device("cpu"), {})
    with monkeypatch.context() as patch:
        for name in ("tolist", "item", "__bool__", "cpu", "__float__", "__int__"):
            patch.setattr(Tensor, name, forbidden)
        for step in range(1, 4):
            sums.add(["loss"], torch.ones(1) / (2 - step), step)
    assert sums.end() == (2, ["loss"])
