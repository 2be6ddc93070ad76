"""How far the figures of a training lie apart on other processors and with other seeds, as measured in scatter.toml."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, variance
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("scatter.toml")
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")
HEAD = ["session", "classes"]  # of the line above the figures of `m2sd evaluate`
# Times the deviation of one run: more than four deviations of a difference of two runs. Other processors alone scatter
# less than the seeds that are among the runs.
SAFETY = 6
# Classes that `m2sd predict` names for an image, the likeliest first.
GUESSES = re.compile(r"(?<=: )[^,\d\n]+ \d+\.\d %(?:, [^,\d\n]+ \d+\.\d %)+$", re.MULTILINE)


class Figure(NamedTuple):
    """A decimal figure of a printed text, under the name of its column or the word before it."""

    name: str
    value: float


def figures(text: str) -> list[Figure]:
    """Read the decimal figures of a printed text in order; one without a name of a group is a `share`."""
    found: list[Figure] = []
    columns: list[str] = []
    for line in text.splitlines():
        if line.split()[:2] == HEAD:
            columns = line.split()
        for each in DECIMAL.finditer(line):
            before = line[: each.start()].split()
            name = columns[len(before)] if len(line.split()) == len(columns) else before[-1] if before else ""
            found.append(Figure(name if name in group_of() else "share", float(each[0])))
    return found


@cache
def read_scatter() -> dict[str, Any]:
    """Read the file of runs."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def group_of() -> dict[str, str]:
    """Return the group of each name; figures of a group scatter alike, and lend each other their runs."""
    return {name: name_of for name_of, group in read_scatter()["groups"].items() for name in group["names"]}


def tolerances(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how far figures of each name may lie apart: SAFETY times the deviation of one run, pooled over a group."""
    variances: dict[str, list[float]] = defaultdict(list)
    for command in {run["command"] for run in runs}:
        printed = [figures(run["printed"]) for run in runs if run["command"] == command]
        for same in zip(*printed, strict=True):
            variances[group_of()[same[0].name]].append(variance(figure.value for figure in same))
    least = {group: each["least"] for group, each in read_scatter()["groups"].items()}
    return {name: max(SAFETY * fmean(variances[group]) ** 0.5, least[group]) for name, group in group_of().items()}


@cache
def known_tolerances() -> dict[str, float]:
    """Return the tolerances by all runs of the file."""
    return tolerances(read_scatter()["run"])


def without_figures(text: str) -> str:
    """Return the words of a printed text, in which figures and the classes that are named for an image are left out."""
    return DECIMAL.sub("#", GUESSES.sub("GUESSES", text))


def agree(one: str, other: str, allowed: dict[str, float] | None = None) -> bool:
    """Tell if the words of two printed texts are the same, and their figures differ by no more than they may.

    Of the classes that are named for an image the order may be another one, and unlikely ones may be others.
    """
    allowed = known_tolerances() if allowed is None else allowed
    if without_figures(one) != without_figures(other):
        return False
    for first, second in zip(guesses(one), guesses(other), strict=True):
        if any(abs(first.get(name, 0) - second.get(name, 0)) > allowed["share"] for name in first | second):
            return False
    pairs = zip(figures(GUESSES.sub("", one)), figures(GUESSES.sub("", other)), strict=True)
    return all(abs(a.value - b.value) <= allowed[a.name] for a, b in pairs)


def guesses(text: str) -> list[dict[str, float]]:
    """Read the classes that are named for each image, with their shares."""
    return [
        {name: float(share) for name, share in re.findall(r"([^,\d\n]+?) (\d+\.\d) %(?:, )?", found[0])}
        for found in GUESSES.finditer(text)
    ]


def faults(text: str) -> list[str]:
    """List the figures of a table of `m2sd evaluate` that do not follow from its other figures.

    HM is the harmonic mean of base and novel, `overall` their mean by images, AVG and AHM are means over sessions, and
    PD is a difference. That holds on every machine, within the rounding of figures.
    """
    sessions: list[dict[str, float]] = []
    last: dict[str, float] = {}
    columns: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:2] == HEAD:
            columns = words
        elif columns and len(words) == len(columns):
            sessions.append({name: float(word) for name, word in zip(columns, words, strict=True) if word != "-"})
        elif words[:1] == ["AVG"]:
            last = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    expected: list[tuple[str, float, float]] = []
    for row in sessions:
        if "HM" in row:
            harmonic = 2 * row["base"] * row["novel"] / (row["base"] + row["novel"])
            expected.append((f"HM of session {row['session']:.0f}", row["HM"], harmonic))
            images = sessions[0]["images"]
            whole = (images * row["base"] + (row["images"] - images) * row["novel"]) / row["images"]
            expected.append((f"overall of session {row['session']:.0f}", row["overall"], whole))
    if sessions and last:
        overall, harmonics = [row["overall"] for row in sessions], [row["HM"] for row in sessions if "HM" in row]
        expected.append(("AVG", last["AVG"], sum(overall) / len(overall)))
        expected.append(("AHM", last["AHM"], sum(harmonics) / len(harmonics)))
        expected.append(("PD", last["PD"], overall[0] - overall[-1]))
    return [
        f"{name} is {found}, and {value:.2f} follows" for name, found, value in expected if abs(found - value) > 0.02
    ]
