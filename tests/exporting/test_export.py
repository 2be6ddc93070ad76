"""Each exported file answers as the session does, and says how to feed it."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import m2sd_cli
from m2sd_cli.data.folders import read_shots
from m2sd_cli.errors import M2sdError, RunError, UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, ExportFormat
from m2sd_cli.exporting.export import export_session
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.heads import Head
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import QUICK, Stripes, tree

FORMS = ("safetensors", "onnx", "pt2")
CLASSES = ["blue", "green", "red", "yellow", "purple", "white", "grey"]


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The newest session in each format, each alone in a folder."""
    return {form: m2sd_cli.export(form, tmp_path_factory.mktemp(form) / f"model.{form}", run=trained) for form in FORMS}


@pytest.fixture(scope="module")
def program(exported: dict[str, Path]) -> Callable[..., Any]:
    """Load the network of the pt2 file once."""
    loaded: Callable[..., Any] = torch.export.load(exported["pt2"]).module()
    return loaded


@pytest.fixture
def model(trained: Path) -> SessionModel:
    return load_session(RunFolder(trained))


@pytest.fixture
def images(model: SessionModel, stripes: Stripes) -> Tensor:
    pixels, _ = next(iter(read_shots(stripes.labelled).source.batches(model.transform, 99)))
    assert pixels.shape == (14, 3, 16, 16)
    return pixels


def described(exported: dict[str, Path], form: str) -> dict[str, Any]:
    path = exported[form]
    if form == "onnx":
        text = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["m2sd"]
    elif form == "pt2":
        extra = {"m2sd": ""}
        torch.export.load(path, extra_files=extra)
        text = extra["m2sd"]
    else:
        with safe_open(path, "pt") as file:
            text = file.metadata()["m2sd"]
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_formats_are_those_that_are_tested() -> None:
    assert EXPORT_FORMATS.names() == (*FORMS, "hub")


def test_a_format_of_the_table_is_in_help_and_completion_and_can_be_chosen(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ExportFormat(lambda model, text: f"{model.classes} {len(text)}".encode())
    monkeypatch.setitem(EXPORT_FORMATS.entries, "toy", entry)
    command = runpy.run_path(str(Path(m2sd_cli.__file__).parent / "cli" / "export.py"))["export"]
    (option,) = command.__annotations__["form"].__metadata__
    assert option.help == "Format: safetensors, onnx, pt2, hub or toy."
    assert option.autocompletion("t") == ["toy"]
    assert option.callback("toy") == "toy"
    path = m2sd_cli.export("toy", tmp_path / "model.toy", run=trained)
    assert path.read_text().startswith(f"{CLASSES} ")


@pytest.mark.parametrize("form", FORMS)
def test_it_is_one_file(exported: dict[str, Path], form: str) -> None:
    assert list(exported[form].parent.iterdir()) == [exported[form]]


@pytest.mark.parametrize("form", FORMS)
def test_it_carries_classes_and_preprocessing(exported: dict[str, Path], form: str) -> None:
    said = described(exported, form)
    assert said["classes"] == CLASSES
    assert said["session"] == 2
    assert (said["backbone"], said["feature_width"], said["classifier"]) == ("resnet20", 64, "fecam")
    assert said["head"] == {"features": {"kind": "power", "power": 0.5}, "rows": "linear", "scale": 1}
    assert said["familiarity"] == {"kind": "distance", "features": {"kind": "power", "power": 0.5}}
    assert (said["temperature"], said["calibrated"], said["unknown_below"]) == (1, False, None)
    preprocessing = said["preprocessing"]
    assert (preprocessing["resize"], preprocessing["centre_crop"]) == (18, 16)
    assert preprocessing["resize_what"] == "the short side, keeping the aspect"
    assert preprocessing["mean"] == [0.485, 0.456, 0.406]
    assert preprocessing["std"] == [0.229, 0.224, 0.225]


def test_safetensors_hold_backbone_and_class_means(exported: dict[str, Path], model: SessionModel) -> None:
    with safe_open(exported["safetensors"], "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert torch.equal(tensors.pop("class_means"), model.means)
    assert isinstance(model.head, Head)
    assert torch.equal(tensors.pop("head.rows"), model.head.rows)
    assert model.head.bias is not None
    assert torch.equal(tensors.pop("head.bias"), model.head.bias)
    assert model.familiarity is not None
    for name, value in model.familiarity.state_dict().items():
        assert torch.equal(tensors.pop(f"familiarity.{name}"), value)
    state = model.backbone.state_dict()
    assert tensors.keys() == {f"backbone.{name}" for name in state}
    assert all(torch.equal(tensors[f"backbone.{name}"], state[name]) for name in state)


@pytest.mark.parametrize("batch", [1, 2, 5, 14])
def test_pt2_answers_as_we_do(
    program: Callable[..., tuple[Tensor, Tensor]], model: SessionModel, images: Tensor, batch: int
) -> None:
    logits, scores = program(images[:batch])
    assert scores.shape == (batch,)
    wanted = model.classify(model.embed(images[:batch]))
    assert logits.shape == (batch, 7)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.1  # so that the comparison means something


@pytest.mark.parametrize("batch", [1, 2, 5, 14])
def test_onnxruntime_answers_as_we_do(
    exported: dict[str, Path], model: SessionModel, images: Tensor, batch: int
) -> None:
    session = onnxruntime.InferenceSession(exported["onnx"])
    (given,), (returned, score) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type) == ("images", "tensor(uint8)")
    assert given.shape[1:] == [3, 16, 16]
    assert not isinstance(given.shape[0], int)
    assert (returned.name, score.name) == ("logits", "score")
    logits, _ = session.run(None, {"images": images[:batch].numpy()})
    wanted = model.classify(model.embed(images[:batch]))
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=0, atol=1e-4)


def test_the_onnx_file_is_valid_and_needs_no_other(exported: dict[str, Path]) -> None:
    proto = onnx.load(exported["onnx"], load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert not [each.name for each in proto.graph.initializer if each.external_data]


def test_an_earlier_session_can_be_exported(
    trained: Path, images: Tensor, tmp_path: Path, load_one_layer: Callable[..., SessionModel]
) -> None:
    path = m2sd_cli.export("pt2", tmp_path / "base.pt2", run=trained, session=0)
    base = load_one_layer(RunFolder(trained), 0)
    assert described({"pt2": path}, "pt2")["classes"] == CLASSES[:4]
    logits, _ = torch.export.load(path).module()(images[:3])
    torch.testing.assert_close(logits, base.classify(base.embed(images[:3])), rtol=0, atol=1e-4)


def test_linear_class_weights_are_exported_too(
    stripes: Stripes, images: Tensor, tmp_path: Path, load_one_layer: Callable[..., SessionModel]
) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(str(stripes.folder), run=run, similarity="linear", **QUICK)
    m2sd_cli.distill(str(stripes.folder), run=run, epochs=0, device="cpu")
    model = load_one_layer(RunFolder(run))
    assert model.record.similarity == "linear"
    path = m2sd_cli.export("onnx", tmp_path / "linear.onnx", run=run)
    logits, _ = onnxruntime.InferenceSession(path).run(None, {"images": images[:2].numpy()})
    wanted = model.classify(model.embed(images[:2]))
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=1e-4)


def test_exporting_changes_nothing_in_the_run(run: Path, tmp_path: Path) -> None:
    before = tree(run)
    m2sd_cli.export("safetensors", tmp_path / "model.safetensors", run=run)
    assert tree(run) == before


def test_an_existing_file_is_not_silently_replaced(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"model\.safetensors: it exists already; --force replaces it"):
        m2sd_cli.export("safetensors", path, run=trained)
    assert path.read_text() == "mine"
    m2sd_cli.export("safetensors", path, run=trained, force=True)
    with safe_open(path, "pt") as file:
        assert "class_means" in file.keys()  # noqa: SIM118


def test_what_cannot_be_exported_is_said(trained: Path, model: SessionModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder as"):
        m2sd_cli.export("pt2", tmp_path / "absent" / "model.pt2", run=trained)
    with pytest.raises(RunError, match="no session 3 in it"):
        m2sd_cli.export("pt2", tmp_path / "model.pt2", run=trained, session=3)
    with pytest.raises(RunError, match="no such run folder"):
        m2sd_cli.export("pt2", tmp_path / "model.pt2", run=tmp_path / "absent")
    with pytest.raises(UsageError, match="--format tflite: choose safetensors, onnx, pt2"):
        export_session(model, "tflite", tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_the_packages_for_onnx_may_be_missing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(M2sdError, match=r"pip install .*\[onnx\]'?$") as raised:
        m2sd_cli.export("onnx", tmp_path / "model.onnx", run=trained)
    assert raised.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("load_one_layer")
def test_nothing_is_printed(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    m2sd_cli.export("onnx", tmp_path / "model.onnx", run=trained)
    assert capfd.readouterr() == ("", "")
