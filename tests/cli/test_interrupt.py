"""Ctrl-C in any command: exit code 130, one plain line, no traceback, nothing changed."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from m2sd_cli.__main__ import _came_of_interrupt

if TYPE_CHECKING:
    from tests.conftest import Outcome, Pictures

Tree = Callable[[Path], dict[str, bytes | None]]
SAID = "m2sd: interrupted\n"
# Ctrl-C as soon as a module is looked for, in a process that is m2sd from then on.
AT_IMPORT = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
runpy.run_module("m2sd_cli", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(autouse=True)
def _signals_as_at_a_terminal() -> Iterator[None]:
    """A test run in the background inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("increment --session 3 --shots NEWER --run RUN --device cpu", "m2sd_cli.training.increment.mean_features"),
        ("evaluate --run RUN --test LABELLED --device cpu", "m2sd_cli.reports.evaluation.Tally.add"),
        ("evaluate --run RUN --test LABELLED --device cpu --json", "m2sd_cli.runs.folder.RunFolder.outline"),
        ("predict NEW --run RUN --device cpu", "m2sd_cli.inference.session.SessionModel.classify"),
        ("export --format safetensors --out OUT --run RUN", "m2sd_cli.api.export_session"),
        ("data verify FOLDER", "m2sd_cli.data.sources.FileImages.batches"),
        ("data", "m2sd_cli.data.locate.locate"),
        ("sessions --run RUN", "m2sd_cli.runs.folder.RunFolder.chain"),
        ("sessions verify --run RUN", "m2sd_cli.runs.folder.RunFolder.verify"),
        ("sessions show 1 --run RUN", "m2sd_cli.runs.folder.RunFolder.session"),
        ("pretrain --data FOLDER --run RUN --force --device cpu", "m2sd_cli.training.pretrain.build_network"),
        ("distill --data FOLDER --run RUN --force --device cpu", "m2sd_cli.training.distill.load_network"),
    ],
)
def test_every_command_says_so(
    m2sd: Callable[..., "Outcome"],
    run: Path,
    pictures: "Pictures",
    tmp_path: Path,
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    place: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    names: dict[str, object] = {"RUN": run, "NEW": pictures.second_shots, "LABELLED": pictures.labelled}
    names |= {"FOLDER": pictures.folder, "NEWER": tmp_path / "newer", "OUT": tmp_path / "out"}
    shutil.copytree(pictures.second_shots / "grey", tmp_path / "newer" / "gold")
    before = tree(tmp_path)
    monkeypatch.setattr(place, interrupted)
    done = m2sd(*(names.get(word, word) for word in command.split()))
    assert (done.code, done.out, done.err) == (130, "", SAID)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "module", ["m2sd_cli.cli.app", "typer.core", "pydantic._internal._model_construction", "torch.nn"]
)
def test_also_while_it_is_imported(tmp_path: Path, module: str) -> None:
    words = [sys.executable, "-c", AT_IMPORT, module, "sessions", "--run", tmp_path / "none"]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID)


def test_an_interrupt_that_became_another_error_is_one() -> None:
    """As RuntimeError, where Ctrl-C meets the making of a class."""
    error, cause = RuntimeError("Error calling __set_name__"), ImportError("no module")
    error.__cause__, cause.__context__ = cause, KeyboardInterrupt()
    assert _came_of_interrupt(error)
    assert not _came_of_interrupt(ValueError("x"))


def test_no_is_the_answer_to_a_question_that_is_interrupted(run: Path, tree: Tree) -> None:
    before = tree(run)
    words = [sys.executable, "-m", "m2sd_cli", "sessions", "undo", "--run", str(run)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        question = b""
        while letter := process.stderr.read(1):
            question += letter
            if question.endswith(b"[y/N]:"):
                break
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"\n" + SAID.encode()
    assert process.returncode == 130
    assert tree(run) == before
