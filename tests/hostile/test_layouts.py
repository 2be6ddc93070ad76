"""Run folders and images in one place."""

import shutil
from pathlib import Path

import pytest

from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, check_refusal, fill, tree

CPU = ["--device", "cpu"]
QUICK = [*CPU, "--precision", "fp32", "--epochs", "1"]


def test_the_run_folder_may_lie_among_the_classes(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = shutil.copytree(stripes.folder / "train", tmp_path / "photos")
    monkeypatch.chdir(photos)
    begin = ["--data", ".", *QUICK, "--image-size", "16", "--backbone", "resnet20"]
    for words in (["pretrain", *begin], ["pretrain", *begin, "--force"], ["distill", "--data", ".", *QUICK]):
        done = m2sd(*words)
        assert done.code == 0, done.err
        assert "m2sd-run: a run folder, and no class; it is left out" in done.err
    classes = RunFolder(Path("m2sd-run")).session(0).manifest.classes
    assert [each.name for each in classes] == ["blue", "green", "red", "yellow"]
    assert m2sd("evaluate", "--data", ".", *CPU).code == 0
    done = m2sd("predict", ".", *CPU, "--top-k", "1")
    assert len(done.out.splitlines()) == len([*photos.glob("*/*.png")])


@pytest.mark.parametrize("data", ["", "training", "incoming"])
def test_a_run_folder_never_removes_images(m2sd: Cli, stripes: Stripes, tmp_path: Path, data: str) -> None:
    run = tmp_path / "photos"
    shutil.copytree(stripes.folder / "train", run / data, dirs_exist_ok=True)
    for name in ("training", "incoming"):
        shutil.copytree(stripes.folder / "train" / "red", run / name, dirs_exist_ok=True)
    before = tree(run)
    done = m2sd("pretrain", "--data", run / data, "--run", run, *QUICK, "--image-size", "16", "--backbone", "resnet20")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"m2sd: --run {run}: the images of {run / data} are in it; name another folder for the run\n"
    assert tree(run) == before


def test_a_run_among_the_images_that_a_file_names_is_refused(tmp_path: Path, m2sd: Cli) -> None:
    run, file = tmp_path / "photos", tmp_path / "options.toml"
    for colour in ("green", "red"):
        fill(run, colour, 4)
    file.write_text(f'data = "{run}"\n')
    before = tree(run)
    for more in ([], ["--dry-run"]):
        done = m2sd("pretrain", "--config", file, "--run", run, *more)
        check_refusal(done, 2, f"--run {run}: the images of {run} are in it")
    assert tree(run) == before
