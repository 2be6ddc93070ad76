"""Every command, option and file that a sentence names is there, and so are those of blocks that no test runs."""

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from m2sd_cli.ablation.rows import ROWS
from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.recipes import recipe_names
from m2sd_cli.tables import BACKBONES, CLASSIFIERS
from tests.documents.markdown import ROOT, Document, documents

SPAN = re.compile(r"(?<!`)`((?:[^`\n]|\n(?!\n))+)`(?!`)")  # within a paragraph
FILE = re.compile(r"(?:m2sd_cli|tests|completions|\.github|\.ci)/[\w/.-]*\w|[a-z_][\w/]*\.(?:py|css)")
GENERAL = {"--help", "--version", "--debug", "--plugin", "--install-completion", "--show-completion"}  # of any command
EXAMPLE = re.compile(
    r"^(?:# (?:test_)?|cat > )(\S+\.py)\b", re.MULTILINE
)  # the first line of a file that a document shows
COMMAND = re.compile(r"\bm2sd [^\n;&|>]*\w")  # in a block
RECIPE = re.compile(r"(?:cifar100|cub200|miniimagenet)-resnet[\w-]*")
PRESENT = [each for each in documents() if each.path.name != "CHANGELOG.md"]  # which tells what was there, too


@cache
def options_of_commands() -> dict[tuple[str, ...], set[str]]:
    """Return the options of each command, also of those with two words."""

    def options(command: Any) -> set[str]:
        return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | GENERAL

    found: dict[tuple[str, ...], set[str]] = {}
    for name in COMMANDS:
        command: Any = build_command(name)
        found[(name,)] = options(command)
        for second, sub in getattr(command, "commands", {}).items():
            found[name, second] = options(sub) | options(command)
    return found


@cache
def values_of_options() -> dict[str, set[str]]:
    """Return the names that an option takes, with those that documents register for examples."""
    examples = {name.removesuffix(".py") for name in shown_files()}
    known = {
        "--recipe": {*recipe_names(), "none"},
        "--classifier": {*CLASSIFIERS.names()},
        "--backbone": {*BACKBONES.names()},
        "--rows": {*ROWS},
    }
    return {option: names | examples for option, names in known.items()}


def unknown_values(words: Sequence[str]) -> list[str]:
    """List the values of options in a command that are no names; placeholders in capitals and families are left out."""
    return [
        value
        for option, given in pairwise(words)
        if option in values_of_options()
        for value in given.split(",")
        if value not in values_of_options()[option] and not value.isupper() and ":" not in value
    ]


def commands_not_run(document: Document) -> list[str]:
    """List the commands of blocks that are neither run nor an output."""
    blocks = [each for each in document.blocks if not each.runs and each.marker("prints") is None]
    return [found for each in blocks if each.language in ("sh", "text") for found in COMMAND.findall(each.text)]


@cache
def shown_files() -> set[str]:
    """Return the names of the files that documents show."""
    return {Path(name).name for document in documents() for name in EXAMPLE.findall(document.text)}


def spans_of(document: Document) -> Iterator[str]:
    """Yield the spans of code in sentences, and the commands of blocks that no test runs; commands one by one."""
    for found in (*SPAN.findall(document.prose), *commands_not_run(document)):
        span = " ".join(found.split())
        yield from span.split("; ") if span.startswith("m2sd ") else [span]


def is_there(name: str, document: Document) -> bool:
    """Tell if a file is in the repository, also by its name within a room, or is one that a document shows."""
    places = (ROOT, ROOT / "m2sd_cli", document.path.parent)
    return (
        Path(name).name.removeprefix("test_") in shown_files()
        or any((place / name).exists() for place in places)
        or ("/" not in name and any(document.path.parent.rglob(name)))
    )


def wrong_words(document: Document) -> list[str]:
    """List the spans of code that name a command, an option or a file that there is not."""
    known = options_of_commands()
    every = set().union(*known.values())
    wrong = []
    for span in spans_of(document):
        words = shlex.split(span, comments=True) if span.startswith(("m2sd ", "--")) else []
        if words[:1] == ["m2sd"]:
            files = [number + 1 for number, word in enumerate(words) if word == "--plugin"]
            rest = [word for number, word in enumerate(words) if number not in (0, *files)]
            rest = [word for word in rest if word not in GENERAL and word != "help"]
            command = tuple(rest[:2]) if tuple(rest[:2]) in known else tuple(rest[:1])
            options = known.get(command, set()) if rest else GENERAL
            if rest and command not in known and not rest[0].isupper():
                wrong.append(span)
        else:
            options = every
        given = {option for word in words if (option := word.partition("=")[0]).startswith("--")}
        wrong += [span] * (not given <= options or unknown_values(words) != [])
        wrong += [span] * bool(RECIPE.fullmatch(span) and span not in {*recipe_names(), *BACKBONES.names()})
        wrong += [span] * bool(FILE.fullmatch(span) and not is_there(span, document))
    return wrong


@pytest.mark.parametrize("document", PRESENT, ids=lambda document: document.name)
def test_what_a_sentence_names_is_there(document: Document) -> None:
    assert wrong_words(document) == []


@pytest.mark.parametrize(
    ("span", "wrong"),
    [
        ("m2sd pretrain --epochs 3", False),
        ("m2sd sessions undo --force", False),
        ("m2sd sing", True),
        ("m2sd pretrain\n--epochs 3; m2sd distill --kl-weight 1", False),
        ("m2sd pretrain --epochs 3; m2sd distill --loudness 1", True),
        ("m2sd pretrain\n--loudness 1", True),
        ("m2sd pretrain --loudness 3", True),
        ("m2sd sessions show --epochs", True),
        ("m2sd pretrain --recipe cifar100-resnet20 --backbone timm:NAME", False),
        ("m2sd pretrain --recipe cifar100-resnet21", True),
        ("m2sd ablation --rows plain,both", False),
        ("m2sd ablation --rows plain,most", True),
        ("--classifier teen", False),
        ("--classifier tens", True),
        ("cifar100-resnet20-cpu", False),
        ("cifar100-resnet20-gpu", True),
        ("--epochs", False),
        ("--loudness", True),
        ("m2sd_cli/config/stages.py", False),
        ("m2sd_cli/config/no.py", True),
        ("cli/pretrain.py", False),
        ("cli/pretrains.py", True),
        ("no.py", True),
        ("m2sd help COMMAND", False),
    ],
)
def test_a_wrong_word_is_found(span: str, wrong: bool) -> None:
    assert bool(wrong_words(Document(ROOT / "README.md", f"Take `{span}`.\n"))) is wrong


@pytest.mark.parametrize(("command", "wrong"), [("m2sd pretrain --requeue", False), ("m2sd pretrain --requeues", True)])
def test_a_wrong_word_in_a_block_that_is_not_run_is_found(command: str, wrong: bool) -> None:
    for text in (
        f"<!-- not run: a cluster does -->\n```sh\nsrun {command} && true\n```\n",
        f"```text\n{command}\n```\n",
    ):
        assert wrong_words(Document(ROOT / "README.md", text)) == [command] * wrong
