"""CIFAR-100: only the published files are read; with them, the official sessions."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from m2sd_cli.data.cifar100 import open_cifar100
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.errors import DataError

if TYPE_CHECKING:
    from tests.conftest import Outcome


@pytest.fixture
def look_alike(tmp_path: Path) -> Path:
    home = tmp_path / "cifar-100-python"
    home.mkdir()
    for name in ("train", "test", "meta"):
        (home / name).write_bytes(pickle.dumps({"data": [], "fine_labels": [], "fine_label_names": []}))
    return tmp_path


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


def test_a_look_alike_is_refused_by_every_command(look_alike: Path, m2sd: "Callable[..., Outcome]") -> None:
    run = look_alike / "run"
    for command in (["pretrain", "--data", "cifar100", "--run", run], ["data", "verify", "cifar100"]):
        done = m2sd(*command, "--data-root", look_alike)
        assert (done.code, done.out) == (3, "")
        assert done.err.count("\n") == 1
        assert "MD5" in done.err
    assert not run.exists()


def test_a_download_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, m2sd: "Callable[..., Outcome]"
) -> None:
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


def test_what_is_here_or_in_the_package_is_not_downloaded(look_alike: Path, m2sd: "Callable[..., Outcome]") -> None:
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
