"""Plays a document: runs its blocks in order, as a reader would, and compares the output that it shows.

The markers, comments directly above a block, are explained in .github/CONTRIBUTING.md. `<!-- new folder -->` begins a
scene: a folder of its own, with the images of `workshop.fill` and nothing else.
"""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.documents.markdown import Block, Document
from tests.documents.scatter import agree, without_figures
from tests.documents.terminal import Run, Terminal
from tests.documents.workshop import fill, shortened
from tests.helpers import tables_as_before

TRAIN = {"pretrain", "distill", "demo", "ablation", "simulate", "bench"}  # commands that are made brief
# Lines of progress, which come by the clock.
PROGRESS = re.compile(
    r"^\w+(?:: (?:epoch \d+/\d+|\d+ epochs? of \d+ steps?|image \d+/\d+|\d+ of \d+ [\w ]+, \d+/s)"
    r"| takes about \d+ (?:s|min|h)\b).*\n",
    re.MULTILINE,
)
# Figures of the machine and the moment, and the spaces with which a table makes room for them.
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?"), "DATE"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b"), "SHA256"),
    (re.compile(r"\b(?:\d+ h )?\d+(?:\.\d+)? (?:ms|s|min|h)\b"), "TIME"),
    (re.compile(r"\b[\d,.]+ images/s"), "RATE"),
    (re.compile(r" +"), " "),
)


@dataclass(frozen=True)
class Shown:
    """The output that a document shows, and the one that its command has printed."""

    block: Block
    printed: str
    brief: bool  # a training before it was shortened

    def agrees(self) -> bool:
        """Compare the two, but for what differs from machine to machine."""
        shown, printed = mask(self.block.text), mask(self.printed)
        return without_figures(shown) == without_figures(printed) and (self.brief or agree(shown, printed))


def mask(text: str) -> str:
    """Put a word in the place of each figure that differs from machine to machine or from run to run."""
    text = PROGRESS.sub("", text)
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    return text


def play(document: Document, pair: Callable[..., Any] | None = None, full: bool = False) -> Iterator[Shown]:
    """Run the blocks of a document in order, and yield each output that it shows.

    Args:
        document: the document.
        pair: as for `Terminal`.
        full: runs the demo at its full length in scenes whose output is shown.

    Raises:
        AssertionError: a block fails, or has a marker that is none.
    """
    for scene in scenes(document):
        printed = any(block.marker("prints") is not None for block in scene)
        with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch, tables_as_before():
            folder = Path(scratch, "work")
            for name in ("M2SD_RUN", "M2SD_DATA"):
                patch.delenv(name, raising=False)
            patch.setenv("M2SD_CACHE", str(Path(scratch, "cache")))
            fill(folder)
            terminal = Terminal(folder, pair)
            brief = not (full and printed)
            with shortened(Path(scratch), demo=brief):
                for block in scene:
                    assert block.marker("not run") != "", f"{document.line_of(block)}: `not run` has no reason"
                    if block.runs:
                        try:
                            runs = (
                                terminal.run(block.text) if block.language == "sh" else terminal.run_python(block.text)
                            )
                        except AssertionError as error:
                            raise AssertionError(f"{document.line_of(block)}: {error}") from None
                        assert runs, f"{document.line_of(block)}: the block runs no command"
                    command = block.marker("prints")
                    if command is not None:
                        output = output_of(command, terminal).replace(str(folder), ".")
                        yield Shown(
                            block,
                            output,
                            brief and any(run.words[1] in TRAIN for run in terminal.runs if run.words[1:]),
                        )


def scenes(document: Document) -> Iterator[list[Block]]:
    """Divide the blocks at the markers `new folder`."""
    scene: list[Block] = []
    for block in document.blocks:
        if block.marker("new folder") is not None and scene:
            yield scene
            scene = []
        if block.language in ("sh", "python") or block.marker("prints") is not None:
            scene.append(block)
    if scene:
        yield scene


def output_of(command: str, terminal: Terminal) -> str:
    """Return the output of the commands of a marker: of their last run, else of a new one."""
    commands, *filters = command.split(" | ")
    output = ""
    for each in commands.split(" && "):
        words = tuple(shlex.split(each))
        done: Run | None = next((run for run in reversed(terminal.runs) if run.words == words), None)
        done = done or terminal.run(each)[-1]
        output += PROGRESS.sub("", done.printed)
    for each in filters:
        output = subprocess.run(
            ["bash", "-c", each], input=output, capture_output=True, text=True, check=True, cwd=terminal.folder
        ).stdout
    return output.rstrip("\n") + "\n"
