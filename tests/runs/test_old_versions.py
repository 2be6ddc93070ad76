"""Run folders that earlier versions wrote: read, used and added to, and not changed by it.

Each folder of `old` is a run of three base classes and two sessions (purple and white, grey) as the version wrote it,
its weights rounded so that they take little room.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from m2sd_cli import api
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import SCHEMA_VERSION

if TYPE_CHECKING:
    from tests.conftest import Pictures

OLD = sorted((Path(__file__).parent / "old").iterdir())

Tree = Callable[[Path], dict[str, bytes | None]]


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old run."""
    return Path(shutil.copytree(request.param, tmp_path / "old"))


def test_every_earlier_version_is_kept() -> None:
    assert [path.name for path in OLD] == [f"version-{number}" for number in range(1, SCHEMA_VERSION)]


def test_it_is_sound(old: Path) -> None:
    assert RunFolder(old).verify() == []
    assert [link.manifest.classes_so_far for link in RunFolder(old).chain()] == [3, 5, 6]


def test_it_answers_as_it_did(old: Path, pictures: "Pictures", tree: Tree) -> None:
    before = tree(old)
    figures = api.evaluate(run=old, test=pictures.labelled, device="cpu").figures
    assert [(each.classes, each.images) for each in figures.sessions] == [(3, 6), (5, 8), (6, 10)]
    assert [each.overall for each in figures.sessions] == pytest.approx([100 * 2 / 6, 100 * 2 / 8, 100 * 4 / 10])
    assert tree(old) == before


def test_it_is_added_to_and_taken_from(old: Path, pictures: "Pictures", tmp_path: Path, tree: Tree) -> None:
    before = tree(old)
    shots = tmp_path / "shots"
    shutil.copytree(pictures.labelled / "orange", shots / "orange")
    link = api.increment(3, shots, run=old, device="cpu")
    assert link.manifest.classes_so_far == 7
    assert RunFolder(old).verify() == []
    added = tree(old)
    assert {name: added[name] for name in before} == before
    assert [each.name for each in api.open_run(old).chain()[-1].manifest.classes] == ["orange"]
