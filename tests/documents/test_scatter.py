"""The tolerances of printed figures: every run that was measured agrees with the others, and lies do not."""

import re
from typing import Any

import pytest

from tests.documents.play import mask
from tests.documents.scatter import HEAD, agree, faults, figures, group_of, known_tolerances, read_scatter, tolerances
from tests.documents.test_readme import README

RUNS: list[dict[str, Any]] = read_scatter()["run"]
DEMO = [mask(run["printed"]) for run in RUNS if run["command"] == "m2sd demo"]
SHOWN = {block.marker("prints"): mask(block.text) for block in README.blocks if block.marker("prints") is not None}
[SHOWN_DEMO] = [text for command, text in SHOWN.items() if command and command.startswith("m2sd demo")]
[SHOWN_LEARN] = [text for command, text in SHOWN.items() if command and command.startswith("m2sd learn")]


def table(text: str) -> str:
    """The part of a text from the head of the table of sessions on."""
    return text[text.index(" ".join(HEAD)) :].strip()


@pytest.mark.parametrize("run", range(len(RUNS)))
def test_a_run_agrees_with_those_of_seed_0_by_what_the_others_allow(run: int) -> None:
    """Each is the new processor in turn; the README shows a run of seed 0, and its command trains no other seed."""
    new = RUNS[run]
    others = [each for number, each in enumerate(RUNS) if number != run]
    compared = [each for each in others if each["command"] == new["command"] and each.get("seed", 0) == 0]
    for other in compared if new.get("seed", 0) == 0 else compared[:1]:
        assert agree(mask(new["printed"]), mask(other["printed"]), tolerances(others))


def test_the_readme_shows_what_all_runs_allow() -> None:
    for run in RUNS:
        [shown] = [text for command, text in SHOWN.items() if command and command.startswith(run["command"])]
        shown = table(shown) if run["command"] == "m2sd demo" else shown
        assert agree(shown.strip(), mask(run["printed"]).strip())


def test_the_figures_of_every_table_follow_from_one_another() -> None:
    assert [faults(text) for text in (SHOWN_DEMO, *DEMO)] == [[]] * (1 + len(DEMO))


def test_the_sentence_below_the_output_repeats_it() -> None:
    *_, last = re.findall(r"^ 2 .*$", SHOWN_DEMO, re.MULTILINE)
    base, novel = last.split()[4:6]
    sentence = f"At the end {float(base):.0f} % and {float(novel):.0f} % of their test images are answered rightly."
    assert sentence in " ".join(README.text.split())


def changed(text: str, session: int, **values: float) -> str:
    """Write other values into a session's row."""
    columns, *rows = text.splitlines()
    words = rows[session].split()
    for name, value in values.items():
        words[columns.split().index(name)] = f"{value:.2f}"
    return "\n".join([columns, *rows[:session], " ".join(words), *rows[session + 1 :]])


def value(text: str, session: int, name: str) -> float:
    columns, *rows = text.splitlines()
    return float(rows[session].split()[columns.split().index(name)])


def lies() -> list[tuple[str, str]]:
    """Texts that somebody might show in the place of the README's table, each with its lie."""
    true = table(SHOWN_DEMO)
    base, novel, harmonic = (value(true, 2, name) for name in ("base", "novel", "HM"))
    average = next(each.value for each in figures(true) if each.name == "AVG")
    better = 2 * base * (novel + 10) / (base + novel + 10)
    return [
        ("columns swapped", changed(true, 2, base=novel, novel=base)),
        ("names of columns swapped", true.replace(" base novel ", " novel base ")),
        ("HM and novel swapped", changed(true, 2, novel=harmonic, HM=novel)),
        ("AVG better", true.replace(f"AVG {average:.2f}", f"AVG {average + 10:.2f}")),
        ("all of a session better", changed(true, 0, overall=99.0, base=99.0)),
        ("novel better", changed(true, 2, novel=novel + 10)),
        ("novel and HM better", changed(true, 2, novel=novel + 10, HM=better)),
        ("a session left out", "\n".join(true.splitlines()[:-2] + true.splitlines()[-1:])),
        ("images", true.replace(" 1000 ", " 2000 ")),
    ]


@pytest.mark.parametrize(("lie", "text"), lies(), ids=[lie for lie, _ in lies()])
def test_a_lie_is_found_beside_every_run(lie: str, text: str) -> None:
    assert text != table(SHOWN_DEMO)
    for run in DEMO:
        assert not agree(text, run.strip()) or faults(text)


@pytest.mark.parametrize(
    ("true", "lie"),
    [
        ("trousers 59.2 %", "ankle boot 59.2 %"),
        ("100.0 % of the 12", "90.0 % of the 12"),
        ("classifier: means", "classifier: teen"),
        ("79 % of the old and 56 %", "56 % of the old and 79 %"),
        ("bag (5)", "coat (5)"),
    ],
)
def test_a_lie_about_photos_is_found(true: str, lie: str) -> None:
    assert true in SHOWN_LEARN
    assert not agree(SHOWN_LEARN.replace(true, lie, 1), SHOWN_LEARN)


def test_unlikely_classes_may_change_their_order() -> None:
    one = "a.png: coat 59.2 %, dress 30.8 %, pullover 3.5 %, shirt 3.4 %\n"
    other = "a.png: coat 59.0 %, dress 31.0 %, shirt 3.6 %, pullover 3.4 %\n"
    assert agree(one, other)
    assert agree(one, other.replace("pullover 3.4", "bag 1.9").replace("shirt 3.6", "pullover 2.0"), {"share": 3.4})
    assert not agree(one, other.replace("dress", "bag"))
    assert not agree(one, other.replace("a.png", "b.png"))


def test_every_figure_has_a_tolerance() -> None:
    assert set(known_tolerances()) == set(group_of())
    assert {each.name for each in figures(SHOWN_DEMO)} <= set(group_of()) - {"share"}
    assert {each.name for each in figures(SHOWN_LEARN)} == {"share"}
