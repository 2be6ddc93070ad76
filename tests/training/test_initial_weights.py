"""The weights that stage 1 begins from are checked one by one before any is copied."""

import pytest
import torch
from torch import Tensor

from m2sd_cli.errors import UsageError
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.registry import BACKBONES, BackboneEntry, torchvision_weights
from m2sd_cli.training.initial_weights import IMAGENET, initialise, load_initial_weights


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
    assert str(error.value) == f"--init imagenet: these are weights of {others}, not of resnet20; --init none"
