"""A training goes on as it began: every option that could change the result is refused if it differs."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.cli.commands import build_command
from m2sd_cli.cli.options import seconds
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.distributed.process_group import ProcessGroup
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.execution import SAVE_EVERY, Execution
from m2sd_cli.training.resuming import require_same
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Outcome, Stripes, finished, tree

COMMON = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.5,
    "optimizer": "adamw",
    "backbone_rate": 0.5,
    "schedule": "constant",
    "milestones": "1",
    "gamma": 0.5,
    "warmup_epochs": 0.5,
    "momentum": 0.5,
    "weight_decay": 0.25,
    "auto_augment": "cifar10",
    "colour": 0.5,
    "cutout": 0.25,
    "seed": 1,
    "precision": "bf16",
    "deterministic": None,
    "compile": None,
    "recipe": "cifar100-resnet20",
}
DIFFERENT: dict[str, dict[str, Any]] = {
    "pretrain": {
        **COMMON,
        "backbone": "resnet18",
        "similarity": "linear",
        "scale": 8.0,
        "closeness_weight": 1.0,
        "init": "imagenet",
        "image_size": 24,
        "held_out": 0.25,
        "images_per_class": 5,
        "base_classes": 3,
        "way": 1,
        "shots_per_class": 1,
        "class_order": "7",
        "shots_draw": 2,
        "transform": "demo",
        "split": "another.toml",
    },
    "distill": {
        **COMMON,
        "mixing": "mixup",
        "enhancement": "no-pyramid",
        "beta": 0.5,
        "temperature": 2.0,
        "ce_weight": 0.5,
        "kl_weight": 0.5,
        "kd_weight": 0.5,
        "attention_weight": 0.5,
        "attention_reduction": "sum",
        "teacher_weight": 0.5,
        "clean_weight": 0.5,
        "pyramid_width": 2,
        "views": 2,
        "levels": 2,
        "classifier": "teen",
        "base_cost": 1.0,
    },
}
# What says where things are, when to stop and save and what to print; --data and --config have tests of their own.
HARMLESS = {
    "run",
    "data_root",
    "device",
    "stop_after",
    "time_budget",
    "save_every",
    "resume",
    "requeue",
    "dry_run",
    "force",
    "yes",
    "tensorboard",
    "json",
    "quiet",
}
CASES = [(stage, name) for stage, options in DIFFERENT.items() for name in options]


@pytest.fixture(scope="module")
def begun(trained: Path, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Begin both stages, and stop each after its first step."""
    home = tmp_path_factory.mktemp("begun")
    runs = {"pretrain": home / "pretrain", "distill": home / "distill"}
    m2sd_cli.pretrain(str(stripes.folder), run=runs["pretrain"], stop_after=0, **QUICK)
    shutil.copytree(trained, runs["distill"])
    RunFolder(runs["distill"]).remove_sessions(first=0)
    m2sd_cli.distill(str(stripes.folder), run=runs["distill"], stop_after=0, **QUICK_DISTILL)
    return runs


@pytest.fixture
def resume(m2sd: Cli, begun: dict[str, Path], stripes: Stripes) -> Cli:
    def call(stage: str, *words: object, data: object = stripes.folder) -> Outcome:
        return m2sd(stage, "--resume", "--data", data, "--run", begun[stage], "--device", "cpu", *words)

    return call


def test_every_option_is_either_refused_or_harmless() -> None:
    for stage, model in (("pretrain", PretrainConfig), ("distill", DistillConfig)):
        options = {parameter.name for parameter in build_command(stage).params if not vars(parameter)["hidden"]}
        assert options == {
            *DIFFERENT[stage],
            *HARMLESS,
            "data",
            "config",
            *(("skip_bad",) if stage == "pretrain" else ("ignore_new", "source")),
        }
        assert {field.name for field in fields(model)} <= set(DIFFERENT[stage])


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_a_different_option_is_refused_by_name(resume: Cli, begun: dict[str, Path], stage: str, name: str) -> None:
    before = tree(begun[stage])
    option, value = "--" + name.replace("_", "-"), DIFFERENT[stage][name]
    done = resume(stage, option, *([] if value is None else [value]))
    shown = option if value is None else f"{option} {value}"
    assert done.err.startswith(f"m2sd: {shown}: the training began with")
    assert done.err.endswith("; leave it out, or start over with --force\n")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert tree(begun[stage]) == before


def test_a_whole_number_for_a_text_is_what_it_began_with(stripes: Stripes, tmp_path: Path) -> None:
    options: dict[str, Any] = {**QUICK, "schedule": "multistep", "milestones": 2, "epochs": 3}
    assert m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", stop_after=0, **options) is None
    with pytest.raises(UsageError, match=r"^--milestones 1: the training began with 2"):
        m2sd_cli.pretrain(run=tmp_path / "run", resume=True, milestones=1)
    with pytest.raises(UsageError, match=r"^--class-order 7: the training began without it"):
        m2sd_cli.pretrain(run=tmp_path / "run", resume=True, class_order=7)
    again = m2sd_cli.pretrain(run=tmp_path / "run", resume=True, milestones=2, device="cpu")
    assert finished(again).manifest.config["milestones"] == "2"


@pytest.mark.parametrize("stage", DIFFERENT)
def test_a_different_file_of_options_is_refused(resume: Cli, tmp_path: Path, stage: str) -> None:
    file = tmp_path / "options.toml"
    file.write_text(f"[{stage}]\nmomentum = 0.25\n")
    done = resume(stage, "--config", file)
    assert (done.code, done.err) == (
        2,
        "m2sd: --momentum 0.25: the training began with 0.9; leave it out, or start over with --force\n",
    )


@pytest.mark.parametrize("stage", DIFFERENT)
def test_other_data_are_refused(
    resume: Cli, begun: dict[str, Path], stripes: Stripes, tmp_path: Path, stage: str
) -> None:
    before = tree(begun[stage])
    other = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    shutil.copy(next((other / "train" / "blue").iterdir()), next((other / "train" / "red").iterdir()))
    done = resume(stage, data=other)
    assert (done.code, done.out) == (4, "")
    assert "on other images than those of colours; give" in done.err
    assert "--data" in done.err
    named = resume(stage, data="demo")
    assert (named.code, named.err) == (2, "m2sd: --data demo: this run is of the folder 'colours'; say where it is\n")
    assert tree(begun[stage]) == before


def test_the_same_options_and_another_place_are_fine(
    m2sd: Cli, begun: dict[str, Path], stripes: Stripes, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(begun["pretrain"], tmp_path / "run"))
    moved = Path(shutil.copytree(stripes.folder, tmp_path / "moved" / "colours"))
    words = ["--backbone", "resnet20", "--image-size", 16, "--epochs", 1, "--batch-size", 8, "--precision", "fp32"]
    done = m2sd("pretrain", "--resume", "--data", moved, "--run", run, "--device", "cpu", *words)
    assert done.code == 0, done.err
    assert RunFolder(run).pretrain().manifest.checkpoint == RunFolder(trained).pretrain().manifest.checkpoint


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--epochs", 2], "--epochs 2: the training began with 1"),
        (["--precision", "bf16"], "--precision bf16: the training began with fp32"),
        (["--deterministic"], "--deterministic: the training began without it"),
        (["--compile"], "--compile: the training began without it"),
    ],
)
@pytest.mark.parametrize("stage", DIFFERENT)
def test_what_has_finished_with_other_options_is_not_the_answer(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path, stage: str, words: list[object], says: str
) -> None:
    finished = [stage, "--resume", "--run", trained, "--device", "cpu"]
    done = m2sd(*finished, "--data", stripes.folder, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"m2sd: {says}")
    other = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    shutil.copy(next((other / "train" / "blue").iterdir()), next((other / "train" / "red").iterdir()))
    changed = m2sd(*finished, "--data", other)
    assert (changed.code, changed.err) == (
        2,
        f"m2sd: --data {other}: it has finished on other images; --force starts over: 'red' has other images, or other "
        f"names of them\n",
    )


def test_it_goes_on_compiled_and_deterministic_if_it_began_so(begun: dict[str, Path]) -> None:
    state = StateStore(RunFolder(begun["pretrain"])).load()
    both = state.model_copy(update={"compiled": True, "deterministic": True})
    execution = Execution(torch.device("cpu"))
    require_same(both, {}, execution)
    require_same(both, {}, replace(execution, compile=True, deterministic=True, precision="fp32"))
    assert execution.resumed_from(both) == replace(execution, compile=True, deterministic=True, precision="fp32")
    with pytest.raises(UsageError, match="the training began with --compile, which is for one process; go on without"):
        replace(execution, group=ProcessGroup(0, 2)).resumed_from(both)


# ---- how often it is saved


def test_the_default_is_that_of_the_function() -> None:
    for stage in DIFFERENT:
        [option] = [parameter for parameter in build_command(stage).params if parameter.name == "save_every"]
        assert seconds("--save-every", option.default) == SAVE_EVERY


@pytest.mark.parametrize("stage", DIFFERENT)
def test_it_is_saved_as_often_as_asked(
    m2sd: Cli, run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    saved: list[int] = []
    save = StateStore.save

    def watched(store: StateStore, state: Any, tensors: dict[str, Tensor]) -> None:
        saved.append(state.step)
        save(store, state, tensors)

    monkeypatch.setattr(StateStore, "save", watched)
    words = [
        stage,
        "--data",
        stripes.folder,
        "--run",
        run,
        "--force",
        "--yes",
        "--device",
        "cpu",
        "-q",
        "--batch-size",
        8,
    ]
    words += ["--epochs", 2, *(["--image-size", 16, "--backbone", "resnet20"] if stage == "pretrain" else [])]
    assert m2sd(*words, "--save-every", "0s").code == 0
    assert saved == list(range(1, 9))
    saved.clear()
    assert m2sd(*words).code == 0
    assert saved == [8]
    wrong = m2sd(*words, "--save-every", "5 m")
    assert (wrong.code, wrong.err) == (2, "m2sd: --save-every 5 m: write 90s, 9m or 2h\n")
