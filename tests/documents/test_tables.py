"""Every generated table is what the program makes, and no figure stands in a table of its own."""

import re
from dataclasses import fields
from decimal import Decimal

import pytest

from m2sd_cli.cli.commands import COMMANDS, Entry
from m2sd_cli.errors import EXIT_CODES, M2sdError
from m2sd_cli.recipes import recipe_names
from m2sd_cli.recipes.results import read_results
from m2sd_cli.tables import CLASSIFIERS
from m2sd_cli.training.epochs import EpochFigures
from tests.documents.markdown import ROOT, Document, documents
from tests.documents.tables import TABLES, figure, make_table, markdown

FIGURE = re.compile(r"^\|.*\d\.\d.*\|$", re.MULTILINE)
OPTION = re.compile(rf"^\| `(?:--|m2sd |(?:{'|'.join(COMMANDS)}) ).*\|$", re.MULTILINE)


def stale_tables(document: Document) -> list[str]:
    """List the generated tables that the program would make otherwise now."""
    return [document.line_of(table) for table in document.tables if table.text != make_table(table.name)]


def loose_figures(document: Document) -> list[str]:
    """List the rows of tables with measured figures that are in no file of figures."""
    return FIGURE.findall(document.hand_written)


def loose_options(document: Document) -> list[str]:
    """List the rows of tables with an option or a command that are made from no table of the program."""
    return OPTION.findall(document.hand_written)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_tables_are_up_to_date(document: Document) -> None:
    assert stale_tables(document) == [], "`python -m tests.documents --write` mends them"


def test_every_exit_code_is_in_the_table() -> None:
    kinds = [M2sdError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} | {0} == set(EXIT_CODES)


def test_every_classifier_tells_its_rule_and_its_source() -> None:
    assert all(entry.rule and entry.source for entry in CLASSIFIERS.entries.values())


@pytest.mark.parametrize(
    "name", ["options pretrain", "options distill", "compared cifar100-resnet20-long", "subcommands sessions"]
)
def test_a_table_with_arguments_is_made(name: str) -> None:
    assert make_table(name).count("\n") > 5


def test_every_kind_of_table_is_in_a_document() -> None:
    names = [table.name for document in documents() for table in document.tables]
    assert {kind for kind in TABLES if any(f"{name} ".startswith(f"{kind} ") for name in names)} == set(TABLES)


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"options", "help", "subcommands", "results", "compared"}))
def test_a_table_is_made(name: str) -> None:
    header, line, *rows = make_table(name).splitlines()
    assert re.fullmatch(r"\|(---\|| --- \|)+", line)
    assert rows
    assert {row.replace(r"\|", "").count("|") for row in rows} == {header.count("|")}


@pytest.mark.parametrize("name", read_results()["tables"])
def test_every_table_of_figures_is_whole_and_names_its_recipe(name: str) -> None:
    table = read_results()["tables"][name]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert table["recipe"] in recipe_names() or table["recipe"].startswith("none: ")
    rows, origin = make_table(f"results {name}").split("\n\n")
    assert rows.count("\n") == 1 + len(table["rows"])
    assert table.get("hardware", "") in origin.replace("\n", " ")
    for command in filter(None, table.get("command", "").split("; ")):
        assert command.split()[:1] == ["m2sd"]
        assert command.split()[1] in COMMANDS


def test_the_figures_of_a_recipe_are_those_of_its_tables() -> None:
    recipes, tables = read_results()["recipes"], read_results()["tables"]
    rows = {
        "cifar100-resnet20-cpu": ("cpu-classifiers", "`debiased`"),
        "cifar100-resnet20-few": ("few", "`clean-ce`"),
        "cifar100-resnet20-long": ("long", "`both-clean-ce`"),
    }
    columns = {"AVG": "average", "HM": "harmonic"}
    assert set(rows) == set(recipes)
    for recipe, (name, first) in rows.items():
        table = tables[name]
        [row] = [row for row in table["rows"] if row[0].startswith(first)]
        for column, value in zip(table["columns"], row, strict=True):
            if column in ("last", "AVG", "base", "novel", "HM"):
                assert recipes[recipe][columns.get(column, column)] == value


def test_figures_keep_their_digits() -> None:
    assert figure([Decimal("25.0"), Decimal("0.6")]) == "25.0 ± 0.6"
    assert figure([Decimal("-0.4"), Decimal("0.3")], signed=True) == "-0.4 ± 0.3"
    assert figure([Decimal("1.0"), Decimal("0.3")], signed=True) == "+1.0 ± 0.3"
    assert figure(3, signed=True) == "3"


def test_a_cell_may_hold_a_bar() -> None:
    assert markdown(["a", "b"], [["x|y", None]]) == "| a | b |\n| --- | --- |\n| x\\|y | |\n"


def test_a_table_that_lies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document(ROOT / "README.md", f"<!-- table: commands -->\n{make_table('commands')}<!-- /table -->\n")
    assert stale_tables(document) == []
    monkeypatch.setitem(COMMANDS, "sing", Entry("m2sd_cli.cli.sing:sing", "Sing a song."))
    assert stale_tables(document) == ["README.md:1"]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_no_table_has_figures_of_its_own(document: Document) -> None:
    assert loose_figures(document) == [], "put them into m2sd_cli/recipes/results.toml"


def test_every_table_of_the_file_is_in_a_document() -> None:
    shown = {table.name for document in documents() for table in document.tables}
    assert {f"results {name}" for name in read_results()["tables"]} <= shown


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_no_table_lists_options_by_hand(document: Document) -> None:
    assert loose_options(document) == [], "make it by `help COMMAND OPTION ...` or `subcommands COMMAND`"


@pytest.mark.parametrize("first", ["`--seed N`", "`m2sd study`", "`sessions undo`, `sessions repair`"])
def test_an_option_or_command_outside_of_the_program_is_found(first: str) -> None:
    text = f"<!-- table: commands -->\n| `m2sd demo` | |\n<!-- /table -->\n| {first} | it |\n| `imagenet` | weights |\n"
    assert loose_options(Document(ROOT / "README.md", text)) == [f"| {first} | it |"]


def test_the_help_of_an_option_is_that_of_its_help_page() -> None:
    assert make_table("help pretrain seed").splitlines()[2].startswith("| `--seed` | Same seed: same result")


def test_the_keys_of_a_line_of_the_log_are_those_that_the_program_writes() -> None:
    log = (
        (ROOT / "m2sd_cli/runs/README.md")
        .read_text(encoding="utf-8")
        .partition("| key | value |")[2]
        .partition("\n\n")[0]
    )
    keys = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", log, re.MULTILINE)))
    assert sorted(keys) == sorted([*(each.name for each in fields(EpochFigures) if each.name != "network"), "time"])


def test_a_figure_outside_of_the_files_is_found() -> None:
    text = "<!-- table: commands -->\n| a | 59.9 |\n<!-- /table -->\n| b | 12.5 ± 0.3 |\n| c | 7 |\n"
    assert loose_figures(Document(ROOT / "README.md", text)) == ["| b | 12.5 ± 0.3 |"]
