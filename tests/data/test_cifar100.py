"""CIFAR-100: only the published files are read; with them, the official sessions."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from m2sd_cli.data import cifar100
from m2sd_cli.data.cifar100 import class_names, open_cifar100
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.errors import DataError
from tests.helpers import PATIENCE, Cli, check_refusal, flip


@pytest.fixture
def look_alike(tmp_path: Path) -> Path:
    home = tmp_path / "cifar-100-python"
    home.mkdir()
    for name in ("train", "test", "meta"):
        (home / name).write_bytes(pickle.dumps({"data": [], "fine_labels": [], "fine_label_names": []}))
    return tmp_path


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-100: twelve training images and six for testing, which count as what was published."""
    home = tmp_path / "cifar-100-python"
    home.mkdir()
    random = np.random.default_rng(0)
    for name, count in (("train", 12), ("test", 6)):
        images = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        (home / name).write_bytes(pickle.dumps({"data": images, "fine_labels": [99, *range(1, count)]}))
    (home / "meta").write_bytes(pickle.dumps({"fine_label_names": class_names()}))
    digests = {path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in home.iterdir()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", digests["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", digests["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": digests["meta"]})
    monkeypatch.setattr(cifar100, "IMAGES", {"training": 12, "test": 6})
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("use", ["training", "test"])
def test_the_files_are_unpacked_once(
    published: Path, use: Literal["training", "test"], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CIFAR100(str(published), train=use == "training")
    first = cifar100._images(published, use)
    monkeypatch.setattr("torchvision.datasets.CIFAR100", None)
    for source in (first, cifar100._images(published, use)):
        assert np.array_equal(source.images.numpy(), plain.data)
        assert source.labels.tolist() == plain.targets
        assert source.labels.dtype == torch.int64


def test_files_that_were_damaged_since_are_refused(published: Path) -> None:
    cifar100._images(published, "training")
    file = published / "cifar-100-python" / "train"
    flip(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match="not the published CIFAR-100 files"):
        cifar100._images(published, "training")


def test_a_file_that_is_missing_is_named(published: Path) -> None:
    (published / "cifar-100-python" / "test").unlink()
    with pytest.raises(DataError, match=r"cifar-100-python/test: cannot be read \(No such file"):
        cifar100._images(published, "test")


def test_a_label_that_no_class_has_is_unpacked_anew(published: Path) -> None:
    right = cifar100._images(published, "training").labels
    (file,) = (published / "cache").glob("*/labels.npy")
    np.save(file, np.array([-1, *range(1, 12)]))
    assert torch.equal(cifar100._images(published, "training").labels, right)


@pytest.mark.realdata
def test_the_published_images_and_names(real_data: Path) -> None:
    plain = {train: CIFAR100(str(real_data), train=train) for train in (True, False)}
    for _ in range(2):
        data = open_cifar100(real_data)
        assert data.classes == plain[True].classes
        base = [number for number, label in enumerate(plain[True].targets) if label < 60]
        assert isinstance(data.train, ArrayImages)
        assert np.array_equal(data.train.images.numpy(), plain[True].data[base])
        assert data.train.labels.tolist() == [plain[True].targets[number] for number in base]
        assert isinstance(data.test, ArrayImages)
        assert np.array_equal(data.test.images.numpy(), plain[False].data)
        assert data.test.labels.tolist() == plain[False].targets


@pytest.mark.realdata
def test_torchvision_is_imported_once_for_the_files(real_data: Path) -> None:
    open_cifar100(real_data)
    code = (
        "import sys, pathlib; from m2sd_cli.data.cifar100 import open_cifar100\n"
        "open_cifar100(pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('torchvision', 'torchvision.datasets') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(real_data)], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "[]\n"


def test_a_look_alike_is_refused(look_alike: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-100-python: not the published CIFAR-100 files \(MD5\)"):
        open_cifar100(look_alike)


class Harmful:
    """A pickle of it makes a folder when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_no_pickle_is_opened_before_its_md5_has_matched(
    look_alike: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file in turn is harmful while the two others are what was published."""
    mark = tmp_path / "opened"
    home = look_alike / "cifar-100-python"
    (home / file).write_bytes(pickle.dumps(Harmful(mark)))
    images = {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]}
    for name in {"train", "test", "meta"} - {file}:
        (home / name).write_bytes(pickle.dumps(images | {"fine_label_names": ["apple"]}))

    def published(name: str) -> str:
        return hashlib.md5((home / name).read_bytes(), usedforsecurity=False).hexdigest() if name != file else 32 * "0"

    monkeypatch.setattr(CIFAR100, "train_list", [["train", published("train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", published("test")]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": published("meta")})
    with pytest.raises(DataError, match="not the published CIFAR-100 files"):
        open_cifar100(look_alike)
    assert not mark.exists()
    pickle.loads((home / file).read_bytes())
    assert mark.exists()


def test_files_that_cannot_be_read_are_named(look_alike: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "train")

    monkeypatch.setattr("torchvision.datasets.CIFAR100", refuse)
    with pytest.raises(DataError, match=r"^train: cannot be read \(Permission denied\)"):
        open_cifar100(look_alike)


def test_a_look_alike_is_refused_by_every_command(look_alike: Path, m2sd: Cli) -> None:
    run = look_alike / "run"
    for command in (["pretrain", "--data", "cifar100", "--run", run], ["data", "verify", "cifar100"]):
        done = m2sd(*command, "--data-root", look_alike)
        check_refusal(done, 3, "MD5")
    assert not run.exists()


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, m2sd: Cli) -> None:
    asked: list[str] = []

    def offline(root: str, download: bool) -> None:
        assert download
        asked.append(root)
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR100", offline)
    with pytest.raises(DataError, match=r"could not be downloaded .*no network.*--data-root"):
        open_data("cifar100", tmp_path)
    assert asked == [str(tmp_path)]
    assert m2sd("data", "download", "cifar100", "--data-root", tmp_path).code == 3


def test_one_process_downloads_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fetch(root: str, download: bool) -> None:
        """Another process, which would not wait, meanwhile."""
        assert download
        code = "import sys, filelock\ntry:\n    filelock.FileLock(sys.argv[1]).acquire(timeout=0)\n"
        code += "except filelock.Timeout:\n    print('held')\n"
        words = [sys.executable, "-c", code, f"{root}/.cifar100.lock"]
        tried.append(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    monkeypatch.setattr("torchvision.datasets.CIFAR100", fetch)
    cifar100.download_cifar100(tmp_path / "new")
    cifar100.download_cifar100(tmp_path / "new")  # which the first has let go of
    assert tried == ["held\n", "held\n"]


def test_what_is_here_or_in_the_package_is_not_downloaded(look_alike: Path, m2sd: Cli) -> None:
    done = m2sd("data", "download", "cifar100", "--data-root", look_alike)
    assert (done.code, done.out) == (0, "")
    assert str(look_alike / "cifar-100-python") in done.err
    assert "nothing to download" in m2sd("data", "download", "demo").err
    unknown = m2sd("data", "download", "imagenet")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)


@pytest.mark.realdata
def test_the_official_sessions(real_data: Path) -> None:
    data = open_data("cifar100", real_data)
    assert (data.base, data.sessions, len(data.classes)) == (60, 8, 100)
    assert (data.classes[0], data.classes[99]) == ("apple", "worm")
    assert data.train.labels.bincount().tolist() == [500] * 60
    assert data.test.labels.bincount().tolist() == [100] * 100
    assert isinstance(data.train, ArrayImages)
    base = set(data.train.digests())
    seen: list[str] = []
    for number in range(1, 9):
        shots = data.session(number)
        assert shots.source.labels.bincount().tolist() == [5] * 5
        assert shots.classes == data.classes[55 + 5 * number : 60 + 5 * number]
        seen += shots.source.digests()
    assert len(set(seen)) == 200
    assert not base & set(seen)
    mean = (data.train.images.float() / 255).mean(dim=(0, 1, 2))
    torch.testing.assert_close(mean, torch.tensor(data.transform.mean), rtol=0, atol=0.02)
