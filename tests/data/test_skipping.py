"""Going on without the images that cannot be read."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from m2sd_cli.data.datasets import DataSet, Skipped
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.folders import open_folder, read_shots
from m2sd_cli.data.skipping import (
    check_images,
    leave_out,
    skip_bad_images,
    skip_bad_shots,
    skip_bad_tests,
)
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from m2sd_cli.errors import DataError
from m2sd_cli.inference.skipping import check_images_together
from tests.data.helpers import fill, names


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, count in (("cat", 10), ("dog", 10), ("emu", 1)):
        fill(tmp_path / "photos" / name, count)
    return tmp_path / "photos"


def test_each_image_is_read_as_a_whole(photos: Path) -> None:
    paths = [photos / "cat" / f"00{number}.png" for number in range(4)]
    spoil(paths[1])
    paths[2].unlink()
    reasons = check_images(paths)
    assert [each is None for each in reasons] == [True, False, False, True]
    assert reasons[2] == "no such file"
    assert str(photos) not in str(reasons[1])


def test_the_split_is_that_of_all_images(photos: Path) -> None:
    whole = open_folder(photos, 16)
    bad = [names(whole.train)[0], names(whole.train)[-2], names(whole.test)[0]]
    for each in bad:
        spoil(photos / each)
    data = skip_bad_images(open_folder(photos, 16), check_images)
    assert sorted(each.file for each in data.skipped) == sorted(bad)
    assert names(data.train) == [each for each in names(whole.train) if each not in bad]
    assert names(data.test) == [each for each in names(whole.test) if each not in bad]
    assert data.train.labels.bincount().tolist() == [7, 7, 1]
    for again in (open_folder(photos, 16, data.skipped), leave_out(open_folder(photos, 16), data.skipped)):
        assert (names(again.train), names(again.test)) == (names(data.train), names(data.test))
        assert again.skipped == data.skipped


def test_an_image_that_was_left_out_keeps_its_part_in_the_split_when_it_is_gone(photos: Path) -> None:
    first, second, *_ = names(open_folder(photos, 16).test)
    for each in (first, second):
        spoil(photos / each)
    data = skip_bad_images(open_folder(photos, 16), check_images)
    (photos / first).unlink()
    Image.new("RGB", (9, 9)).save(photos / second)  # mended, which does not matter
    again = open_folder(photos, 16, data.skipped)
    assert (names(again.train), names(again.test)) == (names(data.train), names(data.test))
    (photos / second).unlink()
    again = open_folder(photos, 16, data.skipped)
    assert (names(again.train), names(again.test)) == (names(data.train), names(data.test))
    assert names(open_folder(photos, 16).train) != names(data.train)


@pytest.mark.parametrize("file", ["cat/../../x.png", "/x.png", "cat//x.png", "cat/", "cat", "", "cow/x.png", "cat/.."])
def test_a_record_cannot_name_another_place(photos: Path, file: str) -> None:
    whole, again = open_folder(photos, 16), open_folder(photos, 16, [Skipped(file, "")])
    assert (names(again.train), names(again.test)) == (names(whole.train), names(whole.test))


def test_a_name_that_is_no_text_is_recorded_as_text(photos: Path) -> None:
    for name in (b"im\xe9.png", b"im\xea.png"):
        os.rename(photos / "cat" / f"00{name[2] - 0xE9}.png", os.fsencode(photos / "cat") + b"/" + name)
    for number in (10, 11):  # one more would be one more to test
        Image.new("RGB", (9, 9)).save(photos / "cat" / f"0{number}.png")
    with open(os.fsencode(photos / "cat") + b"/im\xe9.png", "wb"):
        pass
    data = skip_bad_images(open_folder(photos, 16), check_images)
    assert [each.file for each in data.skipped] == ["cat/im\\udce9.png"]
    assert len(data.train) + len(data.test) == 22
    again = open_folder(photos, 16, data.skipped)
    assert (names(again.train), names(again.test)) == (names(data.train), names(data.test))


def test_train_and_test_folders_are_told_apart(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            fill(tmp_path / part / name, 2)
    spoil(tmp_path / "train" / "cat" / "000.png")
    spoil(tmp_path / "test" / "dog" / "001.png")
    data = skip_bad_images(open_folder(tmp_path, 16), check_images)
    assert [each.file for each in data.skipped] == ["train/cat/000.png", "test/dog/001.png"]
    assert names(data.train) == ["cat/001.png", "dog/000.png", "dog/001.png"]
    assert names(data.test) == ["cat/000.png", "cat/001.png", "dog/000.png"]
    tested, skipped = skip_bad_tests(open_folder(tmp_path, 16), check_images)
    assert list(skipped) == [data.skipped[1]]
    assert len(tested.train) == 4
    tested, skipped = skip_bad_tests(open_folder(tmp_path, 16, data.skipped), check_images)
    assert (skipped, tested.skipped) == ([], data.skipped)


def test_a_base_class_without_any_image_left_is_an_error(photos: Path) -> None:
    spoil(photos / "emu" / "000.png")
    with pytest.raises(DataError, match="photos: no image of class 'emu' can be read"):
        skip_bad_images(open_folder(photos, 16), check_images)
    with pytest.raises(DataError, match="photos: no image of class 'emu' can be read"):
        open_folder(photos, 16, [Skipped("emu/000.png", "")])


def test_shots_go_on_without_bad_ones(photos: Path) -> None:
    spoil(photos / "dog" / "003.png")
    shots = skip_bad_shots(read_shots(photos), photos, check_images)
    assert [each.file for each in shots.skipped] == ["dog/003.png"]
    assert shots.source.labels.bincount().tolist() == [10, 9, 1]
    assert "dog/003.png" not in names(shots.source)
    assert len(shots.source.digests()) == 20
    spoil(photos / "emu" / "000.png")
    with pytest.raises(DataError, match="photos: no image of class 'emu' can be read"):
        skip_bad_shots(read_shots(photos), photos, check_images)


def test_where_all_is_well_nothing_changes(photos: Path) -> None:
    whole = open_folder(photos, 16)
    assert skip_bad_images(whole, check_images) is whole
    assert skip_bad_shots(read_shots(photos), photos, check_images).skipped == []


def test_images_in_memory_can_always_be_read() -> None:
    demo = open_demo()
    assert skip_bad_images(demo, check_images) is demo
    shots = demo.session(1)
    assert skip_bad_shots(shots, demo.location, check_images).source is shots.source


def test_a_team_shares_the_reading_and_knows_it_all(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(photos.rglob("*.png"))
    for number in (0, 5, 20):
        spoil(paths[number])
    expected = check_images(paths)
    assert check_images_together(paths, SINGLE_PROCESS) == expected
    parts: list[torch.Tensor] = []
    read: list[Path] = []

    def all_gather(group: ProcessGroup, numbers: torch.Tensor) -> torch.Tensor:
        parts.append(numbers)
        return torch.cat(parts)

    def noted(some: Sequence[Path]) -> list[str | None]:
        read.extend(some)
        return check_images(some)

    monkeypatch.setattr(ProcessGroup, "all_gather", all_gather)
    monkeypatch.setattr("m2sd_cli.inference.skipping.check_images", noted)
    for rank in range(3):
        reasons = check_images_together(paths, ProcessGroup(rank, 3))
    assert reasons == expected
    assert read == paths


def test_a_test_set_that_is_in_memory_stays_whole(photos: Path) -> None:
    demo, data = open_demo(), open_folder(photos, 16)
    mixed: DataSet = replace(data, test=demo.test)
    spoil(photos / "cat" / "000.png")
    assert skip_bad_images(mixed, check_images).test is demo.test
