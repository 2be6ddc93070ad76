"""Run folders that earlier versions wrote: read, used and added to, and not changed by it.

Each folder of `old` is a run of three base classes and two sessions (purple and white, grey) as the version wrote it,
its weights rounded so that they take little room.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import m2sd_cli
from m2sd_cli.errors import RunError
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.files import encode_tensors
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import SCHEMA_VERSION

if TYPE_CHECKING:
    from tests.conftest import Outcome, Pictures

OLD = sorted((Path(__file__).parent / "old").iterdir())
RIGHT = {"version-1": [2, 2, 4], "version-2": [6, 8, 10]}  # images of 6, 8, 10
OF_MEANS = ["means", "teen"]

Tree = Callable[[Path], dict[str, bytes | None]]


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest) -> Path:
    """An old run as it was written."""
    path: Path = request.param
    return path


@pytest.fixture
def old(written: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(written, tmp_path / "old"))


@pytest.fixture
def orange(pictures: "Pictures", tmp_path: Path) -> Path:
    """Shots of a class that nobody was taught."""
    shutil.copytree(pictures.labelled / "orange", tmp_path / "shots" / "orange")
    return tmp_path / "shots"


def test_every_earlier_version_is_kept() -> None:
    assert [path.name for path in OLD] == [f"version-{number}" for number in range(1, SCHEMA_VERSION)]


def test_it_is_sound(old: Path) -> None:
    assert RunFolder(old).verify() == []
    assert [stored.manifest.classes_so_far for stored in RunFolder(old).chain()] == [3, 5, 6]


def test_it_answers_as_it_did(written: Path, old: Path, pictures: "Pictures", tree: Tree) -> None:
    before = tree(old)
    found = m2sd_cli.evaluate(run=old, test=pictures.labelled, device="cpu")
    assert found.classifier == "means"
    assert (found.confidence.calibrated, found.calibration) == (False, [])
    assert [(each.classes, each.images) for each in found.figures.sessions] == [(3, 6), (5, 8), (6, 10)]
    wanted = [
        100 * right / each.images for right, each in zip(RIGHT[written.name], found.figures.sessions, strict=True)
    ]
    assert [each.overall for each in found.figures.sessions] == pytest.approx(wanted)
    assert tree(old) == before


def test_it_is_added_to_and_taken_from(old: Path, orange: Path, tree: Tree) -> None:
    before = tree(old)
    stored = m2sd_cli.increment(3, orange, run=old, device="cpu")
    assert stored.manifest.classes_so_far == 7
    assert (stored.manifest.classifier, stored.manifest.views) == ("means", 1)
    assert RunFolder(old).verify() == []
    added = tree(old)
    assert {name: added[name] for name in before if name != "head.json"} == {
        name: content for name, content in before.items() if name != "head.json"
    }
    assert [each.name for each in m2sd_cli.open_run(old).chain()[-1].manifest.classes] == ["orange"]
    with RunFolder(old).locked("test"):
        RunFolder(old).remove_sessions(first=3)
    assert [stored.manifest.classes_so_far for stored in RunFolder(old).chain()] == [3, 5, 6]


@pytest.mark.parametrize("added", [False, True])
def test_it_answers_with_what_needs_class_means_only(
    old: Path, orange: Path, pictures: "Pictures", added: bool, m2sd: Callable[..., "Outcome"]
) -> None:
    if added:
        m2sd_cli.increment(3, orange, run=old, classifier="teen", device="cpu")
        assert load_session(RunFolder(old)).classifier == "teen"
    for name in OF_MEANS:
        assert m2sd_cli.evaluate(run=old, test=pictures.labelled, classifier=name, device="cpu").classifier == name
    for name in ("fecam", "ranpac"):
        for words in (
            ["evaluate", "--test", pictures.labelled],
            ["predict", pictures.labelled],
            ["export", "--format", "pt2", "--out", orange / "out.pt2"],
            ["increment", "--session", 4 if added else 3, "--shots", pictures.second_shots],
        ):
            done = m2sd(*words, "--run", old, "--classifier", name)
            assert (done.code, done.out) == (4, "")
            assert done.err == (
                f"m2sd: {old}: the classifier {name} needs more than this run holds, which an earlier version "
                f"made; choose means, teen, or distill again\n"
            )
        with pytest.raises(RunError, match="distill again"):
            load_session(RunFolder(old), 1, classifier=name)


def test_what_it_holds_is_written_again_as_it_was(old: Path) -> None:
    """So that running a chain of old once more can be compared by its hashes."""
    folder = RunFolder(old)
    for stored in [folder.pretrain(), *folder.chain()]:
        again = encode_tensors(folder.tensors(stored))
        assert hashlib.sha256(again).hexdigest() == stored.manifest.checkpoint.sha256
