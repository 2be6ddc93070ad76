"""Killed, or failing to write, at every moment at which a command changes the file system: the old state or the new.

By default some moments of each command are tried; all of them with M2SD_ROUNDS=50.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.survival.nursery import End, Nursery
from tests.survival.scenes import DEEDS, ROUNDS, Scene, hurt

MOMENTS = 4 * ROUNDS  # to try of each command
SIZES = 4 * ROUNDS

Scenes = Callable[[str], Scene]
Judge = Callable[[Scene, Path, End], bool]


def some(moments: int, count: int, seed: str) -> list[int]:
    """Which of the moments to try, in their order."""
    every = range(1, moments + 1)
    return sorted(every if count >= moments else random.Random(seed).sample(every, count))


@pytest.mark.parametrize("name", DEEDS)
def test_a_command_killed_at_any_moment(
    name: str, scenes: Scenes, nursery: Nursery, judge: Judge, tmp_path: Path
) -> None:
    scene = scenes(name)
    folder = tmp_path / "folder"
    assert scene.undisturbed is not None
    moments = scene.undisturbed.moments
    assert moments > 5
    done = []
    for moment in some(moments, scene.deed.tries(MOMENTS), name):
        end = hurt(nursery, scene, folder, crash_at=moment)
        assert end.code == -9
        done.append(judge(scene, folder, end))
    assert done == sorted(done)  # once it is done it stays done
    print(f"{name}: {len(done)} of {moments} moments, done at {sum(done)} of them")


@pytest.mark.parametrize("name", DEEDS)
@pytest.mark.parametrize("failures", [1, 10**9], ids=["once", "for good"])
def test_a_command_whose_disk_fails_at_any_moment(
    name: str, failures: int, scenes: Scenes, nursery: Nursery, judge: Judge, tmp_path: Path
) -> None:
    scene = scenes(name)
    folder = tmp_path / "folder"
    assert scene.undisturbed is not None
    moments = scene.undisturbed.moments
    for moment in some(moments, scene.deed.tries(MOMENTS), f"{name} {failures}"):
        error = errno.ENOSPC if moment % 2 else errno.EIO
        end = hurt(nursery, scene, folder, fail_at=moment, failures=failures, errno=error)
        assert end.code in (0, 4), (moment, end)
        if end.code:
            assert end.err.splitlines()[-1].startswith("m2sd: "), end
            assert end.out == ""
        judge(scene, folder, end)


def some_sizes(typical: list[int], largest: int, count: int, seed: str) -> list[int]:
    """Half of them of the size of manifests, half of any."""
    draw = random.Random(seed)
    return [draw.choice(typical) if draw.random() < 0.5 else draw.randrange(largest) for _ in range(count)]


@pytest.mark.parametrize("name", DEEDS)
def test_a_command_whose_disk_is_full(
    name: str, scenes: Scenes, nursery: Nursery, judge: Judge, tmp_path: Path
) -> None:
    """The system itself cuts a write short and refuses the next one."""
    scene = scenes(name)
    folder = tmp_path / "folder"
    largest = 1_200_000  # bytes, of a checkpoint
    typical = [0, 100, 700, 2000, 4000]
    for size in some_sizes(typical, largest, scene.deed.tries(SIZES), name):
        end = hurt(nursery, scene, folder, file_size=size)
        assert end.code in (0, 4), (size, end)
        if end.code:
            assert end.err.splitlines()[-1].startswith("m2sd: "), end
        judge(scene, folder, end)
