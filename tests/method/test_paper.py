"""The map from the paper to the code, `m2sd_cli/method/README.md`: what it names exists, and what exists is named."""

import re
from pathlib import Path

from m2sd_cli import method
from m2sd_cli.registry import load
from m2sd_cli.tables import CLASSIFIERS

FOLDER = Path(method.__path__[0])
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table below a heading."""
    text = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert text
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_term_and_every_virtual_image_is_among_the_equations() -> None:
    named = {name for *_, names in section("Each equation") for name in quoted(names)}
    assert {"l_ce", "l_kl", "l_at", "mixup", "cutmix", "soft_labels", "total_loss", "ClassMeans"} <= named


def test_the_modules_of_other_sources_exist() -> None:
    rows = section("Where we depart from other sources")
    assert rows
    assert {module for row in rows for module in quoted(row[0])} <= {path.name for path in FOLDER.glob("*.py")}
    builders = {load(CLASSIFIERS[name].builder).__module__.rpartition(".")[2] for name in CLASSIFIERS.entries}
    assert {f"{name}.py" for name in builders - {"means"}} <= {module for row in rows for module in quoted(row[0])}
