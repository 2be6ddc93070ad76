"""Accidents that must not happen: mixed-up options, overwritten chains, images of another run, odd file systems."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import m2sd_cli
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import QUICK, Cli, Stripes, finished, tree


def test_resume_keeps_the_precision_and_refuses_another(tmp_path: Path, stripes: Stripes) -> None:
    run = tmp_path / "stopped"
    assert m2sd_cli.pretrain(str(stripes.folder), run=run, stop_after=0.0, **QUICK) is None
    before = tree(run)
    with pytest.raises(UsageError, match="--precision bf16: the training began with fp32"):
        m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, device="cpu", precision="bf16")
    with pytest.raises(UsageError, match="--resume and --force"):
        m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, force=True)
    assert tree(run) == before
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, device="cpu"))
    assert stored.manifest.precision == "fp32"


def test_resuming_what_has_finished_answers_for_the_same_training_only(run: Path, stripes: Stripes) -> None:
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, epochs=1))
    assert stored.record == RunFolder(run).pretrain().record
    with pytest.raises(UsageError, match="--epochs 7: the training began with 1; leave it out, or start over"):
        m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, epochs=7)
    with pytest.raises(UsageError, match="--data demo: this run is of the folder 'colours'"):
        m2sd_cli.pretrain("demo", run=run, resume=True)


def test_a_finished_training_is_not_lost_when_its_result_cannot_be_written(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "full"

    def fail(*_: object) -> None:
        raise RunError("no space left")

    with monkeypatch.context() as context:
        context.setattr(RunFolder, "write_checkpoint", fail)
        with pytest.raises(RunError, match="no space left"):
            m2sd_cli.pretrain(str(stripes.folder), run=run, **QUICK)
    stored = finished(m2sd_cli.pretrain(str(stripes.folder), run=run, resume=True, device="cpu"))
    assert len(stored.manifest.history) == 1
    whole = finished(m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "whole", **QUICK))
    assert stored.manifest.checkpoint == whole.manifest.checkpoint


@pytest.mark.parametrize("file", ["session-001.safetensors", "pretrain.json", "training/new", ".lock"])
def test_no_other_command_writes_over_the_chain(run: Path, file: str, m2sd: Cli) -> None:
    before = tree(run)
    with pytest.raises(UsageError, match=r"a file of the run|no such folder"):
        m2sd_cli.export("safetensors", run / file, run=run, force=True)
    assert m2sd("evaluate", "--run", run, "--confusion", run / file).code == 2
    assert tree(run) == before


def test_export_to_a_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder"):
        m2sd_cli.export("safetensors", tmp_path, run=run, force=True)


def test_shots_or_an_official_session(run: Path, stripes: Stripes) -> None:
    with pytest.raises(UsageError, match="choose one"):
        m2sd_cli.increment(3, stripes.first_shots, run=run, data="cifar100")


def test_a_folder_that_has_changed_is_not_tested_on(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    for name in ("blue", "green", "red", "yellow"):
        (changed / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (16, 16), name).save(changed / name / f"{number}.png")
    with pytest.raises(DataError, match="not the images that the run was trained on"):
        m2sd_cli.evaluate(run=run, data=str(changed), device="cpu")


def test_a_class_name_has_to_be_text(run: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "shots") + b"/caf\xe9"
    os.makedirs(folder)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    os.rename(tmp_path / "one.png", folder + b"/1.png")
    before = tree(run)
    with pytest.raises(DataError, match="has to be UTF-8"):
        m2sd_cli.increment(3, tmp_path / "shots", run=run)
    assert tree(run) == before


def test_an_image_whose_name_is_no_text_is_labelled(run: Path, tmp_path: Path, m2sd: Cli) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    os.rename(tmp_path / "one.png", os.fsencode(tmp_path) + b"/im\xe9.png")
    for options in ([], ["--json"]):
        done = m2sd("predict", tmp_path, "--run", run, "--top-k", 1, *options)
        assert done.code == 0
        assert "im\\" in done.out
        done.out.encode()


def test_a_missing_image_of_a_list_is_named(tmp_path: Path) -> None:
    from m2sd_cli.data.sources import FileImages

    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        FileImages((tmp_path / "gone.jpg",), torch.tensor([0])).digests()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    from m2sd_cli.data.folders import open_folder

    for name in ("train", "bus"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{number}.png")
    assert open_folder(tmp_path, 16).classes == ["bus", "train"]


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (400, 20)])
def test_a_thin_image_is_cut_before_it_is_enlarged(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    real = Image.Image.resize

    def resize(image: Image.Image, wanted: tuple[int, int], *others: Any, **more: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, wanted[0] * wanted[1])
        return real(image, wanted, *others, **more)

    monkeypatch.setattr(Image.Image, "resize", resize)
    transform = TestTransform(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert transform.pixels(Image.new("RGB", size)).shape == (3, 224, 224)
    assert largest <= 256 * 256 * 20


def test_other_formats_are_not_handed_to_programs(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not an image"):
        open_rgb(tmp_path / "x.jpg")


def test_folders_made_for_nothing_are_taken_away(tmp_path: Path, stripes: Stripes) -> None:
    with pytest.raises(DataError, match="no such file"):
        m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "p" / "q", init="nofile", **QUICK)
    assert not (tmp_path / "p").exists()


def test_logits_are_not_rounded_to_half_precision() -> None:
    from m2sd_cli.method.class_weights import ClassWeights

    classifier = ClassWeights(64, 60)
    features = torch.rand(8, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = classifier(features)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, classifier(features))
