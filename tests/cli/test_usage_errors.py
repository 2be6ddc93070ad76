"""Command lines that make no sense: one line each, whose way out is there."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from m2sd_cli.cli import usage_errors
from m2sd_cli.cli.app import app
from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.config.usual_names import ANSWERS, USUAL_COMMANDS, USUAL_NAMES, meant_by, plain
from tests.helpers import Cli, check_refusal

ROOT: Any = typer.main.get_command(app)
BUILT = {name: build_command(name) for name in COMMANDS}
SLIPS = ["--wrong", "--x", "-z", "--class", "--size", "--data-rot", "--learning_rate", "--test", "--json", "--debug"]


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that has options, under its words."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from walk(each, f"{path} {name}")


ALL = dict(pair for name, command in BUILT.items() for pair in walk(command, name))


def options(command: Any) -> set[str]:
    shown = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    return {"--help", "-h", *(option for each in shown for option in (*each.opts, *each.secondary_opts))}


def suggested(path: str, way: str) -> Iterator[tuple[str, Any]]:
    """Every option that the end of a message names, and the command that it says has it."""
    for option in re.findall(r"--[\w-]+", way):
        if way.startswith("did you mean"):
            yield option, ALL[path]
        elif way.startswith("write it before"):
            yield option, ROOT
        elif way.startswith("write it after"):
            yield option, ALL[way.split(f" {option}")[0].partition("'m2sd ")[2]]
        else:
            having = [each for each in way.split(" ha")[0].replace(",", "").split() if each not in ("and", "others")]
            assert having, way
            yield from ((option, ALL.get(f"{path} {each}", BUILT.get(each))) for each in having)


def context(path: str) -> Any:
    """The context of a command that is asked for nothing."""
    made = ROOT.make_context("m2sd", [], resilient_parsing=True)
    command = ROOT
    for word in path.split():
        command = command.commands[word] if made.parent else BUILT[word]
        made = command.make_context(word, [], parent=made, resilient_parsing=True)
    return made


@pytest.mark.parametrize("path", ALL)
def test_every_option_that_is_suggested_is_there(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_errors, "_all_commands", lambda: BUILT)
    usual = {f"--{name}" for names in USUAL_NAMES for name in names}
    others = {option for command in BUILT.values() for option in options(command)}
    asked = context(path)
    for word in {*usual, *SLIPS, *others} - options(ALL[path]):
        way = usage_errors.option_meant(word, asked)
        without = (f"see 'm2sd {path} -h'", f"write it without an option, as in 'm2sd {path} ")
        assert 0 < way.count("--") <= 2 or way.startswith(without) or way in ANSWERS.values(), (word, way)
        for option, command in suggested(path, way):
            assert option in options(command), (word, way)


@pytest.mark.parametrize(("names", "ours"), USUAL_NAMES.items())
def test_a_usual_name_is_that_of_an_option_or_argument_that_is_there(
    names: tuple[str, ...], ours: tuple[str, ...]
) -> None:
    there = {each.lstrip("-") for command in ALL.values() for each in options(command)} | {"version"}
    there |= {each.name for command in ALL.values() for each in command.params if each.param_type_name == "argument"}
    assert {each.split()[0] for each in ours} <= there
    assert all(name == plain(name) for name in names)


def test_a_usual_command_is_there() -> None:
    assert {each for ours in USUAL_COMMANDS.values() for each in ours} <= {*COMMANDS}
    assert not {name for names in USUAL_COMMANDS for name in names} & {*COMMANDS}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("pretrain --augment x", "pretrain has no option --augment; did you mean --auto-augment?"),
        ("pretrain --data-dir D", "pretrain has no option --data-dir; did you mean --data-root or --data?"),
        ("pretrain --lr 0.1", "pretrain has no option --lr; did you mean --learning-rate?"),
        ("pretrain --lr=0.1", "pretrain has no option --lr; did you mean --learning-rate?"),
        ("pretrain -lr 0.1", "pretrain has no option -lr; did you mean --learning-rate?"),
        ("pretrain -epochs_base 9", "pretrain has no option -epochs_base; did you mean --epochs?"),
        ("pretrain --learning_rate 1", "pretrain has no option --learning_rate; did you mean --learning-rate?"),
        ("pretrain --cuda", "pretrain has no option --cuda; did you mean --device cuda?"),
        ("pretrain --shots 5", "pretrain has no option --shots; did you mean --shots-per-class?"),
        ("distill -b 8", "distill has no option -b; did you mean --batch-size?"),
        ("pretrain -qz", "pretrain has no option -qz; see 'm2sd pretrain -h'"),
        ("pretrain --workers 4", "pretrain has no option --workers; as many threads read images as there are cores"),
        ("export --output x", "export has no option --output; did you mean --out or --run?"),
        ("predict x --topk 3", "predict has no option --topk; did you mean --top-k?"),
        ("ablation --seed 0", "ablation has no option --seed; did you mean --seeds?"),
        ("learn x --lr 3", "learn has no option --lr; pretrain and distill have --learning-rate"),
        ("learn x --epochs 3", "learn has no option --epochs; did you mean --minutes?"),
        ("learn --data x", "learn has no option --data; write it without an option, as in 'm2sd learn FOLDER'"),
        ("predict x --threshold 3", "predict has no option --threshold; see 'm2sd predict -h'"),
        ("data clear --top-k 3", "data clear has no option --top-k; predict has --top-k"),
        ("sessions --session 3", "write it after the command, as in 'm2sd sessions reproduce --session'"),
        ("sessions undo --debug", "write it before the command, as in 'm2sd --debug sessions undo'"),
        ("pretrain --plugin x.py", "write it before the command, as in 'm2sd --plugin FILE.py pretrain'"),
        ("--run x predict", "there is no option --run; write it after the command, as in 'm2sd learn --run'"),
        ("--wrong", "there is no option --wrong; see 'm2sd -h'"),
        ("trainn", "there is no command 'trainn'; did you mean 'm2sd pretrain'?"),
        ("train", "there is no command 'train'; did you mean 'm2sd pretrain'?"),
        ("undo", "there is no command 'undo'; did you mean 'm2sd sessions undo'?"),
        ("sing", "there is no command 'sing'; see 'm2sd -h'"),
        ("sessions lost", "sessions has no command 'lost'; did you mean 'm2sd sessions list'?"),
        ("--debug", "m2sd: Missing command; see 'm2sd -h'"),
        ("pretrain x", "pretrain: no option stands before 'x'; did you mean --data x or --run x?"),
        ("pretrain --data my photos", "pretrain: no option stands before 'photos'; a name with spaces needs quotes"),
        ("evaluate 3", "evaluate: no option stands before '3'; did you mean --session 3?"),
        ("learn my photos", "before 'photos'; it takes FOLDER alone, and a name with spaces needs quotes"),
        ("sessions undo 3", "sessions undo: no option stands before '3'; see 'm2sd sessions undo -h'"),
        ("pretrain --data", "pretrain: --data needs a value; see 'm2sd pretrain -h'"),
        ("pretrain --quiet=3", "pretrain: --quiet takes no value; see 'm2sd pretrain -h'"),
        ("pretrain --batch-size many", "--batch-size many: a whole number"),
        ("pretrain --learning-rate much", "--learning-rate much: a number"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_a_way_out(m2sd: Cli, words: str, says: str) -> None:
    done = m2sd(*words.split())
    check_refusal(done, 2)
    assert done.err.endswith(f"{says}\n")


def test_odd_characters_of_a_wrong_option_are_escaped(m2sd: Cli) -> None:
    check_refusal(m2sd("pretrain", "--\x1b[2J\nx"), 2, r"no option --\x1b[2J\x0ax; ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", ["learning-rate"]),
        ("Learning_Rate", ["learning-rate"]),
        ("learning-rat", ["learning-rate"]),
        ("rate", ["learning-rate"]),
        ("momentums", ["momentum"]),
        ("size", ["batch-size", "map-size"]),
        ("augment", []),
        ("ma", []),
    ],
)
def test_the_name_that_is_meant(name: str, meant: list[str]) -> None:
    assert meant_by(name, ["learning-rate", "momentum", "batch-size", "map-size"]) == meant
