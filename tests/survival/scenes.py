"""Commands to hurt, what was there before them, and what is left."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.runs.folder import RunFolder
from tests.survival.nursery import End, Nursery

ROUNDS = int(os.environ.get("M2SD_ROUNDS", "1"))  # how much longer than usual to search

State = tuple[str, ...]  # the checkpoints of a chain by their SHA-256, stage 1 first


@dataclass(frozen=True)
class Deed:
    """A command that changes something."""

    words: list[str]  # what it is, with RUN, DATA, FIRST, SECOND and OUT for paths
    before: int  # sessions of the run that it is done to; -1: no run at all, -2: stage 1 only
    again: list[str]  # what a person would type if it broke off

    def tries(self, count: int) -> int:
        """How often to try it where one that is quickly done would be tried `count` times."""
        return max(1, count // 2) if self.words[0] in ("pretrain", "distill") else count


TRAINING = ["--batch-size", "16", "--epochs", "1", "--device", "cpu", "--precision", "fp32", "-q"]
PRETRAIN = ["pretrain", "--run", "RUN", "--data", "DATA", "--backbone", "resnet20", "--image-size", "16", *TRAINING]
DISTILL = ["distill", "--run", "RUN", "--data", "DATA", *TRAINING]
INCREMENT = ["increment", "--run", "RUN", "--session", "2", "--shots", "SECOND", "--device", "cpu"]
EXPORT = ["export", "--run", "RUN", "--format", "safetensors", "--out", "OUT", "--force"]
DEEDS = {
    "pretrain": Deed(PRETRAIN, -1, [*PRETRAIN, "--resume"]),
    "pretrain anew": Deed([*PRETRAIN, "--seed", "1", "--force", "--yes"], 2, [*PRETRAIN, "--seed", "1", "--resume"]),
    "distill": Deed(DISTILL, -2, [*DISTILL, "--resume"]),
    "distill anew": Deed([*DISTILL, "--seed", "1", "--force", "--yes"], 2, [*DISTILL, "--seed", "1", "--resume"]),
    "increment": Deed(INCREMENT, 1, INCREMENT),
    "undo": Deed(["sessions", "undo", "--yes", "--run", "RUN"], 2, []),
    "export": Deed(EXPORT, 2, EXPORT),
}


@dataclass(frozen=True)
class Scene:
    """A deed, what was there before it, and what is there after it if nothing goes wrong."""

    deed: Deed
    origin: Path | None  # to be copied for every try
    old: State
    new: State
    paths: dict[str, str]
    undisturbed: End | None = None  # how the deed ends then

    def set(self, folder: Path) -> list[str]:
        """Begin anew in an empty folder: the command to hurt."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        if self.origin is not None:
            shutil.copytree(self.origin, folder / "run")
        (folder / "out").write_bytes(b"old")
        return self.spelt(self.deed.words, folder)

    def spelt(self, words: list[str], folder: Path) -> list[str]:
        """Fill the paths of a command in."""
        known = self.paths | {"RUN": str(folder / "run"), "OUT": str(folder / "out")}
        return [known.get(word, word) for word in words]


def state(run: Path) -> State:
    """What a run holds, read as every command reads it; () if it holds nothing."""
    folder = RunFolder(run)
    if not folder.has_pretrain():
        return ()
    manifests = [folder.pretrain(), *(folder.chain() if folder.sessions() else [])]
    for stored in manifests:
        folder.tensors(stored)
    assert folder.verify() == []
    return tuple(stored.manifest.checkpoint.sha256 for stored in manifests)


def hurt(nursery: Nursery, scene: Scene, folder: Path, **troubles: Any) -> End:
    """Do a deed from the beginning, with troubles."""
    return nursery.run(*scene.set(folder), **troubles)
