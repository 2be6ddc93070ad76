"""Runs whose hashes all fit and whose content makes no sense: one line, exit code 4, and nothing is written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import FileRecord
from m2sd_cli.runs.training_state import StateStore
from tests.helpers import QUICK, Cli, Stripes, tree

Tensors = dict[str, Tensor]

NAN, INFINITY = float("nan"), float("inf")


def rewrite(run: Path, name: str, change: Callable[[Tensors], object], **update: object) -> None:
    """Change the checkpoint of a stage or session, and its manifest so that it vouches for that."""
    folder = RunFolder(run)
    stored = folder.read(name)
    tensors = folder.tensors(stored)
    change(tensors)
    update["checkpoint"] = folder.write_checkpoint(name, tensors)
    folder.write_manifest(name, stored.manifest.model_copy(update=update))


def refused(done: Any, *named: str) -> None:
    assert (done.code, done.out) == (4, ""), done
    assert done.err.count("\n") == 1
    for each in named:
        assert each in done.err


CHANGES: dict[str, Callable[[Tensors, str], object]] = {
    "another": lambda tensors, rows: tensors.update(other=torch.zeros(1)),
    "no rows": lambda tensors, rows: tensors.pop(rows),
    "no bias": lambda tensors, rows: tensors.pop("backbone.bn1.bias"),
    "nothing": lambda tensors, rows: tensors.clear(),
    "empty": lambda tensors, rows: tensors.update({rows: torch.zeros(0, 64)}),
    "one more": lambda tensors, rows: tensors.update({rows: torch.zeros(len(tensors[rows]) + 1, 64)}),
    "float64": lambda tensors, rows: tensors.update({rows: tensors[rows].double()}),
    "half a backbone": lambda tensors, rows: tensors.update(
        {"backbone.conv1.weight": tensors["backbone.conv1.weight"].half()}
    ),
    "bool": lambda tensors, rows: tensors.update({rows: tensors[rows] > 0}),
    "nan": lambda tensors, rows: tensors[rows][0].fill_(NAN),
    "infinite": lambda tensors, rows: tensors["backbone.bn1.running_var"].fill_(INFINITY),
    "broadcast": lambda tensors, rows: tensors.update({"backbone.bn1.bias": torch.zeros(1)}),
}


def test_a_network_of_no_features_answers_nothing(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    rewrite(run, "session-000", lambda tensors: tensors["backbone.bn1.running_var"].fill_(-1))
    done = m2sd("predict", stripes.labelled, "--run", run)
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert "the network's features are no finite numbers" in done.err


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_base_session_that_holds_something_else(
    run: Path, stripes: Stripes, change: Callable[[Tensors, str], object], m2sd: Cli
) -> None:
    RunFolder(run).remove_sessions(first=1)
    rewrite(run, "session-000", lambda tensors: change(tensors, "class_means"))
    before = tree(run)
    for command in (
        ["predict", stripes.labelled],
        ["increment", "--session", 1, "--shots", stripes.first_shots],
        ["export", "--format", "safetensors", "--out", run.parent / "out"],
        ["evaluate", "--test", stripes.labelled],
    ):
        refused(m2sd(*command, "--run", run), "session-000.safetensors: not the checkpoint that its manifest names")
    assert tree(run) == before
    assert not (run.parent / "out").exists()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_pretrain_that_holds_something_else(
    pretrained: Path, stripes: Stripes, change: Callable[[Tensors, str], object], m2sd: Cli
) -> None:
    rewrite(pretrained, "pretrain", lambda tensors: change(tensors, "classifier.weight"))
    before = tree(pretrained)
    done = m2sd("distill", "--data", stripes.folder, "--run", pretrained)
    refused(done, "pretrain.safetensors: not the checkpoint that its manifest names")
    assert tree(pretrained) == before


@pytest.mark.parametrize("name", ["another", "no rows", "empty", "one more", "float64", "bool", "nan"])
def test_a_session_that_holds_something_else(run: Path, stripes: Stripes, name: str, m2sd: Cli) -> None:
    rewrite(run, "session-002", lambda tensors: CHANGES[name](tensors, "class_means"))
    refused(m2sd("predict", stripes.labelled, "--run", run), "session-002.safetensors: not the checkpoint")


INSIDE: dict[str, dict[str, Any]] = {
    "index": {"classes": [{"index": 10**8, "name": "grey", "shots": 0}]},
    "index of another": {"classes": [{"index": 0, "name": "grey", "shots": 0}]},
    "base": {"kind": "base"},
    "stage 1": {"kind": "pretrain"},
    "no edit": {"kind": "forget"},
    "views": {"views": None},
}


@pytest.mark.parametrize("change", INSIDE.values(), ids=INSIDE)
def test_a_session_inside_the_chain_that_says_something_else(
    run: Path, stripes: Stripes, change: dict[str, Any], m2sd: Cli
) -> None:
    """It is neither the first nor the last, of which more is read."""
    manifest, newest = json.loads((run / "session-001.json").read_bytes()), run / "session-002.json"
    old = hashlib.sha256((run / "session-001.json").read_bytes()).hexdigest()
    (run / "session-001.json").write_text(json.dumps(manifest | change))
    new = hashlib.sha256((run / "session-001.json").read_bytes()).hexdigest()
    newest.write_text(newest.read_text().replace(old, new))
    record = FileRecord(file=newest.name, sha256=hashlib.sha256(newest.read_bytes()).hexdigest())
    RunFolder(run)._point(record)
    before = tree(run)
    refused(m2sd("predict", stripes.labelled, "--run", run), "session-001.json", "restore it from a backup")
    assert tree(run) == before


@pytest.mark.parametrize(("name", "width"), [("resnet20", 65536), ("resnet20", 1), ("resnet18", 64), ("vgg", 64)])
def test_a_width_is_believed_only_if_it_is_the_backbones(
    pretrained: Path, stripes: Stripes, name: str, width: int, m2sd: Cli
) -> None:
    backbone = RunFolder(pretrained).pretrain().manifest.backbone
    rewrite(pretrained, "pretrain", dict, backbone=backbone.model_copy(update={"name": name, "width": width}))
    refused(m2sd("distill", "--data", stripes.folder, "--run", pretrained), "pretrain.json", name)


def test_the_name_of_a_data_set_is_no_path(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    data = RunFolder(run).pretrain().manifest.data
    stranger = data.model_copy(update={"name": str(stripes.folder), "kind": "built-in"})
    rewrite(run, "session-000", dict, data=stranger)
    refused(m2sd("evaluate", "--run", run), "no data set of that name")
    rewrite(run, "pretrain", dict, data=stranger)
    refused(m2sd("distill", "--run", run, "--force", "--yes"), "no data set of that name")


@pytest.fixture
def stopped(tmp_path: Path, stripes: Stripes) -> Path:
    """A run with a pretrain that was stopped after its first step."""
    run = tmp_path / "stopped"
    assert m2sd_cli.pretrain(str(stripes.folder), run=run, stop_after=0.0, **QUICK) is None
    return run


def resume(run: Path, stripes: Stripes, m2sd: Cli) -> Any:
    return m2sd("pretrain", "--data", stripes.folder, "--run", run, "--resume", "--device", "cpu")


EPOCH = {"epoch": 1, "loss": 1.0, "terms": {}, "learning_rate": 0.1}  # of four steps, of which there is one
MODULE = "module.class_weights.weight"
STATES: dict[str, Callable[[Tensors], object]] = {
    "another": lambda tensors: tensors.update(other=torch.zeros(1)),
    "no weight": lambda tensors: tensors.pop(MODULE),
    "nothing": lambda tensors: tensors.clear(),
    "a row less": lambda tensors: tensors.update({MODULE: tensors[MODULE][1:].clone()}),
    "float64": lambda tensors: tensors.update({MODULE: tensors[MODULE].double()}),
    "nan": lambda tensors: tensors[MODULE].fill_(NAN),
    "momentum of nothing": lambda tensors: tensors.update({"momentum.other": torch.zeros(1)}),
    "broadcast momentum": lambda tensors: tensors.update({"momentum.class_weights.weight": torch.zeros(1)}),
    "infinite momentum": lambda tensors: tensors["momentum.class_weights.weight"].fill_(INFINITY),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_training_state_that_holds_something_else(
    stopped: Path, stripes: Stripes, change: Callable[[Tensors], object], m2sd: Cli
) -> None:
    store = StateStore(RunFolder(stopped))
    state = store.load()
    tensors = store.tensors(state)
    change(tensors)
    store.save(state, tensors)
    before = tree(stopped)
    refused(resume(stopped, stripes, m2sd), "training: not the state of this training: ", "--force")
    assert tree(stopped) == before


@pytest.mark.parametrize(
    "change",
    [
        {"step": 10**12},
        {"step": 8, "history": 2 * [EPOCH]},
        {"history": [EPOCH]},
        {"config": {}},
        {"config": {"epochs": 10**10}},
        {"config": {"epochs": 1, "other": 1}},
        {"precision": "fp16"},
        {"sums": {"loss": INFINITY}},
        {"data": {"name": "/etc", "kind": "built-in", "split": "official"}},
        {"tensors": {"file": "../pretrain.safetensors", "sha256": 64 * "0"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_training_state_that_says_something_else(
    stopped: Path, stripes: Stripes, change: dict[str, Any], m2sd: Cli
) -> None:
    path = stopped / "training" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    before = tree(stopped)
    refused(resume(stopped, stripes, m2sd))
    assert tree(stopped) == before


def test_a_state_that_is_right_is_gone_on_with(stopped: Path, stripes: Stripes, m2sd: Cli) -> None:
    assert resume(stopped, stripes, m2sd).code == 0


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/elsewhere.safetensors", "..", "a/b"])
def test_a_checkpoint_outside_the_run_is_not_read(run: Path, file: str, m2sd: Cli) -> None:
    content = (run / "session-002.safetensors").read_bytes()
    (run.parent / "elsewhere.safetensors").write_bytes(content)
    path = run / "session-002.json"
    found = json.loads(path.read_bytes())
    place = str(run.parent) + file if file.startswith("/") else file
    path.write_text(json.dumps(found | {"checkpoint": found["checkpoint"] | {"file": place}}))
    refused(m2sd("export", "--format", "safetensors", "--out", run.parent / "out", "--run", run), "session-002.json")
