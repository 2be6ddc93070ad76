"""A shell whose m2sd is this process, in which its commands can be made brief and their output is written down."""

import io
import json
import re
import runpy
import shlex
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest
from torch.distributed.run import parse_args

from m2sd_cli.cli.app import main
from tests.documents.markdown import ROOT

PROGRAM = """#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    variables = {{name: value for name, value in os.environ.items() if name.startswith("M2SD_")}}
    request = {{"words": [{name!r}, *sys.argv[1:]], "folder": os.getcwd(), "variables": variables}}
    server.sendall(json.dumps(request).encode() + b"\\n")
    answer = json.loads(server.makefile().read())
sys.stdout.write(answer["out"])
sys.stdout.flush()
sys.stderr.write(answer["err"])
sys.exit(answer["code"])
"""


@dataclass(frozen=True)
class Run:
    """A command that was run, and its output as a terminal shows it: both streams in order."""

    words: tuple[str, ...]
    printed: str


@dataclass
class Both:
    """A stream that keeps its text for itself and for the terminal."""

    own: io.StringIO
    terminal: io.StringIO

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Keep a text."""
        self.terminal.write(text)
        return self.own.write(text)

    def flush(self) -> None:
        """Do nothing: all is in memory."""

    def isatty(self) -> bool:
        """Return False, so that no output moves."""
        return False


@dataclass
class Terminal:
    """A working folder, and the commands that were run in it.

    Args:
        folder: the folder to work in.
        pair: runs the words of a command in two processes, as torchrun would; None leaves such commands out.
    """

    folder: Path
    pair: Callable[..., Any] | None = None
    runs: list[Run] = field(default_factory=list)

    def run(self, block: str) -> list[Run]:
        """Run a block in bash, which ends at the first command that fails, and return the commands of m2sd in it.

        Raises:
            AssertionError: a command has failed; the message has what it printed.
        """
        first = len(self.runs)
        with tempfile.TemporaryDirectory() as programs:
            address = f"{programs}/socket"
            for name in self._programs():
                program = Path(programs, name)
                program.write_text(PROGRAM.format(python=sys.executable, address=address, name=name))
                program.chmod(0o755)
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(address)
                server.listen()
                server.settimeout(0.1)
                shell = subprocess.Popen(
                    ["bash", "-eu", "-o", "pipefail", "-c", block],
                    env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.folder)},
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                with shell:
                    self._serve(server, shell)
                    assert shell.stdout is not None
                    printed = shell.stdout.read()
        assert shell.returncode == 0, f"exit code {shell.returncode} of\n{block}\n{printed}"
        return self.runs[first:]

    def run_python(self, script: str) -> list[Run]:
        """Run a script in Python, as `run` runs a block."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "script.py")
            path.write_text(script, encoding="utf-8")
            return self.run(f"python3 {path}")

    def _programs(self) -> Mapping[str, Callable[[Sequence[str]], None]]:
        return {
            "m2sd": self._m2sd,
            "pip": check_pip,
            "python": self._python,
            "python3": self._python,
            "torchrun": self._torchrun,
            **dict.fromkeys(("ruff", "mypy"), lambda words: None),
        }

    def _serve(self, server: socket.socket, shell: "subprocess.Popen[str]") -> None:
        while shell.poll() is None:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection, connection.makefile("r") as requests:
                connection.settimeout(None)
                connection.sendall(json.dumps(self._answer(json.loads(requests.readline()))).encode())

    def _answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Run a command in this process, in the folder and with the variables of the shell."""
        words: list[str] = request["words"]
        out, err, terminal = io.StringIO(), io.StringIO(), io.StringIO()
        code: object = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(request["folder"])
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdin", io.StringIO())
            for name, value in request["variables"].items():
                patch.setenv(name, value)
            with redirect_stdout(as_stream(Both(out, terminal))), redirect_stderr(as_stream(Both(err, terminal))):
                try:
                    self._programs()[words[0]](words[1:])
                except SystemExit as end:
                    code = end.code or 0
                except Exception as error:
                    print(f"{shlex.join(words)}: {type(error).__name__}: {error}", file=sys.stderr)
                    code = 1
        self.runs.append(Run(tuple(words), terminal.getvalue()))
        return {"out": out.getvalue(), "err": err.getvalue(), "code": code if isinstance(code, int) else 1}

    def _m2sd(self, words: Sequence[str]) -> None:
        sys.argv = ["m2sd", *words]
        main()

    def _python(self, words: Sequence[str]) -> None:
        match words:
            case ["-m", "pytest", *given]:
                for path in (word for word in given if word.startswith("tests")):
                    assert (ROOT / path).exists(), f"there is no {path}"
            case ["-m", "m2sd_cli", *given]:
                self._m2sd(given)
            case ["-m", "tests.documents", *given]:
                assert set(given) <= {"--write"}
            case [script, *_] if script.endswith(".py"):
                sys.argv = list(words)
                runpy.run_path(script, run_name="__main__")
            case _:
                raise AssertionError("nothing is known of it")

    def _torchrun(self, words: Sequence[str]) -> None:
        given = parse_args(list(words))  # type: ignore[no-untyped-call]
        assert (given.module, given.training_script, given.nproc_per_node) == (True, "m2sd_cli", "2")
        if self.pair is not None:
            # Nothing is made small in other processes, so that the last --epochs, which counts, is a short one.
            end = self.pair(*given.training_script_args, "--epochs", "1", "--device", "cpu")
            assert end.code == 0, end


def as_stream(stream: Both) -> TextIO:
    """Take a stream of the few methods that printing needs for a whole one."""
    whole: Any = stream
    return whole  # type: ignore[no-any-return]


def check_pip(words: Sequence[str]) -> None:
    """Check a call of pip, which is not run: it installs this package, with extras that it has.

    Raises:
        AssertionError: it does something else.
    """
    assert words[0] == "install", "only `pip install` is known"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words[1:]:
        found = re.fullmatch(r"-e|(?:\.|m2sd)(?:\[(?P<extras>[\w,]+)\])?", word)
        assert found, f"{word} is not this package"
        absent = set(filter(None, (found["extras"] or "").split(","))) - set(project["optional-dependencies"])
        assert not absent, f"there is no extra {', '.join(sorted(absent))}"
