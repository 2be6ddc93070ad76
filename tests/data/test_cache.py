"""The folder of decoded images: its place, what it lists, clearing."""

import os
import shutil
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from m2sd_cli.data.cache import as_size, cache_folder, clear, entry_lock, list_entries
from m2sd_cli.errors import DataError

KEY, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path))
    for key, images in ((KEY, 100), (OTHER, 20)):
        (tmp_path / key).mkdir()
        record = f'{{"format": 1, "use": "training", "images": {images}, "side": 8}}'
        (tmp_path / key / "entry.json").write_text(record)
        (tmp_path / key / "images.npy").write_bytes(bytes(images))
    return tmp_path


def test_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("M2SD_CACHE", "")
    assert cache_folder() == user_cache_path("m2sd") / "images"
    monkeypatch.delenv("M2SD_CACHE")
    assert cache_folder() == user_cache_path("m2sd") / "images"


def test_listing(cache: Path) -> None:
    (cache / f"{THIRD}.tmp").mkdir()
    (cache / THIRD).mkdir()  # without a record: as good as absent
    (cache / "of-somebody-else").mkdir()
    entries = sorted(list_entries(), key=lambda each: each.images)
    assert [(each.use, each.images, each.side) for each in entries] == [("training", 20, 8), ("training", 100, 8)]
    sizes = [sum(path.stat().st_size for path in (cache / key).iterdir()) for key in (OTHER, KEY)]
    assert [each.bytes for each in entries] == sizes


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "null",
        50_000 * "[",
        '{"use": "training", "images": 1' + 5000 * "0" + ', "side": 8}',
        '{"use": "training", "images": true, "side": 8}',
        '{"use": "training", "images": "1", "side": 8}',
        '{"use": "training", "images": 1, "side": NaN}',
        '{"use": ["training"], "images": 1, "side": 8}',
        '{"use": "\\u001b[31m", "images": 1, "side": 8}',
        '{"use": "training", "images": 1}',
        '{"use": "training", "images": 1, "side": 8}' + 2**16 * " ",
    ],
    ids=range(12),
)
def test_a_record_that_makes_no_sense_is_as_good_as_absent(cache: Path, record: str) -> None:
    (cache / KEY / "entry.json").write_text(record)
    assert [each.images for each in list_entries()] == [20]
    assert clear()[0] == 2


def test_whatever_lies_in_an_entry_is_counted_as_far_as_it_is_there(cache: Path) -> None:
    (cache / KEY / "below").mkdir()
    (cache / KEY / "below" / "file").write_bytes(bytes(1000))
    (cache / KEY / "nowhere").symlink_to(cache / "absent")
    (cache / KEY / "round").symlink_to(cache)
    os.mkfifo(cache / KEY / "pipe")
    (entry,) = [each for each in list_entries() if each.images == 100]
    assert 1100 < entry.bytes < 1400


def test_pipes_and_links_for_an_entry_are_somebody_elses(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "entry"
    shutil.move(cache / KEY, elsewhere)
    (cache / KEY).symlink_to(elsewhere)
    (cache / OTHER / "entry.json").unlink()
    os.mkfifo(cache / OTHER / "entry.json")
    assert list_entries() == []
    assert clear()[0] == 1
    assert (elsewhere / "images.npy").exists()


def test_an_absent_cache_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "absent"))
    assert list_entries() == []
    assert clear() == (0, 0)
    assert not (tmp_path / "absent").exists()


def test_clearing_removes_entries_and_remains_and_nothing_else(cache: Path) -> None:
    (cache / f"{THIRD}.tmp").mkdir()
    (cache / f"{THIRD}.tmp" / "images.npy").write_bytes(bytes(1000))
    for name in ("cifar-100-python", "notes.tmp", "a" * 63):
        (cache / name).mkdir()
        (cache / name / "file").write_text("of somebody else")
    taken = sum(each.bytes for each in list_entries())
    assert clear() == (2, taken + 1000)
    names = {path.name for path in cache.iterdir() if path.suffix != ".lock"}
    assert names == {"cifar-100-python", "notes.tmp", "a" * 63}
    assert clear() == (0, 0)


def test_what_is_locked_is_left_alone(cache: Path) -> None:
    with entry_lock(cache, KEY):
        assert clear()[0] == 1
        assert (cache / KEY / "images.npy").exists()
    assert clear()[0] == 1
    assert list_entries() == []


def test_what_cannot_be_removed_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DataError, match=rf"{KEY}: cannot be removed \(Permission denied\)"):
        clear()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (999_400, "999 kB"),
        (39_321_600, "39.3 MB"),
        (19_660_800_000, "19.7 GB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert as_size(count) == text
