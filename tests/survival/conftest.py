"""Scenes of commands to hurt, and a judge of what is left."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Stripes
from tests.survival.nursery import End, Nursery
from tests.survival.scenes import DEEDS, DISTILL, PRETRAIN, Deed, Scene, state


@pytest.fixture(scope="session")
def scenes(nursery: Nursery, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Scene]:
    """The scene of a deed, by its name; every one is done once without any trouble."""
    root = tmp_path_factory.mktemp("scenes")
    paths = {
        "DATA": str(stripes.folder),
        "FIRST": str(stripes.first_shots),
        "SECOND": str(stripes.second_shots),
    }
    empty = Scene(Deed([], -1, []), None, (), (), paths)
    (root / "2").mkdir()
    for deed in (PRETRAIN, DISTILL):
        assert nursery.run(*empty.spelt(deed, root / "2")).code == 0
    for session, shots in ((1, stripes.first_shots), (2, stripes.second_shots)):
        m2sd_cli.increment(session, shots, run=root / "2" / "run", device="cpu")
    for left, first in (("1", 2), ("-2", 0)):
        shutil.copytree(root / "2", root / left)
        RunFolder(root / left / "run").remove_sessions(first=first)
    known: dict[str, Scene] = {}

    def scene(name: str) -> Scene:
        if name not in known:
            deed = DEEDS[name]
            origin = None if deed.before == -1 else root / str(deed.before) / "run"
            old = () if origin is None else state(origin)
            done = root / name
            words = Scene(deed, origin, old, (), paths).set(done)
            end = nursery.run(*words)
            assert end.code == 0, end
            known[name] = Scene(deed, origin, old, state(done / "run"), paths, end)
        return known[name]

    return scene


@pytest.fixture
def judge(nursery: Nursery) -> Callable[[Scene, Path, End], bool]:
    """That what is left is the old state or the new one, and that a person can go on; whether it is the new one."""

    def judged(scene: Scene, folder: Path, end: End) -> bool:
        run, out = folder / "run", (folder / "out").read_bytes()
        assert "Traceback" not in end.err, end.err
        after = state(run)
        assert after in (scene.old, scene.new), end
        exported = scene.deed.words[0] == "export"
        assert out == b"old" or (exported and len(out) > 10_000), (end, len(out))
        done = after == scene.new and (not exported or out != b"old")
        assert end.code != 0 or done, end
        if scene.deed.again and not (done and not exported):
            again = nursery.run(*scene.spelt(scene.deed.again, folder))
            if "no interrupted training in it" in again.err or "or start over with --force" in again.err:
                again = nursery.run(*scene.spelt(scene.deed.words, folder))
            assert again.code == 0, (end, again)
            assert state(run) == scene.new
            left = {path.name for path in run.rglob("*") if path.name != ".lock"}
            assert not {name for name in left if name.startswith(".") or name in ("incoming", "training")}, left
        return done

    return judged
