"""A quantised file answers nearly as the plain one, and the difference is measured."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.folders import read_shots
from m2sd_cli.errors import M2sdError
from m2sd_cli.exporting.deployed import description
from m2sd_cli.exporting.export import to_onnx
from m2sd_cli.exporting.quantization import measure_loss, quantize
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.calibration import Confidence
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, check_refusal, tree


@pytest.fixture(scope="module")
def plain_files() -> dict[str, bytes]:
    """Keep each plain file, which takes seconds to make, under its description."""
    return {}


@pytest.fixture(autouse=True)
def small(
    plain_files: dict[str, bytes], load_one_layer: Callable[..., SessionModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(model: SessionModel, text: str) -> bytes:
        if text not in plain_files:
            plain_files[text] = to_onnx(model, text)
        return plain_files[text]

    monkeypatch.setattr("m2sd_cli.api.quantize.load_session", load_one_layer)
    monkeypatch.setattr("m2sd_cli.api.quantize.to_onnx", kept)


def answers(content: bytes, images: Tensor) -> tuple[Tensor, Tensor]:
    logits, scores = onnxruntime.InferenceSession(content).run(None, {"images": images.numpy()})
    return torch.from_numpy(logits), torch.from_numpy(scores)


def test_the_ranges_are_those_of_held_out_images(
    calibrated: Path, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[DataSet] = []

    def stop(_model: SessionModel, data: DataSet) -> Iterator[Tensor]:
        seen.append(data)
        raise M2sdError("seen")

    monkeypatch.setattr("m2sd_cli.api.quantize._calibration", stop)
    for run in (calibrated, simulated):
        with pytest.raises(M2sdError, match="seen"):
            m2sd_cli.quantize(tmp_path / "x.onnx", run=run)
        kept = BaseCheckpoint.read(RunFolder(run), RunFolder(run).summary().base).held_out
        assert kept is not None
        assert seen[-1].held_out is not None
        assert len(seen[-1].held_out) == len(kept.labels) > 0


def test_the_file_is_quantised_and_described(
    calibrated: Path, stripes: Stripes, tmp_path: Path, load_one_layer: Callable[..., SessionModel]
) -> None:
    loss = m2sd_cli.quantize(tmp_path / "x.onnx", run=calibrated, test=stripes.labelled)
    content = (tmp_path / "x.onnx").read_bytes()
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert "QuantizeLinear" in {node.op_type for node in proto.graph.node}
    assert [each.data_type for each in proto.graph.initializer].count(onnx.TensorProto.INT8) >= 1
    (text,) = (each.value for each in proto.metadata_props if each.key == "m2sd")
    model = load_one_layer(RunFolder(calibrated))
    described = json.loads(text)
    assert described.pop("quantization")["images"] == loss.images == 12  # of the 14 the two orange ones are unknown
    assert described == json.loads(json.dumps(description(model)))
    images, labels = next(iter(read_shots(stripes.labelled).source.batches(model.transform, 99)))
    logits, scores = answers(content, images)
    features = model.embed(images)
    wanted = model.confidence.tempered(model.classify(features)).float()
    assert not torch.equal(logits, wanted)
    spread = float(wanted.std())
    assert float((logits - wanted).square().mean().sqrt()) < 0.2 * spread
    names = read_shots(stripes.labelled).classes
    places = torch.tensor([model.places().get(names[label], -1) for label in labels.tolist()])
    known = places >= 0
    for figure, found in ((loss.int8, logits), (loss.plain, wanted)):
        assert figure == pytest.approx(100 * float((found.argmax(dim=1) == places)[known].float().mean()))
    below = model.confidence.unknown_below
    assert loss.int8_unknown == pytest.approx(100 * float((scores < (below or 0))[known].float().mean()))
    assert loss.same == pytest.approx(100 * float((logits.argmax(1) == wanted.argmax(1))[known].float().mean()))
    for batch in (1, 3):
        assert torch.allclose(answers(content, images[:batch])[0], logits[:batch], atol=1e-3)


def test_a_loss_is_seen(
    trained: Path, plain_files: dict[str, bytes], load_one_layer: Callable[..., SessionModel]
) -> None:
    model = load_one_layer(RunFolder(trained))
    plain = plain_files["{}"] = to_onnx(model, "{}")
    wrong = onnx.load_from_string(plain)
    (logits,) = (node for node in wrong.graph.node if "logits" in node.output)
    logits.output[0] = "other"
    wrong.graph.node.append(onnx.helper.make_node("Neg", ["other"], ["logits"]))
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    right = answers(plain, images)[0].argmax(dim=1)
    batches = [(images[:8], right[:8]), (images[8:], right[8:])]
    loss = measure_loss(plain, wrong.SerializeToString(), batches, Confidence())
    assert (loss.images, loss.plain, loss.int8, loss.same) == (9, 100, 0, 0)
    assert (loss.plain_unknown, loss.int8_unknown) == (None, None)
    assert measure_loss(plain, plain, batches, Confidence(1, 1e9)).plain_unknown == 100


def test_the_ranges_are_those_of_the_images_given(trained: Path, load_one_layer: Callable[..., SessionModel]) -> None:
    plain = to_onnx(load_one_layer(RunFolder(trained)), "{}")
    bright, dark = (torch.full((2, 3, 16, 16), value, dtype=torch.uint8) for value in (255, 100))
    assert quantize(plain, [bright, dark]) != quantize(plain, [dark])


def test_the_loss_is_printed(calibrated: Path, tmp_path: Path, m2sd: Cli) -> None:
    words = ["export", "--quantize", "int8", "--run", calibrated, "--out", tmp_path / "x.onnx"]
    done = m2sd(*words)
    assert done.code == 0, done.err
    heading, plain, int8, last = done.out.splitlines()
    assert heading.split() == ["numbers", "top-1", "unknown", "MB"]
    assert (plain.split()[0], int8.split()[0]) == ("float32", "int8")
    assert last.startswith("int8 changes top-1 by ")
    assert "points on 12 test images; " in last
    assert f"wrote {tmp_path / 'x.onnx'}" in done.err
    check_refusal(m2sd(*words), 2, "it exists already; --force replaces it")
    document = json.loads(m2sd(*words, "--force", "--json", "-q").out)
    assert document.keys() == {"file", "format", "bytes", "quantization"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--quantize int4 --out X.onnx", "--quantize int4: choose int8"),
        ("--quantize int8 --out X.pt2", "it is for --format onnx; leave one out"),
        ("--quantize int8 --out X.onnx --license mit", "it is for --format hub; leave it out"),
    ],
)
def test_what_is_refused(run: Path, tmp_path: Path, words: str, says: str, m2sd: Cli) -> None:
    before = tree(tmp_path)
    done = m2sd("export", "--run", run, *words.replace("X", str(tmp_path / "x")).split())
    check_refusal(done, 2, says)
    assert tree(tmp_path) == before


def test_base_images_have_to_be_there(run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    (run / "places.json").unlink(missing_ok=True)
    words = ["export", "--quantize", "int8", "--run", run, "--out", tmp_path / "x.onnx"]
    check_refusal(m2sd(*words, "--test", stripes.labelled), 2, "say where it is with --data")
    check_refusal(m2sd(*words, "--test", stripes.second_shots.parent / "none"), 3, "no such")
    assert not (tmp_path / "x.onnx").exists()
    assert m2sd(*words, "--test", stripes.labelled, "--data", stripes.folder).code == 0


def test_no_known_test_image_is_said(trained: Path, tmp_path: Path, stripes: Stripes, m2sd: Cli) -> None:
    (tmp_path / "own" / "ship").mkdir(parents=True)
    image = next((stripes.labelled / "blue").iterdir())
    (tmp_path / "own" / "ship" / "1.png").write_bytes(image.read_bytes())
    words = ["--run", trained, "--out", tmp_path / "x.onnx", "--test", tmp_path / "own"]
    check_refusal(m2sd("export", "--quantize", "int8", *words), 3, "no test image of a class that the model knows")


def test_the_package_may_be_missing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(M2sdError, match=r"--quantize int8 needs more packages: pip install .*\[quantize\]'?$"):
        m2sd_cli.quantize(tmp_path / "x.onnx", run=trained)
    assert list(tmp_path.iterdir()) == []


def test_it_loads_the_session_that_is_asked_for(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    m2sd_cli.quantize(tmp_path / "x.onnx", run=trained, session=0, data=stripes.folder)
    text = onnxruntime.InferenceSession(tmp_path / "x.onnx").get_modelmeta().custom_metadata_map["m2sd"]
    assert json.loads(text)["classes"] == load_session(RunFolder(trained), 0).classes
