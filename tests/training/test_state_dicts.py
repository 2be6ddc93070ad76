"""The weights of a backbone in files as people have them."""

import argparse
import pickle
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

import m2sd_cli
from m2sd_cli.errors import DataError
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.training.initial_weights import initialise

State = dict[str, Tensor]


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture
def state() -> State:
    """The weights of another network of the same kind, with a classifier."""
    backbone = build_backbone("resnet20")
    return {**backbone.state_dict(), "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}


def begin(path: Path) -> State:
    backbone = build_backbone("resnet20")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialise(backbone, "resnet20", str(path))
    return backbone.state_dict()


LAYOUTS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "a prefix": lambda state: under("module.", state),
    "backbone and head": lambda state: {**under("backbone.", state), "head.weight": torch.zeros(5, 3)},
    "encoder and decoder": lambda state: {**under("encoder.", state), **under("decoder.", {"x": torch.zeros(2)})},
    "two prefixes": lambda state: under("module.encoder.", state),
    "compiled": lambda state: under("_orig_mod.", state),
    "state_dict": lambda state: {"epoch": 3, "state_dict": under("module.", state), "best": torch.zeros(())},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}},
    "params": lambda state: {"params": {**under("module.encoder.", state), "module.fc.weight": torch.ones(3, 64)}},
    "parameters": lambda state: OrderedDict(
        (name, nn.Parameter(each) if each.is_floating_point() else each) for name, each in state.items()
    ),
    "deep": lambda state: {"checkpoint": {"model_state": state}},
    "another classifier": lambda state: {name.replace("fc.", "head."): each for name, each in state.items()},
    "the same twice": lambda state: {"model": state, "ema": {name: each.clone() for name, each in state.items()}},
    "no counts": lambda state: {name: each for name, each in state.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_where_people_keep_them(tmp_path: Path, state: State, layout: str) -> None:
    torch.save(LAYOUTS[layout](state), tmp_path / "w.pth")
    loaded = begin(tmp_path / "w.pth")
    for name, tensor in loaded.items():
        assert torch.equal(tensor, state[name]) or "num_batches" in name


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w"])
def test_the_kind_of_a_file_is_known_by_its_content(tmp_path: Path, state: State, name: str) -> None:
    save_file(under("model.", state), tmp_path / name)
    torch.save(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for path in (tmp_path / name, tmp_path / "w.safetensors", tmp_path / "old.safetensors"):
        assert torch.equal(begin(path)["conv1.weight"], state["conv1.weight"])


def test_checkpoints_and_exports_of_ours_are_taken(trained: Path, tmp_path: Path) -> None:
    m2sd_cli.export("safetensors", tmp_path / "out.safetensors", run=trained)
    shutil.copy(trained / "session-000.safetensors", tmp_path / "renamed.pth")
    base = begin(trained / "session-000.safetensors")
    for path in (tmp_path / "out.safetensors", tmp_path / "renamed.pth"):
        assert all(torch.equal(tensor, base[name]) for name, tensor in begin(path).items())
    assert not torch.equal(begin(trained / "pretrain.safetensors")["conv1.weight"], base["conv1.weight"])
    with pytest.raises(
        DataError, match=r"missing.*; the file holds 2 tensors: class_means \(2, 64\), shot_features \("
    ):
        begin(trained / "session-001.safetensors")


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_files_of_torchvision_are_taken(tmp_path: Path, name: str) -> None:
    theirs = models.get_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone(name).eval()
    initialise(backbone, name, str(tmp_path / "w.pth"))
    x = torch.randn(1, 3, 32, 32)
    theirs.fc = nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(backbone(x).pooled, theirs(x), rtol=0, atol=1e-4)


REFUSED: dict[str, tuple[Callable[[State], object], str]] = {
    "two networks": (
        lambda state: {**under("encoder_q.", state), **under("encoder_k.", {k: v + 1 for k, v in state.items()})},
        "the file holds more than one network, under 'encoder_q.' and 'encoder_k.'; save one of them alone",
    ),
    "a teacher": (
        lambda state: {"model": state, "model_ema": {name: each + 1 for name, each in state.items()}},
        "the file holds more than one network, under 'model/' and 'model_ema/'; save one of them alone",
    ),
    "one is missing": (
        lambda state: {"model": under("module.", {k: v for k, v in state.items() if k != "bn1.bias"}), "epoch": 3},
        r"bn1.bias is missing; the file holds model \(1\d\d tensors: module.conv1.weight, module.bn1.weight, "
        r"module.bn1.running_mean, ...\), epoch \(int\)",
    ),
    "another": (
        lambda state: {"a": torch.ones(2, 3), "b": torch.ones(1)},
        r"bn1.bias is missing; .*; the file holds 2 tensors: a \(2, 3\), b \(1,\)",
    ),
    "a list": (lambda state: [1, 2], "not a state dict of tensors: the file holds a list"),
    "nothing": (lambda state: {}, "is missing; .*; the file holds nothing"),
    "settings": (
        lambda state: {"model": state, "args": argparse.Namespace(lr=1)},
        "it holds argparse.Namespace beside tensors, which might run code, so it is not read; save its state_dict",
    ),
    "a model": (lambda state: nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear beside tensors, which might"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_says_what_is_in_the_file(tmp_path: Path, state: State, kind: str) -> None:
    make, says = REFUSED[kind]
    torch.save(make(state), tmp_path / "w.pth")
    with pytest.raises(DataError, match=says) as error:
        begin(tmp_path / "w.pth")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_a_program_is_refused_in_one_line(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(DataError, match="a TorchScript program and no state dict; save its state_dict alone"):
        begin(tmp_path / "w.pt")


def test_names_of_any_length_and_dicts_in_themselves_are_survived(tmp_path: Path, state: State) -> None:
    knot: dict[str, Any] = {"x" * 10_000: torch.ones(1), "a\nb": {}}
    knot["me"] = knot
    torch.save(knot, tmp_path / "w.pth")
    with pytest.raises(DataError, match="is missing") as error:
        begin(tmp_path / "w.pth")
    assert len(str(error.value)) < 1000
    (tmp_path / "p.pth").write_bytes(pickle.dumps(state["conv1.weight"].tolist()))
    with pytest.raises(DataError, match=r"p\.pth: "):
        begin(tmp_path / "p.pth")
