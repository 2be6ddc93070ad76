"""The examples of CONTRIBUTING.md, and those of one's own parts, run as they are written there."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from m2sd_cli.cli.commands import COMMANDS, Entry
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.registry import Registry, load
from m2sd_cli.tables import BACKBONES, CLASSIFIERS
from tests.helpers import Cli

ROOT = Path(__file__).parents[2]
TEXT, PARTS = ((ROOT / name).read_text(encoding="utf-8") for name in (".github/CONTRIBUTING.md", "m2sd_cli/README.md"))
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```$", TEXT + PARTS, flags=re.MULTILINE | re.DOTALL))
[LAYOUT] = re.findall(r"^```text\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
[TOML] = re.findall(r"^```toml\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the examples, in the working folder and on the path of imports."""
    (tmp_path / "toyplug").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_adds_its_own_parts_and_a_command_reads_the_run(
    examples: Path, trained: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for table in (BACKBONES, CLASSIFIERS, DATA_SETS):
        monkeypatch.setattr(table, "entries", dict(table.entries))
    runpy.run_path(str(examples / "script.py"))
    assert 20 <= float(capsys.readouterr().out) <= 100
    monkeypatch.setitem(COMMANDS, "classes", Entry("classes:classes", "List the classes of a run."))
    assert m2sd("classes", "--run", "run").out.split() == ["blue", "green", "red", "yellow", "cyan"]
    for name, value in runpy.run_path(str(examples / "test_classes.py")).items():
        if name.startswith("test_"):
            value(trained, m2sd)
    other = json.loads(m2sd("evaluate", "--classifier", "neighbours", "--run", "run", "--device", "cpu", "--json").out)
    assert 20 <= other["average"] <= 100


def test_a_package_adds_its_own_parts(examples: Path) -> None:
    pyproject = tomllib.loads(TOML)
    project, [package] = pyproject["project"], pyproject["tool"]["setuptools"]["packages"]
    assert pyproject["build-system"]["build-backend"].partition(".")[0] in pyproject["build-system"]["requires"][0]
    first, *modules = LAYOUT.split()
    assert first == "pyproject.toml"
    assert f"{package}/__init__.py" in modules
    for module in modules:
        path = Path(module)
        assert path.parent == Path(package)
        content = "" if path.name == "__init__.py" else FILES.get(module) or FILES[path.name]
        (examples / path).write_text(content, encoding="utf-8")
    # Only the package is there, so that no builder is taken from a module beside it.
    for name in FILES:
        if "/" not in name:
            (examples / name).unlink()

    metadata = examples / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    named = f"Name: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\n{named}")
    groups = project["entry-points"]
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in names.items())
        for group, names in groups.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for table in (BACKBONES, CLASSIFIERS, DATA_SETS):
        fresh = Registry(table.option, table.group, table.kind, {})
        for name in groups[table.group]:
            entry = fresh[name]
            assert isinstance(entry, table.kind)
            assert load(entry.builder).__module__.partition(".")[0] == package
            assert fresh.origin(name) == f"{project['name']} {project['version']}"
