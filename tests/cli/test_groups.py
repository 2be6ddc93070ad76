"""Conversions that are spared, and those that are not."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.usual_names import USUAL_NAMES
from tests.helpers import Cli

seen: dict[str, Any] = {}


def _noted(value: int | None) -> int | None:
    seen["callback"] = value
    return 7 if value is None else value


def build(**spared: Any) -> typer.Typer:
    """The same app with commands that spare conversions, or without."""
    app = typer.Typer(cls=spared.get("group"), rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def common(place: Annotated[Path | None, typer.Option()] = None, flag: bool = False) -> None:
        seen.update(place=place, flag=flag)

    @app.command("work", cls=spared.get("command"))
    def work(
        number: Annotated[int, typer.Argument()],
        more: Annotated[list[int] | None, typer.Argument()] = None,
        choice: bool | None = None,
        share: float | None = None,
        many: Annotated[list[Path] | None, typer.Option()] = None,
        pair: Annotated[tuple[int, str], typer.Option()] = (1, "x"),
        called: Annotated[int | None, typer.Option(callback=_noted)] = None,
        env: Annotated[float | None, typer.Option(envvar="A_NUMBER")] = None,
    ) -> None:
        seen.update(number=number, more=more, choice=choice, share=share, many=many, pair=pair, called=called, env=env)

    return app


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "work --help",
        "work 3",
        "work three",
        "work 3 4 5",
        "work 3 4 five",
        "--place x --flag work 3",
        "work 3 --no-choice --share 0.5 --many a --many b --pair 2 y --called 9",
        "work 3 --choice",
        "work 3 --share much",
        "work 3 --called x",
        "work 3 --wrong",
        "nothing",
    ],
)
@pytest.mark.parametrize("number", [None, "2.5", "much"])
def test_the_values_are_those_of_typer(arguments: str, number: str | None) -> None:
    outcomes = []
    for app in (build(), build(group=Group, command=Command)):
        seen.clear()
        done = CliRunner().invoke(app, arguments.split(), env={"A_NUMBER": number})
        outcomes.append((done.exit_code, done.output, dict(seen)))
    plain, spared = outcomes
    assert spared == plain


OPTIONS = [
    {option for parameter in each.params for option in parameter.opts}
    for name in COMMANDS
    for command in [build_command(name)]
    for each in [command, *getattr(command, "commands", {}).values()]
]


@pytest.mark.parametrize(("names", "ours"), USUAL_NAMES.items())
def test_a_usual_name_is_that_of_an_option_that_is_there(names: tuple[str, ...], ours: tuple[str, ...]) -> None:
    for option in ours:
        assert any(option in options for options in OPTIONS), option


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("pretrain --lr 0.1", "--learning-rate"),
        ("pretrain --lr=0.1", "--learning-rate"),
        ("distill --bs 8", "--batch-size"),
        ("distill -b 8", "--batch-size"),
        ("pretrain --wd 0", "--weight-decay"),
        ("pretrain --dataset cifar100", "--data"),
        ("pretrain --arch resnet18", "--backbone"),
        ("evaluate --gpu 0", "--device"),
        ("export --format onnx --output x", "--out, --run"),
        ("predict x --topk 3", "--top-k"),
    ],
)
def test_a_usual_name_suggests_ours(m2sd: Cli, words: str, meant: str) -> None:
    done = m2sd(*words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].endswith((f"(Possible options: {meant})", f"Did you mean {meant}?"))


def test_a_usual_name_that_a_command_has_no_option_for_suggests_nothing(m2sd: Cli) -> None:
    assert "learning-rate" not in m2sd("data", "clear", "--lr", 3).err


@pytest.mark.parametrize(("words", "asked"), [("", ""), ("pretrain", "pretrain"), ("sessions undo", "sessions undo")])
def test_help_is_a_command_too(m2sd: Cli, words: str, asked: str) -> None:
    done = m2sd("help", *words.split())
    assert (done.code, done.err) == (0, "")
    assert done.out == m2sd(*asked.split(), "--help").out
    wrong = m2sd("help", "nothing")
    assert (wrong.code, wrong.out) == (2, "")


def test_completion_is_installed_at_a_terminal_alone(
    m2sd: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = m2sd("--install-completion")
    assert (done.code, done.out) == (2, "")
    assert "at a terminal" in done.err
    assert list(tmp_path.iterdir()) == []
