"""Real processes ended by real signals at random times, and several of them at once."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.errors import RunError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Stripes
from tests.survival.nursery import End, Nursery
from tests.survival.scenes import DEEDS, ROUNDS, Scene, hurt, state

KILLS = 2 * ROUNDS  # of each command by each signal
WRITERS = 2
CHANGES = 5 * ROUNDS

Scenes = Callable[[str], Scene]
Judge = Callable[[Scene, Path, End], bool]


@pytest.mark.parametrize("name", DEEDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_killed_at_any_time(
    name: str, number: signal.Signals, scenes: Scenes, nursery: Nursery, judge: Judge, tmp_path: Path
) -> None:
    scene = scenes(name)
    folder = tmp_path / "folder"
    assert scene.undisturbed is not None
    draw = random.Random(f"{name} {number}")
    for _ in range(scene.deed.tries(KILLS)):
        end = hurt(nursery, scene, folder, signal=number, after=draw.uniform(0, scene.undisturbed.seconds))
        assert end.code in (0, -number, 130), end
        judge(scene, folder, end)


@pytest.fixture(scope="module")
def nurseries(nursery: Nursery) -> Iterator[list[Nursery]]:
    others = [Nursery() for _ in range(WRITERS - 1)]
    yield [nursery, *others]
    for each in others:
        each.close()


def test_of_several_writers_one_wins_and_the_others_are_told(
    scenes: Scenes, nurseries: list[Nursery], tmp_path: Path
) -> None:
    scene = scenes("increment")
    for _ in range(ROUNDS):
        words = scene.set(tmp_path / "folder")
        for each in nurseries:
            each.begin(*words)
        ends = [each.end() for each in nurseries]
        assert sorted(end.code for end in ends) == [0, *[4] * (WRITERS - 1)], ends
        for end in ends:
            assert end.code == 0 or any(
                word in end.err for word in ("is writing to it", "try again", "exists already")
            ), end
        assert state(tmp_path / "folder" / "run") == scene.new


def test_a_reader_never_sees_half_a_session(
    scenes: Scenes, stripes: Stripes, nurseries: list[Nursery], tmp_path: Path
) -> None:
    """One process teaches, undoes and distils anew, while this one reads all the time."""
    scene = scenes("increment")
    writer = nurseries[0]
    words = scene.set(tmp_path / "folder")
    run = tmp_path / "folder" / "run"
    undo = ["sessions", "undo", "--yes", "--run", str(run)]
    codes: list[int] = []

    def write() -> None:
        for _ in range(CHANGES):
            codes.extend(writer.run(*each).code for each in (words, undo))

    thread = threading.Thread(target=write)
    thread.start()
    seen: set[tuple[str, ...]] = set()
    complaints: list[str] = []
    while thread.is_alive():
        try:
            folder = RunFolder(run)
            chain = folder.chain()
            for stored in chain:
                folder.tensors(stored)
            seen.add(tuple(stored.manifest.checkpoint.sha256 for stored in chain))
        except RunError as error:
            complaints.append(str(error))
    thread.join()
    assert all("try again" in complaint for complaint in complaints)
    assert not any(codes)
    assert seen == {scene.old[1:], scene.new[1:]}
    assert len(list(m2sd_cli.predict([stripes.labelled], run=run, device="cpu"))) > 0
