"""The three kinds of checkpoint: what is written is read again, and anything else is refused by its name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint, PretrainCheckpoint, build_recorded
from m2sd_cli.errors import DamagedError
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.method.base_statistics import BaseSums, HeldOut
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES, BackboneEntry
from tests.helpers import OneLayer

CLASSES, WIDTH = 3, 64
FEATURES, LABELS = torch.rand(6, WIDTH, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1, 0])


def backbone() -> Backbone:
    return build_backbone("resnet20")


def base(held_out: HeldOut | None) -> BaseCheckpoint:
    sums = BaseSums(torch.bincount(LABELS), WIDTH)
    sums.add(FEATURES, LABELS)
    return BaseCheckpoint(backbone(), sums.means.means(), sums.statistics(), held_out)


def require_same(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def test_the_network_of_stage_1_comes_back() -> None:
    checkpoint = PretrainCheckpoint(backbone(), torch.rand(CLASSES, WIDTH))
    again = PretrainCheckpoint.from_tensors(checkpoint.tensors(), backbone(), CLASSES)
    require_same(again.tensors(), checkpoint.tensors())
    assert torch.equal(again.weight, checkpoint.weight)
    assert not again.backbone.training


@pytest.mark.parametrize("held_out", [None, HeldOut(FEATURES, LABELS)], ids=["none", "six"])
def test_the_base_session_comes_back(held_out: HeldOut | None) -> None:
    checkpoint = base(held_out)
    again = BaseCheckpoint.from_tensors(checkpoint.tensors(), backbone(), CLASSES)
    require_same(again.tensors(), checkpoint.tensors())
    assert (again.held_out is None) == (held_out is None)
    assert not again.backbone.training


def test_the_shots_of_a_session_come_back_class_by_class() -> None:
    checkpoint = IncrementCheckpoint(torch.rand(2, WIDTH), [FEATURES[:2], FEATURES[2:]])
    again = IncrementCheckpoint.from_tensors(checkpoint.tensors(), [2, 4], WIDTH)
    require_same(again.tensors(), checkpoint.tensors())
    assert [len(each) for each in again.shots] == [2, 4]
    with pytest.raises(ValueError, match=r"shot_features has not the shape \(5, 64\)"):
        IncrementCheckpoint.from_tensors(checkpoint.tensors(), [1, 4], WIDTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("backbone.bn1.weight"), r"backbone\.bn1\.weight is missing"),
        (lambda tensors: tensors.pop("class_means"), "class_means is missing"),
        (lambda tensors: tensors.pop("statistics.projection"), r"statistics\.projection is missing"),
        (lambda tensors: tensors.update({"classifier.weight": FEATURES}), r"'classifier\.weight' does not belong"),
        (lambda tensors: tensors["class_means"].fill_(torch.inf), "class_means holds a number that is not finite"),
        (lambda tensors: tensors["held_out_labels"].fill_(CLASSES), "held_out_labels names a class that is not there"),
        (lambda tensors: tensors.pop("held_out_features"), "held_out_features is missing"),
    ],
)
def test_another_content_is_refused(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in base(HeldOut(FEATURES, LABELS)).tensors().items()}
    change(tensors)
    with pytest.raises(ValueError, match=message):
        BaseCheckpoint.from_tensors(tensors, backbone(), CLASSES)


def test_a_backbone_is_loaded_and_not_initialised(trained: Path) -> None:
    folder = RunFolder(trained)
    stored = folder.session(0)
    before = torch.get_rng_state()
    checkpoint = BaseCheckpoint.read(folder, stored)
    assert torch.equal(torch.get_rng_state(), before)
    require_same(checkpoint.tensors(), folder.tensors(stored))
    assert all(parameter.requires_grad for parameter in checkpoint.backbone.parameters())


class Constant(OneLayer):
    """A backbone of a plug-in with a constant that no file has."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.empty(3).normal_(generator=torch.Generator().manual_seed(1))
        self.register_buffer("shift", drawn, persistent=False)


def test_a_constant_that_no_file_has_is_drawn(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES.entries, "resnet20", BackboneEntry(Constant, "Constant"))
    folder = RunFolder(trained)
    backbone = build_recorded(folder, folder.pretrain())
    assert torch.equal(backbone.get_buffer("shift"), Constant().get_buffer("shift"))


def test_one_kind_is_not_read_as_another(trained: Path) -> None:
    folder = RunFolder(trained)
    with pytest.raises(DamagedError, match=r"session-000\.safetensors: not the checkpoint .*: classifier\.weight"):
        PretrainCheckpoint.read(folder, folder.session(0))
    with pytest.raises(DamagedError, match=r"pretrain\.safetensors: not the checkpoint that its manifest names: "):
        BaseCheckpoint.read(folder, folder.pretrain())


@pytest.mark.parametrize(
    ("plugins", "hint"),
    [
        ({}, ""),
        ({"transformer": "vision 1.2"}, "; it comes from vision 1.2, which has to be installed"),
        ({"transformer": 1000 * "v"}, f"; it comes from {80 * 'v'}..., which has to be installed"),
    ],
)
def test_a_backbone_that_is_not_known_is_named_with_its_package(run: Path, plugins: dict[str, str], hint: str) -> None:
    folder = RunFolder(run)
    manifest = folder.session(0).manifest
    other = manifest.backbone.model_copy(update={"name": "transformer"})
    folder.write_manifest("session-000", manifest.model_copy(update={"backbone": other, "plugins": plugins}))
    with pytest.raises(DamagedError) as raised:
        BaseCheckpoint.read(folder, folder.session(0))
    assert str(raised.value) == f"{run}/session-000.json: this version knows no backbone 'transformer'{hint}"
