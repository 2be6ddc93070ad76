"""Weights that stage 1 begins from: read without running them, checked one by one, copied all or none."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import m2sd_cli
from m2sd_cli.errors import DataError, M2sdError, UsageError
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.tables import BACKBONES, BackboneEntry, torchvision_weights
from m2sd_cli.training.initial_weights import IMAGENET, initialise, load_initial_weights
from tests.helpers import QUICK, Stripes


def own_state(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def test_initial_weights_leave_out_a_classifier_and_batch_counts() -> None:
    backbone = build_backbone("resnet20")
    state = {
        name: torch.rand_like(tensor)
        for name, tensor in backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    load_initial_weights(backbone, {**state, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)})
    for name, tensor in state.items():
        assert torch.equal(backbone.state_dict()[name], tensor)


def test_initial_weights_are_copied_not_shared() -> None:
    backbone = build_backbone("resnet20")
    state = own_state(backbone)
    load_initial_weights(backbone, state)
    state["conv1.weight"].zero_()
    assert backbone.state_dict()["conv1.weight"].abs().amax() > 0


def test_wrong_initial_weights_are_refused_by_name_and_change_nothing() -> None:
    backbone = build_backbone("resnet20")
    before = own_state(backbone)
    good = {name: tensor + 1 for name, tensor in before.items()}

    missing = {name: tensor for name, tensor in good.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(ValueError, match=r"^layer2\.0\.conv1\.weight is missing$"):
        load_initial_weights(backbone, missing)
    with pytest.raises(ValueError, match=r"^'layer9\.weight' does not belong there$"):
        load_initial_weights(backbone, {**good, "layer9.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"^bn1\.bias has not the shape \(16,\)$"):
        load_initial_weights(backbone, {**good, "bn1.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"^layer2\.0\.conv1\.weight is missing; bn1\.bias has .*; 'layer9\.weight' "):
        load_initial_weights(backbone, {**missing, "bn1.bias": torch.zeros(3), "layer9.weight": torch.zeros(1)})

    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("tensor", "mismatch"),
    [
        (torch.zeros(16, dtype=torch.complex64), "is complex64, not float32"),
        (torch.zeros(16, dtype=torch.int64), "is int64, not float32"),
        (torch.zeros(16).to_sparse(), "is not made of plain numbers"),
        (torch.zeros(16, device="meta"), "is not made of plain numbers"),
        (torch.full((16,), float("nan")), "holds a number that is not finite"),
        (torch.full((16,), 1e300, dtype=torch.float64), "holds a number that is not finite"),
    ],
)
def test_initial_weights_of_another_kind_are_refused(tensor: Tensor, mismatch: str) -> None:
    backbone = build_backbone("resnet20")
    with pytest.raises(ValueError, match=rf"^bn1\.bias {mismatch}$"):
        load_initial_weights(backbone, {**own_state(backbone), "bn1.bias": tensor})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_initial_weights_may_be_wider_or_narrower(dtype: torch.dtype) -> None:
    backbone = build_backbone("resnet20")
    load_initial_weights(backbone, {**own_state(backbone), "bn1.bias": torch.full((16,), 0.5).to(dtype)})
    assert backbone.state_dict()["bn1.bias"].tolist() == [0.5] * 16


def test_a_long_list_of_wrong_weights_is_cut() -> None:
    expected = len([name for name in build_backbone("resnet18").state_dict() if "num_batches" not in name])
    with pytest.raises(ValueError, match=rf"^bn1\.bias is missing; .*; .* and {expected - 3} more$"):
        load_initial_weights(build_backbone("resnet18"), {})


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_imagenet_weights_are_those_of_the_table(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def download(weights: object, **_: object) -> dict[str, Tensor]:
        asked.append(str(weights))
        print("Downloading", name)
        return {**own_state(build_backbone(name)), "bn1.bias": torch.full((64,), 0.5)}

    monkeypatch.setattr("torchvision.models.WeightsEnum.get_state_dict", download)
    backbone = build_backbone(name)
    initialise(backbone, name, IMAGENET)
    assert asked == [f"{name.replace('resnet', 'ResNet')}_Weights.IMAGENET1K_V1"]
    assert backbone.state_dict()["bn1.bias"].tolist() == [0.5] * 64
    assert capsys.readouterr() == ("", f"Downloading {name}\n")


def test_a_backbone_without_imagenet_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        BACKBONES.entries, "mine", BackboneEntry("mine:build", "Mine", torchvision_weights("ResNet18_Weights"))
    )
    with pytest.raises(UsageError) as error:
        initialise(build_backbone("resnet20"), "resnet20", IMAGENET)
    others = "resnet18, resnet34, resnet50, efficientnet-lite0, mine"
    assert str(error.value) == f"--init imagenet: no weights of resnet20; choose --backbone {others}, or --init none"


@pytest.mark.parametrize("end", ["safetensors", "pth"])
def test_weights_from_a_file(trained: Path, stripes: Stripes, tmp_path: Path, end: str) -> None:
    weights = {
        name.removeprefix("backbone."): tensor
        for name, tensor in load_file(trained / "pretrain.safetensors").items()
        if name.startswith("backbone.")
    }
    file = tmp_path / f"weights.{end}"
    if end == "pth":
        torch.save(weights, file)
    else:
        save_file(weights, file)
    rate: Any = QUICK | {"learning_rate": 1e-30, "weight_decay": 0.0}
    stored = m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", init=str(file), **rate)
    assert stored is not None
    assert stored.manifest.config["init"] == f"weights.{end}"
    begun = load_file(tmp_path / "run" / "pretrain.safetensors")
    parameters = [name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert parameters
    assert all(torch.equal(begun[f"backbone.{name}"], weights[name]) for name in parameters)


def test_weights_named_in_a_file_of_options_leave_no_path(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    save_file(
        {
            name.removeprefix("backbone."): tensor
            for name, tensor in load_file(trained / "pretrain.safetensors").items()
            if name.startswith("backbone.")
        },
        tmp_path / "weights.safetensors",
    )
    config = tmp_path / "options.toml"
    config.write_text(f"[pretrain]\ninit = {str(tmp_path / 'weights.safetensors')!r}\n")
    stored = m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", config=config, **QUICK)
    assert stored is not None
    assert str(tmp_path) not in (tmp_path / "run" / "pretrain.json").read_text()


class Harmful:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return print, ("this must not run",)


def test_weights_that_cannot_be_used_are_refused(
    stripes: Stripes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(name: str) -> str:
        with pytest.raises(M2sdError) as raised:
            m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", init=str(tmp_path / name), **QUICK)
        assert isinstance(raised.value, DataError)
        assert not (tmp_path / "run").exists()
        return str(raised.value)

    assert "no such file" in refused("absent.pth")
    (tmp_path / "text.safetensors").write_text("weights")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps({"x": Harmful()}))
    torch.save({"x": Harmful()}, tmp_path / "harmful.zip.pth")
    torch.save({"x": 1}, tmp_path / "number.pth")
    torch.save({1: torch.ones(1)}, tmp_path / "numbered.pth")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    for name in (
        *("text.safetensors", "text.pth", "harmful.pth", "harmful.zip.pth", "number.pth", "numbered.pth"),
        *("folder.pth", "pipe.pth"),
    ):
        assert name in refused(name)
    assert "must not run" not in capsys.readouterr().out
    save_file({"conv.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    assert "not the weights of this backbone" in refused("other.safetensors")
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    for whole in ("other.safetensors", "other.pth"):
        for share in (0, 0.5):
            content = (tmp_path / whole).read_bytes()
            (tmp_path / f"cut {whole}").write_bytes(content[: int(share * len(content))])
            assert "not a state dict that torch.save or safetensors has written, or cut off" in refused(f"cut {whole}")


def test_weights_that_are_too_large_are_refused_before_they_are_read(stripes: Stripes, tmp_path: Path) -> None:
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(2**40)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for number in range(5):
            bomb.writestr(f"data/{number}", bytes(2**20))
    content = bytearray((tmp_path / "bomb.pth").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(
        4, "little"
    )  # what it says that the first unpacks to
    (tmp_path / "bomb.pth").write_bytes(content)
    for name in ("large.pth", "bomb.pth"):
        with pytest.raises(DataError, match=f"{name}: larger than any weights"):
            m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", init=str(tmp_path / name), **QUICK)
    assert not (tmp_path / "run").exists()


def test_what_was_downloaded_is_opened_without_running_it(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    for content, complaint in ((Harmful(), "damaged .*; remove resnet18"), (1, "not a state dict of tensors")):
        torch.save(content, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
        with pytest.raises(DataError, match=f"--init imagenet: .*{complaint}"):
            m2sd_cli.pretrain(
                str(stripes.folder), run=tmp_path / "run", init="imagenet", **QUICK | {"backbone": "resnet18"}
            )
    assert "must not run" not in capsys.readouterr().out


def test_weights_of_imagenet_that_cannot_be_fetched(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.ResNet18_Weights.get_state_dict", offline)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    says = (
        rf"https://\S+\.pth could not be downloaded \(no network\); save it in {re.escape(str(tmp_path))}/checkpoints"
    )
    with pytest.raises(DataError, match=says):
        m2sd_cli.pretrain(
            str(stripes.folder), run=tmp_path / "run", init="imagenet", **QUICK | {"backbone": "resnet18"}
        )
    with pytest.raises(DataError, match=says):  # an option --init is not there
        m2sd_cli.learn(stripes.folder, run=tmp_path / "run", backbone="resnet18", device="cpu")
    assert not (tmp_path / "run").exists()
