"""Images that an evaluation keeps decoded, which makes no difference to its figures."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import m2sd_cli
from m2sd_cli.data import sources
from m2sd_cli.data.cache import list_entries
from m2sd_cli.data.check import check_data
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.sources import FileImages
from tests.helpers import Stripes


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Every image that is decoded, beginning with an empty cache."""
    seen = []

    def watched(path: Path) -> Image.Image:
        seen.append(path)
        return open_rgb(path)

    monkeypatch.setattr(sources, "open_rgb", watched)
    monkeypatch.setattr("m2sd_cli.inference.prediction.open_rgb", watched)
    monkeypatch.setattr("m2sd_cli.data.check.open_rgb", watched)
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "cache"))
    return seen


def test_a_second_evaluation_decodes_nothing(
    trained: Path, stripes: Stripes, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = m2sd_cli.evaluate(run=trained, data=str(stripes.folder), device="cpu")
    assert len(opened) == len(set(opened)) == 12
    opened.clear()
    second = m2sd_cli.evaluate(run=trained, data=str(stripes.folder), device="cpu")
    assert opened == []
    monkeypatch.setattr(FileImages, "for_testing", FileImages.batches)
    direct = m2sd_cli.evaluate(run=trained, data=str(stripes.folder), device="cpu")
    assert len(opened) == 12
    for each in (first, second):
        assert all(map(torch.equal, each.answers, direct.answers))
        assert each.figures == direct.figures


def test_images_of_ones_own_are_not_kept(trained: Path, stripes: Stripes, opened: list[Path]) -> None:
    for _ in range(2):
        opened.clear()
        m2sd_cli.evaluate(run=trained, test=stripes.labelled, device="cpu")
        assert len(opened) == 14
        opened.clear()
        assert len(list(m2sd_cli.predict([stripes.first_shots], run=trained, device="cpu"))) == 5
        assert len(opened) == 5
    assert list_entries() == []


def test_verifying_reads_every_image_itself(stripes: Stripes, opened: list[Path]) -> None:
    data = open_data(str(stripes.folder), image_size=16)
    list(data.test.for_testing(data.transform, 4))
    data.train.for_training(data.augmentation)
    opened.clear()
    check_data(data)
    assert len(opened) == len(data.train) + len(data.test) == 44
