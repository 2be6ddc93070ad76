"""Sessions that compare the means of several maps of the network."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import m2sd_cli
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.folders import read_shots
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.exporting.hub import model as standalone
from m2sd_cli.inference.explanation import explain
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.feature_maps import PowerFeatures
from m2sd_cli.method.heads import Head, NetworkHead
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import CLASSIFIERS, ClassifierEntry
from tests.helpers import QUICK_DISTILL, Stripes, finished

OPTIONS: dict[str, Any] = {**QUICK_DISTILL, "views": 2, "classifier": "quadratic"}
WIDTHS = {1: 64, 2: 64 + 32, 3: 64 + 32 + 16, 4: 64 + 32 + 16 + 16}


@pytest.fixture(scope="module")
def two(calibrated: Path, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train stage 2 of a calibrated run anew, with two levels, and teach its sessions."""
    return taught(calibrated, stripes, tmp_path_factory.mktemp("two") / "run", 2)


def taught(source: Path, stripes: Stripes, run: Path, levels: int) -> Path:
    shutil.copytree(source, run)
    RunFolder(run).remove_sessions(first=0)
    m2sd_cli.distill(str(stripes.folder), run=run, levels=levels, **OPTIONS)
    for session, shots in enumerate((stripes.first_shots, stripes.second_shots), start=1):
        m2sd_cli.increment(session, shots, run=run, device="cpu")
    return run


@pytest.fixture
def model(two: Path) -> SessionModel:
    return load_session(RunFolder(two))


@pytest.fixture
def images(model: SessionModel, stripes: Stripes) -> Tensor:
    pixels, _ = next(iter(read_shots(stripes.labelled).source.batches(model.transform, 99)))
    return pixels


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@torch.inference_mode()
def test_a_feature_is_the_means_of_the_last_maps_side_by_side(levels: int) -> None:
    torch.manual_seed(levels)
    backbone = build_backbone("resnet20").double().eval()
    x = torch.randn(3, 3, 20, 16, dtype=torch.float64)
    maps = backbone(x).maps
    backbone.pooled_levels = levels
    found = backbone.session_feature(x)
    assert found.shape == (3, WIDTHS[levels]) == (3, backbone.session_width)
    for image in range(3):
        wanted = []
        for phi in [*reversed(maps)][:levels]:
            for channel in phi[image]:
                values = [value for row in channel.tolist() for value in row]
                wanted.append(sum(values) / len(values))
        torch.testing.assert_close(found[image], torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(backbone.for_inference().session_feature(x), found, rtol=1e-9, atol=1e-9)


def test_a_session_keeps_them(two: Path, model: SessionModel, images: Tensor) -> None:
    folder = RunFolder(two)
    first, base = folder.pretrain().manifest, folder.session(0).manifest
    assert (first.backbone.levels, first.backbone.width) == (1, 64)
    assert (base.backbone.levels, base.backbone.width, base.config["levels"]) == (2, 64, 2)
    assert folder.verify() == []
    backbone = build_backbone("resnet20")
    backbone.load_state_dict(BaseCheckpoint.read(folder, folder.session(0)).backbone.state_dict())
    total = torch.zeros(len(images), 96, dtype=torch.float64)
    with torch.inference_mode():
        for view in (images, images.flip(3)):
            maps = backbone.double().eval()(model.transform.normalise(view).double()).maps
            total += torch.cat([maps[3].mean(dim=(2, 3)), maps[2].mean(dim=(2, 3))], dim=1)
    torch.testing.assert_close(model.embed(images).double(), total / 2, rtol=1e-4, atol=1e-5)
    assert model.means.shape == (7, 96)


@pytest.mark.parametrize("classifier", CLASSIFIERS.names())
def test_every_classifier_answers(two: Path, stripes: Stripes, classifier: str) -> None:
    sessions = m2sd_cli.evaluate(run=two, test=stripes.labelled, classifier=classifier, device="cpu").figures.sessions
    assert len(sessions) == 3
    assert all(each.overall is not None and each.overall > 100 / 7 for each in sessions)


@pytest.mark.parametrize("classifier", ["means", "teen"])
def test_cosines_and_the_score_of_unknown_images_are_of_phi_alone(
    two: Path, images: Tensor, calibrated: Path, stripes: Stripes, tmp_path: Path, classifier: str
) -> None:
    logits, scores, thresholds = [], [], []
    for folder in (taught(calibrated, stripes, tmp_path / "run", 1), two):
        model = load_session(RunFolder(folder), classifier=classifier)
        features = model.embed(images)
        logits.append(model.classify(features))
        scores.append(model.recognise(features, logits[-1]))
        thresholds.append(model.confidence.unknown_below)
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(scores[1], scores[0])
    assert thresholds[1] == pytest.approx(thresholds[0], rel=1e-4)
    assert described(two, tmp_path, classifier)["head"]["features"] == {"kind": "plain", "width": 64}


def described(run: Path, folder: Path, classifier: str) -> Any:
    path = m2sd_cli.export("safetensors", folder / "a.safetensors", run=run, classifier=classifier)
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["m2sd"])


def test_exported_files_answer_as_the_session(two: Path, model: SessionModel, images: Tensor, tmp_path: Path) -> None:
    wanted = model.confidence.tempered(model.classify(model.embed(images)))
    program: Any = torch.export.load(m2sd_cli.export("pt2", tmp_path / "a.pt2", run=two)).module()
    session = onnxruntime.InferenceSession(m2sd_cli.export("onnx", tmp_path / "a.onnx", run=two))
    alone = standalone.Model(m2sd_cli.export("hub", tmp_path / "hub", run=two))
    for found in (
        program(images)[0],
        torch.from_numpy(session.run(None, {"images": images.numpy()})[0]),
        alone(images)[0],
    ):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-3)
    assert wanted.std() > 0.1


@pytest.mark.parametrize(("classifier", "scale"), [("means", 16.0), ("quadratic", 1.0)])
def test_a_heat_map_is_of_the_last_map(two: Path, images: Tensor, classifier: str, scale: float) -> None:
    model = load_session(RunFolder(two), classifier=classifier)
    classes = torch.arange(7).expand(len(images), 7)
    maps = explain(model, images, classes)
    phi, rows = model.embed(images)[:, :64].double(), model.means[:, :64].double()
    wanted = scale * torch.nn.functional.cosine_similarity(phi[:, None], rows[None], dim=2)
    torch.testing.assert_close(maps.mean(dim=(2, 3)).double(), wanted, rtol=1e-5, atol=1e-4)


def test_it_is_resumed_reproduced_and_shown(two: Path, stripes: Stripes, calibrated: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(calibrated, tmp_path / "run"))
    RunFolder(run).remove_sessions(first=0)
    assert m2sd_cli.distill(str(stripes.folder), run=run, levels=2, stop_after=0, **OPTIONS) is None
    again = finished(m2sd_cli.distill(run=run, resume=True, device="cpu")).manifest
    assert again.checkpoint.sha256 == RunFolder(two).session(0).manifest.checkpoint.sha256
    shots = {1: stripes.first_shots, 2: stripes.second_shots}
    assert m2sd_cli.reproduce(run=two, data=str(stripes.folder), shots=shots, device="cpu").same
    page = m2sd_cli.report(run=two, data=stripes.folder, shots=shots, device="cpu")
    assert "resnet20, 64 features and the means of 1 earlier map, cosine" in page


@pytest.mark.parametrize("kind", ["rows", "map", "module"])
def test_a_classifier_of_ones_own_may_be_of_phi_alone(
    two: Path, model: SessionModel, images: Tensor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(known: KnownClasses, similarity: str, scale: float) -> nn.Module:
        rows = torch.cat([known.base, known.new])
        assert rows.shape[1] == 64
        if kind == "map":
            return Head(rows.sqrt(), similarity, scale, features=PowerFeatures(0.5))
        head = Head(rows, similarity, scale)
        return head if kind == "rows" else nn.Sequential(nn.Identity(), head)

    monkeypatch.setitem(CLASSIFIERS.entries, "own", ClassifierEntry(build, levels=False))
    features = model.embed(images)
    rows, phi = model.means[:, :64], features[:, :64]
    if kind == "map":
        rows, phi = rows.sqrt(), phi.sqrt()
    found = load_session(RunFolder(two), classifier="own")
    wanted = model.record.scale * torch.nn.functional.cosine_similarity(phi[:, None], rows[None], dim=2)
    torch.testing.assert_close(found.classify(features), wanted, rtol=1e-4, atol=1e-4)
    assert isinstance(found.head, Head if kind == "rows" else NetworkHead)


def test_a_contract_is_kept_with_phi_alone(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(known: KnownClasses, similarity: str, scale: float) -> Head:
        rows = torch.cat([known.base, known.new])
        return Head(rows - rows.mean(dim=0), similarity, scale)

    monkeypatch.setitem(CLASSIFIERS.entries, "own", ClassifierEntry(build, levels=False))
    with pytest.raises(M2sdError, match=r"^--classifier own: a later class changes the logits of earlier ones"):
        load_session(RunFolder(two), classifier="own")


@pytest.mark.parametrize(("levels", "why"), [(0, "at least 1"), (5, "at most 4")])
def test_other_numbers_are_refused(pretrained: Path, stripes: Stripes, levels: int, why: str) -> None:
    with pytest.raises(UsageError, match=f"^--levels {levels}: {why}"):
        m2sd_cli.distill(str(stripes.folder), run=pretrained, levels=levels, **QUICK_DISTILL)
