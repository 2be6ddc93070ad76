"""Images in a mapped file: the same as in memory, and few of them resident."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.data import mapped
from m2sd_cli.data.mapped import MappedImages, npy_header
from m2sd_cli.data.sources import TrainingImages

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def saved(folder: Path, images: int = 7, side: int = 5) -> tuple[Path, torch.Tensor]:
    array = np.random.default_rng(images).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    np.save(folder / "images.npy", array)
    return folder / "images.npy", torch.from_numpy(array)


@pytest.mark.parametrize("images", [0, 1, 7])
def test_the_tensor_is_the_file(tmp_path: Path, images: int) -> None:
    path, expected = saved(tmp_path, images)
    assert torch.equal(MappedImages(path, tuple(expected.shape)).tensor, expected)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_taking_is_indexing(tmp_path_factory: pytest.TempPathFactory, indices: list[int]) -> None:
    path, expected = saved(tmp_path_factory.mktemp("mapped"))
    mapped_images = MappedImages(path, (7, 5, 5, 3))
    assert torch.equal(mapped_images.take(torch.tensor(indices)), expected[indices])
    mapped_images.release()
    assert torch.equal(mapped_images.tensor, expected)


def test_no_warning_is_given_nor_silenced(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        MappedImages(path, (7, 5, 5, 3)).take(torch.tensor([0]))
    assert given == []
    assert warnings.filters == filters


def test_the_tensor_outlives_its_owner_and_its_file(tmp_path: Path) -> None:
    path, expected = saved(tmp_path, 3000, 32)
    tensor = MappedImages(path, (3000, 32, 32, 3)).tensor
    path.unlink()
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize("step", [1, 2 * 75, 10**6])
def test_copying_in_steps_copies_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    path, expected = saved(tmp_path)
    monkeypatch.setattr(mapped, "RESIDENT", step)
    assert torch.equal(MappedImages(path, (7, 5, 5, 3)).to(torch.device("cpu")), expected)


def test_nothing_is_copied_to_the_processor(tmp_path: Path) -> None:
    path, expected = saved(tmp_path)
    mapped_images = MappedImages(path, (7, 5, 5, 3))
    data = TrainingImages(mapped_images.tensor, torch.ones(7), torch.arange(7), mapped_images)
    assert data.to(torch.device("cpu")) is data
    moved = data.to(torch.device("meta"))
    assert moved.mapped is None
    assert moved.images.shape == expected.shape
    assert {each.device.type for each in (moved.images, moved.aspects, moved.labels)} == {"meta"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
        lambda content: content[:60],
        lambda content: b"\x80" + content[1:],
        lambda content: content.replace(b"|u1", b"|i1"),
        lambda content: content.replace(b"(7, 5, 5, 3)", b"(5, 7, 5, 3)"),
        lambda content: content.replace(b"'fortran_order': False", b"'fortran_order': True "),
        lambda content: content.replace(b"{", b"("),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path, _ = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"images\.npy: not an array of"):
        MappedImages(path, (7, 5, 5, 3))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_header_is_numpys(tmp_path: Path, kind: type[np.generic]) -> None:
    array = np.ones((3, 2), kind)
    (tmp_path / "a.npy").write_bytes(npy_header(kind, array.shape) + array.tobytes())
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert read.dtype == kind
    assert np.array_equal(read, array)


@LINUX
def test_a_file_larger_than_memory_can_be_mapped(tmp_path: Path) -> None:
    """More than the kernel would promise for memory that may be written to."""
    side = 2**10
    images = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (3 * side**2)
    shape = (images, side, side, 3)
    with (tmp_path / "images.npy").open("wb") as file:
        file.write(npy_header(np.uint8, shape))
        file.truncate(file.tell() + images * 3 * side**2)  # a hole, which takes no room on the disk
    mapped_images = MappedImages(tmp_path / "images.npy", shape)
    assert not mapped_images.take(torch.tensor([0, images // 2, images - 1])).any()


RESIDENT = """
import sys, torch
from pathlib import Path
from m2sd_cli.data import mapped
from m2sd_cli.data.sources import TrainingImages

def bytes_of(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

path, images, side, *limits = sys.argv[1:]
shape = (int(images), int(side), int(side), 3)
for limit in limits:
    mapped.RESIDENT = int(limit)
    mapped_images = mapped.MappedImages(Path(path), shape)
    data = TrainingImages(mapped_images.tensor, torch.ones(shape[0]), torch.arange(shape[0]), mapped_images)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(0))
    assert data.gather(order[:32])[0].eq(1).all()  # loads what torch needs for it
    files, whole = bytes_of("RssFile"), bytes_of("VmRSS")
    for begin in range(0, min(shape[0], 600 * 32), 32):
        assert data.gather(order[begin : begin + 32])[0].eq(1).all()
    print(bytes_of("RssFile") - files, bytes_of("VmHWM") - whole)
"""


@LINUX
@pytest.mark.parametrize("side", [256, 16])
def test_a_pass_over_a_large_file_leaves_little_resident(tmp_path: Path, side: int) -> None:
    pieces, piece = 1500, 3 * 2**16
    images = pieces * piece // (3 * side**2)
    with (tmp_path / "images.npy").open("wb") as file:
        file.write(npy_header(np.uint8, (images, side, side, 3)))
        for _ in range(pieces):
            file.write(b"\1" * piece)

    words = [str(tmp_path / "images.npy"), str(images), str(side), str(32 * 2**20), str(2**40)]
    done = subprocess.run([sys.executable, "-c", RESIDENT, *words], capture_output=True, text=True, check=True)
    letting_go, keeping = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    left, most = letting_go
    assert left < 2**20
    assert most < 160 * 2**20  # of which the allocator keeps some tens of MB of batches that were freed
    left, most = keeping
    assert left > 250 * 2**20  # nearly all of it
    assert most > 250 * 2**20
