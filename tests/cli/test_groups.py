"""Conversions that are spared, and those that are not."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.errors import UsageError
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
        refused = done.exit_code == 2 or isinstance(done.exception, UsageError)
        outcomes.append((2, "", dict(seen)) if refused else (done.exit_code, done.output, dict(seen)))
    plain, spared = outcomes
    assert spared == plain


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
