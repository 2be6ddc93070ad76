"""Decoded images on disk: keys, building once, damage, killed builds, a full disk."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.features
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from m2sd_cli.data import decoded, sources
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.cache import clear, list_entries
from m2sd_cli.data.decoded import FORMAT, Request, load_or_decode
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DataError
from tests.helpers import PATIENCE

AUGMENTATION = Augmentation(size=16, store=18)
TRANSFORM = TestTransform(resize=18, crop=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
REQUEST = Request("training", 2, {"squash": "bilinear"}, ("a", "b", "c"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> FileImages:
    """Images of many sizes, among them one that is turned by its EXIF and one of a palette."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number in range(9):
        image = Image.fromarray(random.integers(0, 256, (20 + 3 * number, 40 - 2 * number, 3), dtype=np.uint8))
        path = folder / f"{number}.{('jpg', 'png', 'webp')[number % 3]}"
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 4 else 1
        (image.quantize(16) if number == 7 else image).save(path, exif=exif)
        paths.append(path)
    return FileImages(tuple(paths), torch.arange(9) % 3)


def fresh(source: FileImages) -> FileImages:
    """The same images as another process would open them, with nothing remembered."""
    return FileImages(source.paths, source.labels)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image that is decoded."""
    seen = []

    def watched(path: Path) -> Image.Image:
        seen.append(path)
        return open_rgb(path)

    monkeypatch.setattr(sources, "open_rgb", watched)
    return seen


def pixels(value: int) -> tuple[Tensor, float]:
    return torch.full((2, 2, 3), value, dtype=torch.uint8), value / 2


def decode() -> Generator[tuple[Tensor, float], None, None]:
    yield from map(pixels, (1, 2, 3))


def never() -> Generator[tuple[Tensor, float], None, None]:
    raise AssertionError("decoded although it was kept")
    yield


def entry_of(cache: Path) -> Path:
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    return folder


def entries_in(cache: Path) -> list[str]:
    """What lies in the cache beside locks."""
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"] if cache.exists() else []


# ---- the key


@given(st.permutations(["a", "b", "c"]))
def test_the_key_knows_the_order(order: list[str]) -> None:
    assert (replace(REQUEST, digests=order).key == REQUEST.key) == (order == ["a", "b", "c"])


@pytest.mark.parametrize(
    "other",
    [
        {"use": "test"},
        {"side": 3},
        {"settings": {"squash": "nearest"}},
        {"settings": {}},
        {"digests": ("a", "b", "d")},
        {"digests": ("a", "b")},
        {"digests": ("a", "bc")},
        {"digests": ()},
    ],
)
def test_the_key_knows_everything_that_decides_the_pixels(other: dict[str, Any]) -> None:
    assert re.fullmatch("[0-9a-f]{64}", REQUEST.key)
    assert replace(REQUEST, **other).key != REQUEST.key
    assert replace(REQUEST).key == REQUEST.key


def test_the_key_knows_the_format_and_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {REQUEST.key}
    for module, name, value in (
        (decoded, "FORMAT", FORMAT + 1),
        (PIL, "__version__", "0"),
        (PIL.features, "version", lambda feature: feature),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            keys.add(replace(REQUEST).key)
    assert len(keys) == 4


def test_other_content_is_another_entry(source: FileImages, cache: Path, opened: list[Path]) -> None:
    first = source.for_training(AUGMENTATION)
    Image.new("RGB", (30, 30), "red").save(source.paths[3])
    second = fresh(source).for_training(AUGMENTATION)
    assert len(entries_in(cache)) == 2
    assert len(opened) == 18
    same = torch.arange(9) != 3
    assert torch.equal(first.images[same], second.images[same])
    assert second.images[3, 0, 0, 1:].max() < 5


# ---- what it holds


def squashed(source: FileImages, side: int) -> tuple[Tensor, Tensor]:
    """Pillow alone, an image after the other."""
    images = [open_rgb(path) for path in source.paths]
    arrays = [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images]
    aspects = torch.tensor([image.width / image.height for image in images], dtype=torch.float32)
    return torch.from_numpy(np.stack(arrays)), aspects


def test_training_images_are_those_decoded_directly(source: FileImages, opened: list[Path]) -> None:
    images, aspects = squashed(source, 18)
    for each in (source, fresh(source)):
        training = each.for_training(AUGMENTATION)
        assert torch.equal(training.images, images)
        assert torch.equal(training.aspects, aspects)
        assert torch.equal(training.labels, source.labels)
        assert training.images.dtype == torch.uint8
        assert training.mapped is not None
    assert sorted(opened) == sorted(source.paths)  # once each, for both


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_test_images_are_those_decoded_directly(source: FileImages, opened: list[Path], size: int) -> None:
    direct = list(source.batches(TRANSFORM, size))
    opened.clear()
    for each in (source, fresh(source)):
        batches = list(each.for_testing(TRANSFORM, size))
        assert len(batches) == len(direct)
        for (pixels, labels), (expected, expected_labels) in zip(batches, direct, strict=True):
            assert torch.equal(pixels, expected)
            assert pixels.stride() == expected.stride()
            assert torch.equal(labels, expected_labels)
    assert sorted(opened) == sorted(source.paths)


def test_images_that_are_not_kept_leave_nothing(source: FileImages, cache: Path) -> None:
    assert len(list(source.batches(TRANSFORM, 4))) == 3
    assert not cache.exists()


def test_no_images_are_kept_too(opened: list[Path]) -> None:
    source = FileImages((), torch.empty(0, dtype=torch.int64))
    for _ in range(2):
        assert source.for_training(AUGMENTATION).images.shape == (0, 18, 18, 3)
        assert list(source.for_testing(TRANSFORM, 4)) == []
        assert list(source.batches(TRANSFORM, 4)) == []
    assert opened == []


def test_other_settings_are_another_entry(source: FileImages, cache: Path) -> None:
    source.for_training(AUGMENTATION)
    source.for_training(replace(AUGMENTATION, store=20))
    list(source.for_testing(TRANSFORM, 4))
    list(source.for_testing(replace(TRANSFORM, squash=True), 4))
    assert sorted((each.use, each.images, each.side) for each in list_entries()) == [
        ("test", 9, 16),
        ("test", 9, 16),
        ("training", 9, 18),
        ("training", 9, 20),
    ]
    assert len(entries_in(cache)) == 4


def test_files_are_hashed_once(source: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    source.for_training(AUGMENTATION)
    digests = source.digests()
    monkeypatch.setattr(sources, "_file_digest", never)
    again = source.digests()
    again.append("the list is the caller's")
    assert source.digests() == digests
    source.for_training(AUGMENTATION)


# ---- damage


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("file", ["images.npy", "aspects.npy", "entry.json"])
@pytest.mark.parametrize("damage", [half, longer, pipe, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_entry_is_built_anew(
    source: FileImages, cache: Path, opened: list[Path], file: str, damage: Callable[[Path], object]
) -> None:
    images, aspects = squashed(source, 18)
    source.for_training(AUGMENTATION)
    damage(entry_of(cache) / file)
    for decodings in (18, 18):
        training = source.for_training(AUGMENTATION)
        assert torch.equal(training.images, images)
        assert torch.equal(training.aspects, aspects)
        assert len(opened) == decodings
    assert len(entries_in(cache)) == 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("entry.json", 50_000 * b"["),
        ("entry.json", b"[]"),
        ("entry.json", b"1" + 5000 * b"0"),
        ("entry.json", b"\xff"),
        ("entry.json", 2**16 * b" " + b"{}"),
        *(("aspects.npy", np.array([1, 2, wrong], np.float32)) for wrong in (np.nan, np.inf, 0, -1)),
    ],
    ids=range(9),
)
def test_an_entry_made_to_harm_is_built_anew(cache: Path, file: str, content: Any) -> None:
    load_or_decode(REQUEST, decode)
    if isinstance(content, bytes):
        (cache / REQUEST.key / file).write_bytes(content)
    else:
        np.save(cache / REQUEST.key / file, content)
    assert load_or_decode(REQUEST, decode).values.tolist() == [0.5, 1, 1.5]
    load_or_decode(REQUEST, never)


def test_an_entry_of_another_size_is_built_anew(cache: Path) -> None:
    load_or_decode(REQUEST, decode)
    other = replace(REQUEST, digests=("a",))
    shutil.copytree(cache / REQUEST.key, cache / other.key)
    assert len(load_or_decode(other, lambda: (pixels(each) for each in (7,))).images.tensor) == 1


def test_an_unreadable_image_is_named_and_nothing_is_left(source: FileImages, cache: Path) -> None:
    source.paths[5].write_bytes(source.paths[5].read_bytes()[:60])
    for use in (lambda: source.for_training(AUGMENTATION), lambda: list(source.for_testing(TRANSFORM, 4))):
        with pytest.raises(DataError, match=r"5\.webp: (damaged|not an image)"):
            use()
    assert entries_in(cache) == []


def test_an_image_that_changes_while_it_is_read_is_not_kept(source: FileImages, cache: Path) -> None:
    source.digests()
    Image.new("RGB", (9, 9)).save(source.paths[2])
    with pytest.raises(DataError, match=r"2\.webp: it was changed while it was read"):
        source.for_training(AUGMENTATION)
    assert entries_in(cache) == []


# ---- the disk


@pytest.mark.parametrize("failing", [1, 2, 5])
def test_a_full_disk_is_one_line_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    flushes = 0

    class Full:
        """A file on a disk with room for so many writes."""

        def __init__(self, file: Any) -> None:
            self.file, self.writes = file, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> int:
            nonlocal flushes
            flushes += 1
            if flushes == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(content))

    real = Path.open

    def open_full(path: Path, mode: str = "r", **options: Any) -> Any:
        file = real(path, mode, **options)
        return Full(file) if mode == "wb" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(DataError, match=r"No space left on device\); free some space.*M2SD_CACHE") as caught:
            load_or_decode(REQUEST, decode)
    assert "\n" not in str(caught.value)
    assert entries_in(cache) == []
    assert len(load_or_decode(REQUEST, decode).images.tensor) == 3


def test_too_small_a_disk_is_refused_before_anything_is_decoded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=35))
    with pytest.raises(DataError, match="needs 36 B for the decoded images, and 35 B are free; free some space"):
        load_or_decode(REQUEST, never)
    assert entries_in(cache) == []


def test_a_place_that_cannot_be_made_is_refused(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(DataError, match=r"cache: decoded images cannot be kept there \(.*M2SD_CACHE"):
        load_or_decode(REQUEST, never)


# ---- several processes

PROCESS = """
import os, sys, time
import torch
from pathlib import Path
from m2sd_cli.data import sources
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.images import open_rgb

seen = 0

def slow(path):
    global seen
    seen += 1
    if seen == 3:
        print("midway", flush=True)
        if sys.argv[1] == "hang":
            time.sleep(600)
    time.sleep(0.05)
    return open_rgb(path)

sources.open_rgb = slow
paths = tuple(map(Path, sys.argv[2:]))
print("ready", flush=True)
sys.stdin.readline()
images = sources.FileImages(paths, torch.arange(len(paths)) % 3).for_training(Augmentation(size=16, store=18))
print(seen, int(images.images.long().sum()), flush=True)
"""


def start(how: str, source: FileImages) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, how, *map(str, source.paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_build_an_entry_once(source: FileImages, cache: Path) -> None:
    with start("both", source) as one, start("both", source) as other:
        go(one)
        go(other)
        outputs = sorted(process.communicate(timeout=PATIENCE)[0].split() for process in (one, other))
    total = str(int(squashed(source, 18)[0].long().sum()))
    assert outputs == [["0", total], ["midway", "9", total]]
    assert len(entries_in(cache)) == 1


def test_a_killed_build_is_cleared_by_the_next_of_any_images(source: FileImages, cache: Path) -> None:
    with start("hang", source) as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "midway\n"
        assert list_entries() == []
        assert clear() == (0, 0)  # an entry that is being built is left alone
        remains = entries_in(cache)
        load_or_decode(REQUEST, decode)
        assert set(remains) < set(entries_in(cache))
        process.send_signal(signal.SIGKILL)
    (remain,) = remains
    assert remain.endswith(".tmp")
    load_or_decode(replace(REQUEST, settings={}), decode)
    assert remain not in entries_in(cache)
    (cache / remain).mkdir()
    (cache / remain / "images.npy").write_bytes(b"half")
    images, _ = squashed(source, 18)
    assert torch.equal(source.for_training(AUGMENTATION).images, images)
    assert len(entries_in(cache)) == 3
