"""One image in two classes, or under two names, is told."""

import shutil
from pathlib import Path

import pytest

from m2sd_cli.data.check import check_data
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.sources import FileImages
from tests.data.helpers import fill
from tests.helpers import Cli, Stripes

CPU = ["--device", "cpu"]
QUICK = [*CPU, "--precision", "fp32", "--image-size", "16", "--backbone", "resnet20", "--epochs", "1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("bus", "car", "van")):
        fill(tmp_path / "photos" / name, 5, first=10 * number)
    return tmp_path / "photos"


def test_an_image_in_two_classes_is_told_by_verify_and_pretrain(m2sd: Cli, photos: Path, tmp_path: Path) -> None:
    assert "equal" not in m2sd("data", "verify", photos).out
    shutil.copy(photos / "car" / "010.png", photos / "bus" / "dup.png")
    shutil.copy(photos / "van" / "020.png", photos / "van" / "again.png")
    verified = m2sd("data", "verify", photos)
    assert verified.code == 0
    assert "equal images in more than one class (1):\n  bus/dup.png = car/010.png\n" in verified.out
    assert "van/020.png = van/again.png\n" in verified.out
    (tmp_path / "split").mkdir()
    shutil.move(photos, tmp_path / "split" / "train")
    trained = m2sd("pretrain", "--data", tmp_path / "split", "--run", tmp_path / "run", *QUICK)
    assert trained.code == 0
    assert "1 image is in more than one class: train/bus/dup.png = train/car/010.png\n" in trained.err


def test_an_image_that_is_trained_and_tested_on_is_told(m2sd: Cli, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    shutil.copytree(photos, tmp_path / "split" / "train")
    shutil.copytree(photos / "car", tmp_path / "split" / "test" / "car")
    out = m2sd("data", "verify", tmp_path / "split").out
    assert "equal images for training and testing (5):\n  test/car/010.png = train/car/010.png\n" in out
    assert "equal images in a class" not in out


def test_verify_hashes_files_of_one_size_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.write_bytes(path.read_bytes() + bytes(100 * number))
    shutil.copy(photos / "car" / "010.png", photos / "bus" / "dup.png")
    hashed: list[str] = []
    digests = FileImages.digests

    def listen(source: FileImages) -> list[str]:
        hashed.extend(path.name for path in source.paths)
        return digests(source)

    monkeypatch.setattr(FileImages, "digests", listen)
    check_data(open_folder(photos, 16))
    assert sorted(hashed) == ["010.png", "dup.png"]


def test_an_image_that_is_taught_twice_is_told(m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path) -> None:
    first = next((stripes.first_shots / "purple").iterdir())
    (tmp_path / "shots" / "lilac").mkdir(parents=True)
    (tmp_path / "shots" / "rose").mkdir()
    fill(tmp_path / "shots" / "mauve", 1)
    for name in ("lilac/a.png", "rose/b.png"):
        shutil.copy(first, tmp_path / "shots" / name)
    base = next((stripes.folder / "train" / "red").iterdir())
    tested = next((stripes.folder / "test" / "red").iterdir())
    shutil.copy(base, tmp_path / "shots" / "lilac" / "base.png")
    shutil.copy(tested, tmp_path / "shots" / "lilac" / "tested.png")
    done = m2sd("increment", "--session", 3, "--shots", tmp_path / "shots", "--run", run, *CPU)
    assert done.code == 0
    assert "1 image is in more than one class: lilac/a.png = rose/b.png\n" in done.err
    told = "lilac/a.png ('purple', session 1); lilac/base.png ('red', session 0)"
    assert f"2 images are taught already: {told}\n" in done.err
    assert m2sd("increment", "--session", 3, "--shots", tmp_path / "shots", "--run", run, *CPU).code == 4
