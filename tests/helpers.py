"""Small things that tests of several rooms share."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from m2sd_cli import plugin_files, registry
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.exporting import EXPORT_FORMATS
from m2sd_cli.method.backbone import Backbone, Features, build_backbone
from m2sd_cli.progress import Reporter
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.tables import BACKBONES, CLASSIFIERS, OPTIMIZERS, SCHEDULES

BASE = ["blue", "green", "red", "yellow"]
COLOURS = {
    "blue": (20, 40, 220),
    "green": (30, 200, 40),
    "red": (220, 30, 30),
    "yellow": (220, 220, 30),
    "purple": (150, 20, 170),
    "white": (240, 240, 240),
    "grey": (110, 110, 110),
    "orange": (250, 130, 10),
}
TRAINED, TESTED = 8, 3  # images a base class
PATIENCE = 900  # seconds until a process or a thread counts as one that hangs, on a machine that others load

# Run the commands of a JSON list on stdin in one process, since importing torch takes seconds.
COMMANDS = """
import json, sys
from m2sd_cli.cli.app import main

for words in json.load(sys.stdin):
    sys.argv = ["m2sd", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Stripes:
    """Folders of generated images."""

    folder: Path  # train/CLASS and test/CLASS of the four base classes
    first_shots: Path  # purple x 3, white x 2
    second_shots: Path  # grey x 4
    labelled: Path  # the base classes, purple and grey, and orange, which nobody is taught; white is missing


Cli = Callable[..., Outcome]

# Options of a pretrain and of a distill with every term of the loss, which take a second.
COMMON: dict[str, Any] = {"epochs": 1, "batch_size": 8, "device": "cpu", "precision": "fp32"}
QUICK = {**COMMON, "image_size": 16, "backbone": "resnet20"}
QUICK_DISTILL = {**COMMON, "learning_rate": 0.02, "enhancement": "full"}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Read the bytes of every file in a folder under its name; a folder has None. Locks and logs are left out."""
    if not folder.exists():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name not in (".lock", "log.jsonl")
    }


def draw(colour: str, number: int) -> Image.Image:
    """Draw a striped image; each colour has its own stripes, each number its own noise and size."""
    kind = list(COLOURS).index(colour)
    rng = np.random.default_rng([kind, number])
    height, width = 16 + number % 5, 16 + kind % 3
    pixels = np.tile(np.array(COLOURS[colour], dtype=np.int64), (height, width, 1))
    period = 2 + kind // 2
    (pixels if kind % 2 else pixels.swapaxes(0, 1))[::period] //= 3
    noisy = pixels + rng.integers(-20, 21, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def fill(folder: Path, colour: str, count: int, first: int = 0) -> None:
    """Write images of a colour into FOLDER/COLOUR."""
    (folder / colour).mkdir(parents=True)
    for number in range(first, first + count):
        draw(colour, number).save(folder / colour / f"{colour}-{number:02d}.png")


def finished(stored: StoredManifest | None) -> StoredManifest:
    """Return the manifest of a stage, which no time limit has ended."""
    assert stored is not None
    return stored


def check_refusal(done: Outcome, code: int, says: str = "") -> None:
    """Check that a command has ended with a code and one line, which says something, and has printed no result."""
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert done.err.startswith("m2sd: ")
    assert says in done.err


def backbone_weights(run: Path) -> dict[str, Tensor]:
    """Read the weights of the backbone of stage 1, as a file of weights to begin from has them."""
    tensors = load_file(run / "pretrain.safetensors")
    return {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}


def small_state(name: str) -> dict[str, Tensor]:
    """Draw the weights that stand for pretrained ones of the backbone `small`."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build_backbone("resnet20").state_dict()


class Heard(Reporter):
    """A reporter that keeps the lines that it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """See Reporter."""
        self.lines.append(text)


def open_less(step: int, test_step: int = 1) -> Callable[..., DataSet]:
    """Make a stand-in for `open_data` that takes every so many images of a data set in memory."""

    def opened(*arguments: Any, **options: Any) -> DataSet:
        data = open_data(*arguments, **options)
        trained, tested = torch.arange(0, len(data.train), step), torch.arange(0, len(data.test), test_step)
        return replace(
            data,
            train=data.train.select(trained, data.train.labels[trained]),
            test=data.test.select(tested, data.test.labels[tested]),
        )

    return opened


def train_on_less(patch: pytest.MonkeyPatch, step: int, test_step: int = 1) -> None:
    """Have pretrain and ablate, and all that comes after them, see every so many images."""
    for module in ("pretrain", "recorded_data", "ablate"):
        patch.setattr(f"m2sd_cli.api.{module}.open_data", open_less(step, test_step))


def copy_base_session(run: Path, copy: Path) -> Path:
    """Copy a run without the sessions after session 0."""
    shutil.copytree(run, copy)
    RunFolder(copy).remove_sessions(first=1)
    return copy


def flip(path: Path, position: int) -> None:
    """Change a bit of a byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def sha256(path: Path) -> str:
    """Hash the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class OneLayer(Backbone):
    """A backbone of one convolution, which compilers and exporters are done with in a moment."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width, self.level_widths = width, (width,) * 4
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(width, 3, 3, 3, generator=generator) / 5)

    def forward(self, x: Tensor) -> Features:
        """Images (B, 3, H, W) to one map, four times, and its mean (B, width)."""
        level = F.relu(F.conv2d(x, self.weight, stride=2))
        return Features((level,) * 4, level.mean(dim=(2, 3)))


@contextmanager
def tables_as_before() -> Iterator[None]:
    """Forget at the end what files of one's own registered meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for table in (BACKBONES, CLASSIFIERS, DATA_SETS, OPTIMIZERS, SCHEDULES, EXPORT_FORMATS):
            patch.setattr(table, "entries", dict(table.entries))
            patch.setattr(table, "_modules", dict(vars(table)["_modules"]))
        patch.setattr(registry, "FILE_ORIGINS", registry.FILE_ORIGINS)
        yield
    plugin_files.loaded.clear()
    for name in [each for each in sys.modules if each.startswith("m2sd_plugin_")]:
        del sys.modules[name]
