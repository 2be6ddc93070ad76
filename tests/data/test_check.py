"""`data verify`: all faults at once, complete as JSON, shortened for people."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from m2sd_cli.data.check import check, check_folder
from m2sd_cli.data.folders import open_folder
from m2sd_cli.progress import report_to
from tests.data.helpers import Listener, fill
from tests.helpers import Cli


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, (name, count) in enumerate((("cat", 5), ("dog", 5), ("emu", 1))):
        fill(tmp_path / "photos" / name, count, first=10 * number)
    return tmp_path / "photos"


def test_everything_is_told_at_once(m2sd: Cli, photos: Path) -> None:
    shutil.copy(photos / "cat" / "000.png", photos / "dog" / "same.png")
    shutil.copy(photos / "dog" / "010.png", photos / "dog" / "again.png")
    Image.new("RGB", (90, 70)).save(photos / "cat" / "large.jpg")
    Image.new("RGB", (3, 2)).save(photos / "emu" / "small.gif")
    (photos / "cat" / "notes.txt").touch()
    (photos / "hollow").mkdir()
    for number in range(12):
        (photos / "dog" / f"bad{number:02d}.jpg").touch()
    done = m2sd("data", "verify", photos, "--json")
    assert done.code == 3
    assert done.err.startswith(f"m2sd: {photos}/dog/bad00.jpg: an empty file")
    assert done.err.endswith("; and 12 more, listed above\n")
    found = json.loads(done.out)
    assert [fault.split(": ")[0] for fault in found["faults"]] == [str(photos / "hollow")]
    assert [each["file"] for each in found["unreadable"]] == sorted(f"dog/bad{number:02d}.jpg" for number in range(12))
    assert sum(each["training"] + each["test"] for each in found["class_counts"]) == 27
    assert found["smallest"] == {"file": "emu/small.gif", "width": 3, "height": 2}
    assert found["largest"] == {"file": "cat/large.jpg", "width": 90, "height": 70}
    assert [sorted(group) for group in found["repeated_across_classes"]] == [["cat/000.png", "dog/same.png"]]
    assert [sorted(group) for group in found["repeated_within_class"]] == [["dog/010.png", "dog/again.png"]]
    assert found["left_out"] == [{"files": 1, "kind": ".txt", "way_out": "no image by the name"}]
    assert any(each.startswith("few photos: ") for each in found["remarks"])
    lines = m2sd("data", "verify", photos).out.splitlines()
    assert "cannot be read (12):" in lines
    assert "  and 2 more; --json lists all" in lines


def test_one_class_is_refused_as_pretrain_does(m2sd: Cli, photos: Path) -> None:
    for name in ("dog", "emu"):
        shutil.rmtree(photos / name)
    done = m2sd("data", "verify", photos)
    assert (done.code, done.err) == (3, f"m2sd: {photos}: 1 base class; at least two are needed, a folder each\n")


@pytest.mark.parametrize(("orientation", "size"), [(1, (64, 32)), (6, (32, 64))])
def test_the_true_size_of_a_jpeg_that_is_read_at_half_is_told(
    photos: Path, monkeypatch: pytest.MonkeyPatch, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (64, 32)).save(photos / "cat" / "large.jpg", exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 32 // 2)
    largest = check_folder(photos).largest
    assert largest is not None
    assert (largest.file, (largest.width, largest.height)) == ("cat/large.jpg", size)


def test_a_folder_without_a_class_is_not_called_readable(m2sd: Cli, photos: Path) -> None:
    done = m2sd("data", "verify", photos / "cat")
    assert (done.code, done.out.splitlines()[0]) == (3, "faults (1):")
    assert "readable" not in done.out


def test_remarks_refuse_nothing(m2sd: Cli, photos: Path) -> None:
    done = m2sd("data", "verify", photos)
    assert (done.code, done.err) == (0, "")
    assert "remarks (2):" in done.out
    assert done.out.startswith(f"{photos}: 3 classes; 9 images to train on, 2 to test on; all readable\n")


def test_equal_images_of_a_built_in_data_set_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check("demo")
    assert (found.smallest, found.repeated_within_class) == (found.largest, [])
    assert not found.is_refused


def test_the_scale_of_deep_grey_is_told(photos: Path) -> None:
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(ramp * 64).save(photos / "cat" / "twelve.png")
    Image.fromarray(ramp.astype(np.float32) / 63).save(photos / "dog" / "float.tif")
    assert [each for each in check_folder(photos).remarks if "grey" in each] == [
        "1 grey image of more than 8 bits: 0 is black and 4095 white, by the largest number",
        "1 grey image of more than 8 bits: 0 is black and 1 white, by the largest number",
    ]


def test_the_scale_of_deep_grey_is_told_where_it_is_decoded(photos: Path) -> None:
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for number in range(5):
        Image.fromarray(ramp * 64).save(photos / "emu" / f"{number}.png")
    data, said = open_folder(photos, 16), Listener()
    with report_to(said):
        list(data.train.batches(data.transform, 2))
        list(data.test.batches(data.transform, 2))
    assert sum(int(line.split(" ")[0]) for line in said.said) == 5
    assert all(line.endswith("0 is black and 4095 white, by the largest number") for line in said.said)
    with report_to(said):
        list(data.train.batches(data.transform, 2, slice(3)))
    assert len(said.said) == 2
