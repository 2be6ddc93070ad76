"""Names are looked up, listed, suggested and completed; packages add to them by registering or by entry points."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.progress import report_to
from m2sd_cli.registry import WELL_FORMED, Registry, load
from tests.helpers import Heard

GROUP = "m2sd.fruits"


@dataclass(frozen=True)
class Fruit:
    builder: str | Callable[[], str]


@pytest.fixture
def fruits() -> Registry[Fruit]:
    return Registry("--fruit", GROUP, Fruit, {"apple": Fruit("json:dumps"), "pear": Fruit("json:loads")})


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, source: str) -> None:
    """Put a package with entry points on the path, as an installer lays it out."""
    info = folder / "plum_tree-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plum-tree\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}\n")
    (folder / "plum_tree.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "plum_tree", raising=False)


PLUM = "from tests.test_registry import Fruit\nPLUM = Fruit('plum_tree:build')\nPIT = 'no fruit'\n"


def test_an_entry_is_found_by_its_name(fruits: Registry[Fruit]) -> None:
    assert fruits["pear"] == Fruit("json:loads")
    assert "pear" in fruits
    assert "plum" not in fruits
    assert fruits.names() == ("apple", "pear")
    assert fruits.listed() == "apple or pear"
    assert fruits.complete("pe") == ["pear"]
    assert fruits.origin("pear") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("peer", "--fruit peer: choose apple, pear (did you mean pear?); m2sd --plugin FILE.py adds others"),
        ("x", "--fruit x: choose apple, pear; m2sd --plugin FILE.py adds others"),
    ],
)
def test_an_unknown_name_is_answered_with_the_names(fruits: Registry[Fruit], name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        fruits[name]
    assert str(error.value) == message


def test_three_names_are_enumerated(fruits: Registry[Fruit]) -> None:
    fruits.register("plum", Fruit("json:dumps"), "json:dumps")
    assert fruits.listed() == "apple, pear or plum"


def test_a_registered_entry_tells_its_package(fruits: Registry[Fruit]) -> None:
    fruits.register("plum", Fruit("pytest:main"), "pytest:main")
    fruits.register("fig", Fruit(lambda: "fig"), test_a_registered_entry_tells_its_package)
    assert fruits["plum"] == Fruit("pytest:main")
    assert fruits.names() == ("apple", "pear", "plum", "fig")
    assert fruits.origin("plum") == f"pytest {pytest.__version__}"
    assert fruits.origin("fig") == "tests without a version"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pear", "--fruit pear: the name is taken; choose another"),
        ("Plum", "--fruit Plum: " + WELL_FORMED),
        ("", "--fruit : " + WELL_FORMED),
        ("-plum", "--fruit -plum: " + WELL_FORMED),
    ],
)
def test_a_name_that_does_not_fit_is_refused(fruits: Registry[Fruit], name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        fruits.register(name, Fruit("json:dumps"), "json:dumps")
    assert str(error.value) == message


def test_a_package_adds_entries(fruits: Registry[Fruit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "plum = plum_tree:PLUM\npear = plum_tree:PLUM\nBad Name = plum_tree:PLUM"
    install(tmp_path, monkeypatch, lines, PLUM)
    assert fruits["pear"] == Fruit("json:loads")
    assert fruits.names() == ("apple", "pear", "plum")
    assert fruits.origin("plum") == "plum-tree 1.2"
    assert fruits.origin("pear") is None
    with pytest.raises(UsageError, match="--fruit Bad Name: its package has to rename it: names have lower"):
        fruits["Bad Name"]
    assert "plum_tree" not in sys.modules
    assert fruits["plum"] == Fruit("plum_tree:build")
    with pytest.raises(UsageError, match="the name is taken"):
        fruits.register("plum", Fruit("json:dumps"), "json:dumps")


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [
        ("plum_tree:PIT", PLUM, "--fruit plum: plum_tree:PIT of plum-tree 1.2 is no Fruit"),
        ("plum_tree:PLUM", "1 / 0", "--fruit plum: plum-tree 1.2 cannot be loaded (division by zero)"),
    ],
)
def test_a_broken_package_is_named(
    fruits: Registry[Fruit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, source: str, message: str
) -> None:
    install(tmp_path, monkeypatch, f"plum = {value}", source)
    with pytest.raises(M2sdError) as error:
        fruits["plum"]
    assert str(error.value) == message


def test_packages_are_not_looked_at_for_a_known_name(fruits: Registry[Fruit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("looked at packages"))
    assert "apple" in fruits
    assert fruits["apple"] == Fruit("json:dumps")


def test_a_builder_is_a_function_or_its_name() -> None:
    import json

    assert load("json:dumps") is json.dumps
    assert load(json.dumps) is json.dumps


@pytest.mark.parametrize("builder", ["json:nothing", "no_such_module:build", "failing:build", ":build"])
def test_a_builder_that_is_not_there_is_named(builder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(M2sdError, match=f"^{builder}: it cannot be imported"):
        load(builder)


def test_a_list_leaves_a_broken_package_out_and_says_so(
    fruits: Registry[Fruit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "fig = plum_tree:FIG\nplum = plum_tree:PLUM", PLUM)
    heard = Heard()
    with report_to(heard):
        assert [*fruits.loadable()] == ["apple", "pear", "plum"]
    (line,) = heard.lines
    assert line.startswith("left out: --fruit fig: plum-tree 1.2 cannot be loaded (")
