"""Ctrl-C in any command: exit code 130, one plain line, no traceback, nothing changed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from m2sd_cli.cli import interrupts
from tests.helpers import PATIENCE, Cli, Stripes, tree

SAID = "m2sd: interrupted\n"
ROUNDS = int(os.environ.get("M2SD_ROUNDS", "1"))  # for each command
# Says when it listens.
READY = """
import os
from m2sd_cli.cli import interrupts

listen = interrupts.listen
interrupts.listen = lambda: (listen(), os.write(1, b"!"))
from m2sd_cli.__main__ import main

main()
"""
SOONEST, LONGEST = 0.05, 2.5  # seconds; from when it is listened for to about what these commands take
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


pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("increment --session 3 --shots NEWER --run RUN --device cpu", "m2sd_cli.api.increment.shot_features"),
        ("evaluate --run RUN --test LABELLED --device cpu", "m2sd_cli.reports.evaluation.session_answers"),
        ("evaluate --run RUN --test LABELLED --device cpu --json", "m2sd_cli.runs.folder.RunFolder.summary"),
        ("predict NEW --run RUN --device cpu", "m2sd_cli.inference.session.SessionModel.classify"),
        ("export --format safetensors --out OUT --run RUN", "m2sd_cli.api.export.export_session"),
        ("data verify FOLDER", "m2sd_cli.data.check.open_rgb"),
        ("data", "m2sd_cli.data.locate.locate"),
        ("sessions --run RUN", "m2sd_cli.runs.folder.RunFolder.chain"),
        ("sessions verify --run RUN", "m2sd_cli.runs.folder.RunFolder.verify"),
        ("sessions show 1 --run RUN", "m2sd_cli.runs.folder.RunFolder.session"),
        (
            "pretrain --data FOLDER --epochs 1 --run RUN --force --yes --device cpu",
            "m2sd_cli.api.pretrain.build_network",
        ),
        ("distill --data FOLDER --run RUN --force --yes --device cpu", "m2sd_cli.api.base_session.load_network"),
    ],
)
def test_every_command_says_so(
    m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    names: dict[str, object] = {"RUN": run, "NEW": stripes.second_shots, "LABELLED": stripes.labelled}
    names |= {"FOLDER": stripes.folder, "NEWER": tmp_path / "newer", "OUT": tmp_path / "out"}
    shutil.copytree(stripes.labelled / "orange", tmp_path / "newer" / "gold")
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


@pytest.mark.parametrize("words", [["sessions"], ["sessions", "verify"], ["predict", "IMAGE", "--device", "cpu"]])
def test_at_any_moment(trained: Path, stripes: Stripes, words: list[str]) -> None:
    """Interrupt at random moments: the line is printed and nothing else, or it came too late to matter."""
    image = str(next((stripes.second_shots / "grey").iterdir()))
    command = [sys.executable, "-c", READY, *(image if word == "IMAGE" else word for word in words)]
    for seed in range(ROUNDS):
        pause = random.Random(f"{words} {seed}").uniform(SOONEST, LONGEST)
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, "--run", str(trained)], stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == "!"
            time.sleep(pause)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate()
        if process.returncode == 130:
            assert said == SAID, pause
        else:
            assert process.returncode in (0, -signal.SIGINT), (pause, said)
            assert (bool(out), said) == (True, ""), pause


def test_an_import_that_would_swallow_it_is_ended(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    program = (
        "import signal, sys\n"
        "from m2sd_cli.cli import interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interrupts.listen()\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import deaf\n"
        "print('swallowed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID)


def test_one_that_is_lost_in_a_callback_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    finished = False

    def leave_and_work() -> None:
        nonlocal finished
        Left()
        time.sleep(10)
        finished = True

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.listen()
    with pytest.raises(KeyboardInterrupt):
        leave_and_work()
    assert not finished


def test_an_ignored_one_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.listen()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_no_is_the_answer_to_a_question_that_is_interrupted(run: Path) -> None:
    before = tree(run)
    words = [sys.executable, "-m", "m2sd_cli", "sessions", "undo", "--run", str(run)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        watch = threading.Timer(PATIENCE, process.kill)  # if it never asks
        watch.start()
        question = b""
        while letter := process.stderr.read(1):
            question += letter
            if question.endswith(b"[y/N]:"):
                break
        watch.cancel()
        process.send_signal(signal.SIGINT)
        try:
            _, rest = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert rest == b"\n" + SAID.encode()
    assert process.returncode == 130
    assert tree(run) == before
