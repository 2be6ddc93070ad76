"""Networks of timm as backbones, from their names to the exported file; with random weights, nothing is downloaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import m2sd_cli
from m2sd_cli.errors import DataError, M2sdError, UsageError
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.session import load_session
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES
from m2sd_cli.training.initial_weights import initialise
from m2sd_cli.training.timm_weights import find_model
from tests.helpers import COMMON, Cli, Stripes, check_refusal, draw, finished, sha256

timm = pytest.importorskip("timm")
# The last four maps of test_vit are of one size. The feature of test_efficientnet is wider than its last map.
KINDS = ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"]
SIDE = 32


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as timm writes them, one a network."""
    root = tmp_path_factory.mktemp("timm")
    for name in KINDS:
        torch.manual_seed(0)
        timm.models.save_for_hf(timm.create_model(name), root / name, safe_serialization=True)
    return root


@pytest.fixture(scope="session", params=KINDS)
def chain(
    request: pytest.FixtureRequest, folders: Path, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train a run of a network of timm, by both stages and with all of stage 2, and teach it a session."""
    run: Path = tmp_path_factory.mktemp("chain") / request.param
    name: Any = f"timm:local-dir:{folders / request.param}"
    m2sd_cli.pretrain(
        str(stripes.folder), run=run, backbone=name, init="imagenet", image_size=SIDE, **COMMON | {"epochs": 0}
    )
    m2sd_cli.distill(str(stripes.folder), run=run, **COMMON)
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    return run


def test_a_chain_knows_the_network_and_the_weights_and_no_folder(chain: Path, folders: Path) -> None:
    kind = chain.name
    manifest = RunFolder(chain).pretrain().manifest
    assert manifest.backbone.name == f"timm:{kind}"
    assert manifest.plugins == {f"timm:{kind}": f"timm {timm.__version__}"}
    weights = manifest.weights
    assert weights is not None
    assert (weights.licence, weights.tag, weights.image_size) == ("apache-2.0", "r160_in1k", 160)
    assert weights.sha256 == sha256(folders / kind / "model.safetensors")
    described = json.loads((folders / kind / "config.json").read_text())["pretrained_cfg"]
    assert weights.interpolation == described["interpolation"]
    assert [list(weights.mean), list(weights.std)] == [described["mean"], described["std"]]
    assert weights.crop == pytest.approx(described["crop_pct"], abs=0.01)
    assert (manifest.transform.crop, manifest.transform.resize) == (SIDE, round(SIDE / weights.crop))
    assert manifest.transform.mean == weights.mean
    assert all(str(folders) not in path.read_text() for path in chain.glob("*.json"))


def test_weights_are_those_of_the_folder(chain: Path, folders: Path) -> None:
    theirs = load_file(folders / chain.name / "model.safetensors")
    ours = load_file(chain / "pretrain.safetensors")
    same = [name for name, tensor in theirs.items() if name != "pos_embed" and f"backbone.network.{name}" in ours]
    assert len(same) > 10
    assert all(torch.equal(ours[f"backbone.network.{name}"], theirs[name]) for name in same)
    if chain.name == "test_vit":
        assert theirs["pos_embed"].shape[1] > ours["backbone.network.pos_embed"].shape[1] > 1


def test_a_chain_answers_and_is_exported(chain: Path, stripes: Stripes, tmp_path: Path) -> None:
    model = load_session(RunFolder(chain))
    (answer,) = m2sd_cli.predict([next(stripes.labelled.rglob("*.png"))], run=chain, device="cpu")
    assert len(model.classes) == 6
    assert answer.guesses
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    wanted = model.classify(model.embed(images)) / model.confidence.temperature
    onnx, pt2 = (m2sd_cli.export(form, tmp_path / f"x.{form}", run=chain) for form in ("onnx", "pt2"))
    logits, _ = onnxruntime.InferenceSession(onnx).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.export.load(pt2).module()(images)[0], wanted, rtol=1e-3, atol=1e-3)


def test_answers_are_split_over_an_image_only_where_the_feature_is_the_mean_of_the_last_map(
    chain: Path, tmp_path: Path
) -> None:
    for colour, other in (("red", "blue"), ("blue", "red")):
        (tmp_path / "swapped" / other).mkdir(parents=True)
        draw(colour, 300).save(tmp_path / "swapped" / other / "one.png")
    image = tmp_path / "swapped" / "red" / "one.png"
    page = m2sd_cli.report(run=chain, test=tmp_path / "swapped", device="cpu")
    assert "wrong test images" in page
    if chain.name == "test_resnet":
        (answer,) = m2sd_cli.predict(image, run=chain, device="cpu", explained=1, classifier="means")
        assert answer.evidence is not None
        similarity = float(answer.evidence.maps[0].mean()) / RunFolder(chain).pretrain().manifest.backbone.scale
        assert similarity == pytest.approx(answer.guesses[0].similarity, abs=1e-4)
        assert "heat map of the answer" in page
    else:
        why = f"timm:{chain.name} has a feature that is not the mean of its last map"
        with pytest.raises(UsageError, match=f"^--explain: {why}, so that .*; leave it out$"):
            m2sd_cli.predict(image, run=chain, device="cpu", explained=1)
        assert f"There are no heat maps: {why}." in page
        assert "heat map of the answer" not in page


def test_the_feature_is_the_one_before_the_classifier(folders: Path) -> None:
    for name in (*KINDS, "mobilenetv3_small_050"):  # the feature of the last has a layer of its own
        network = timm.create_model(name, num_classes=0).eval()
        backbone = build_backbone(f"timm:{name}", 160).eval()
        backbone.load_state_dict({f"network.{each}": tensor for each, tensor in network.state_dict().items()})
        with torch.no_grad():
            x = torch.randn(2, 3, 160, 160)
            maps, pooled = backbone(x)
            torch.testing.assert_close(pooled, network(x))
        assert tuple(each.shape[1] for each in maps) == backbone.level_widths
        assert pooled.shape[1] == backbone.width


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_taken_with_and_without_a_classifier(kind: str, folders: Path, tmp_path: Path) -> None:
    theirs = load_file(folders / kind / "model.safetensors")
    torch.save({"state_dict": {f"module.{name}": each for name, each in theirs.items()}}, tmp_path / "all.pth")
    bare = {name: each for name, each in theirs.items() if not name.startswith(("head.fc", "head.w", "head.b", "fc."))}
    save_file(bare, tmp_path / "bare.safetensors")
    for path in (tmp_path / "all.pth", tmp_path / "bare.safetensors"):
        backbone = build_backbone(f"timm:{kind}", 160)
        initialise(backbone, f"timm:{kind}", str(path))
        name = next(iter(bare))
        assert torch.equal(backbone.state_dict()[f"network.{name}"], bare[name])
    with pytest.raises(DataError, match="not the weights of this backbone"):
        initialise(build_backbone("timm:resnet10t"), "timm:resnet10t", str(path))


def state_of_a_deeper_network() -> dict[str, Tensor]:
    return {**timm.create_model("resnet18").state_dict(), "layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    torch.save(state_of_a_deeper_network(), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"layer1\.2\.conv1\.weight' does not belong there"):
        initialise(build_backbone("timm:resnet18"), "timm:resnet18", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:test_resnt", r"knows none of that name \(did you mean timm:test_resnet\?\)$"),
        ("timm:resnet10t.c3_in1", r"knows none of that name \(did you mean timm:resnet10t\.c3_in1k\?\)$"),
        ("timm:", "knows none of that name"),
        (
            "timm:levit_128s",
            r"^--backbone timm:levit_128s: 3 maps, and not the four that a backbone needs; choose another$",
        ),
    ],
)
def test_a_network_that_does_not_do_is_refused_in_one_line(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_backbone(name)


def test_a_size_that_the_network_cannot_take_is_refused(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--epochs", 1, "--image-size"]
    for name, side in (("test_vit", 40), ("mvitv2_tiny", 8)):
        done = m2sd(*words, side, "--backbone", f"timm:{name}", "--device", "cpu", "-q")
        check_refusal(done, 2, f"--image-size {side}: timm:{name} cannot take it, it was made for ")
    assert not (tmp_path / "run" / "pretrain.json").exists()


def test_a_folder_that_does_not_do_is_refused_in_one_line(folders: Path, tmp_path: Path) -> None:
    def refused(name: str = "test_resnet", **changes: Any) -> str:
        content = json.loads((folders / name / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**content, **changes}))
        find_model.cache_clear()
        with pytest.raises(DataError) as error:
            BACKBONES[f"timm:local-dir:{tmp_path}"]
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "knows no network nothing" in refused(architecture="nothing")
    assert "built with another cardinality than test_resnet" in refused(model_args={"cardinality": 2})
    assert "no description of a network" in refused(pretrained_cfg={"mean": "x"})
    with pytest.raises(DataError, match=r"config\.json: No such file"):
        BACKBONES[f"timm:local-dir:{tmp_path / 'absent'}"]
    find_model.cache_clear()
    (tmp_path / "config.json").write_text((folders / "test_resnet" / "config.json").read_text())
    with pytest.raises(DataError, match=r"no model\.safetensors and no other weights in it"):
        initialise(build_backbone("timm:test_resnet"), f"timm:local-dir:{tmp_path}", "imagenet")
    with pytest.raises(UsageError, match="these are weights of timm:test_vit, and not of timm:test_resnet"):
        initialise(build_backbone("timm:test_resnet"), "timm:test_resnet", f"local-dir:{folders / 'test_vit'}")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(
        DataError, match=r"\(no network\); name a folder that has them with --backbone timm:local-dir:DIR"
    ):
        initialise(build_backbone("timm:test_resnet"), "timm:test_resnet.r160_in1k", "imagenet")


def test_a_licence_that_forbids_trade_is_told(folders: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((folders / "test_resnet" / "model.safetensors").read_bytes())
    content = json.loads((folders / "test_resnet" / "config.json").read_text())
    content["pretrained_cfg"]["license"] = "cc-by-nc-4.0"
    (folder / "config.json").write_text(json.dumps(content))
    done = m2sd(
        *("learn", stripes.folder, "--run", tmp_path / "run", "--image-size", SIDE, "--device", "cpu"),
        *("--backbone", f"timm:local-dir:{folder}"),
    )
    assert done.code == 0, done
    assert "the licence of these weights, cc-by-nc-4.0, does not allow commercial use" in done.err
    manifest = finished(RunFolder(tmp_path / "run").pretrain()).manifest
    assert manifest.weights is not None
    assert manifest.weights.licence == "cc-by-nc-4.0"
    assert str(tmp_path) not in (tmp_path / "run" / "pretrain.json").read_text()


def test_a_training_goes_on_without_the_weights_that_it_began_from(
    folders: Path, stripes: Stripes, tmp_path: Path
) -> None:
    options: Any = {**COMMON, "image_size": SIDE, "backbone": "timm:test_resnet", "run": tmp_path / "run", "epochs": 2}
    init = f"local-dir:{folders / 'test_resnet'}"
    assert m2sd_cli.pretrain(stripes.folder, init=init, stop_after=0, **options) is None
    stored = finished(m2sd_cli.pretrain(stripes.folder, run=tmp_path / "run", device="cpu", resume=True))
    assert stored.manifest.weights is not None
    assert stored.manifest.transform.mean == stored.manifest.weights.mean


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(M2sdError) as error:
        BACKBONES["timm:test_resnet"]
    assert str(error.value) == f"--backbone timm:test_resnet: it needs one more package: {install_extra('timm')}"


def test_help_and_completion_name_the_family_alone() -> None:
    assert BACKBONES.listed().endswith(" or timm:NAME")
    assert BACKBONES.complete("ti") == ["timm:"]
    program = "import sys, m2sd_cli; m2sd_cli.pretrain; from m2sd_cli.method.backbone import build_backbone as b; "
    program += "b('resnet20'); assert not {'timm', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_same_batch_norms_are_needed_in_several_processes() -> None:
    from m2sd_cli.distributed.batch_norm import share_statistics

    network = build_backbone("timm:mobilenetv3_small_050")
    with pytest.raises(UsageError, match="BatchNormAct2d cannot be shared by processes; train with one"):
        share_statistics(network, torch.device("cpu"))
