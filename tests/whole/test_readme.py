"""Commands of the README, run as they are written on data small enough to be quick."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import parse_args

from m2sd_cli.benchmark.processes import MakeRun
from m2sd_cli.benchmark.report import Report
from m2sd_cli.benchmark.run import run_bench
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS
from m2sd_cli.data.cifar100 import TREATMENT
from m2sd_cli.data.datasets import DataSet, Shots, Skipped
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.protocol import Protocol
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.recipes import find_recipe, recipe_names
from m2sd_cli.registry import BACKBONES, ImageNetWeights
from tests.benchmark.small import skip_slow_parts
from tests.helpers import Cli
from tests.survival.nursery import End

SIZE = 8  # of the look-alike's images, in pixels
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def expanded(block: str, tmp_path: Path) -> list[tuple[list[str], str]]:
    """The commands that bash would run for a block, each with the $M2SD_RUN that it would see."""
    log = tmp_path / "log"
    log.write_text("")
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("m2sd", "pip", "python3", "torchrun"):
        program = programs / name
        program.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"line = json.dumps([[{name!r}, *sys.argv[1:]], os.environ.get('M2SD_RUN', '')])\n"
            f"open({str(log)!r}, 'a').write(line + '\\n')\n"
        )
        program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run(["bash", "-eu", "-c", block], check=True, env=environment, cwd=tmp_path)
    return [(words, run) for words, run in map(json.loads, log.read_text().splitlines())]


def pictures(folder: Path, count: int, colour: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(colour)
    for number in range(count):
        pixels = random.integers(0, 60, (20, 24, 3), dtype=np.uint8)
        pixels[..., colour % 3] += 40 + 10 * colour
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


def small_cifar100() -> DataSet:
    """Make a look-alike with CIFAR-100's classes and sessions, and two random images of 8x8 pixels a base class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60).repeat(2)
    images = torch.randint(0, 256, (120, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    tested = torch.arange(100)
    names = [f"class {number}" for number in range(100)]

    def session(number: int) -> Shots:
        first = 60 + 5 * (number - 1)
        return Shots(names[first : first + 5], ArrayImages(images[:25], torch.arange(5).repeat(5)))

    return DataSet(
        name="cifar100",
        classes=names,
        base=60,
        train=ArrayImages(images, labels),
        test=ArrayImages(images[:100], tested),
        sessions=8,
        session=session,
        transform=replace(TREATMENT.transform, resize=SIZE, crop=SIZE),
        augmentation=replace(TREATMENT.augmentation, size=SIZE),
        location=Path("cifar-100-python"),
    )


def brief(settings: Settings, make_run: MakeRun) -> Report:
    """Measure on small images for a moment."""
    small = replace(
        settings,
        pretrain=replace(settings.pretrain, batch_size=4, image_size=8),
        distill=replace(settings.distill, batch_size=4),
        image_size=8,
        seconds=0.1,
        rounds=1,
        workers=settings.workers and 1,
    )
    with pytest.MonkeyPatch.context() as patch:
        skip_slow_parts(patch)
        return run_bench(small, make_run)


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, with little data and short recipes."""

    def small(
        name: str,
        data_root: Path | None = None,
        image_size: int | None = None,
        skipped: Sequence[Skipped] = (),
        protocol: Protocol | None = None,
        **folder: Any,
    ) -> DataSet:
        if name == "cifar100":
            return small_cifar100()
        data = open_data(name, data_root, image_size, skipped, protocol, **folder)
        if name in ("demo", "demo-simulated"):
            assert isinstance(data.train, ArrayImages)
            few = torch.arange(0, len(data.train), 20)
            return replace(data, train=data.train.select(few, data.train.labels[few]))
        return data

    monkeypatch.setattr("m2sd_cli.api.pretrain.open_data", small)
    monkeypatch.setattr("m2sd_cli.api.recorded_data.open_data", small)
    monkeypatch.setattr("m2sd_cli.api.ablate.open_data", small)
    brief_recipes = tmp_path / "recipes"
    brief_recipes.mkdir()
    for name in recipe_names():
        text = re.sub(r"^epochs = \d+", "epochs = 1", find_recipe(name).text, flags=re.MULTILINE)
        (brief_recipes / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("m2sd_cli.recipes.FOLDER", brief_recipes)
    monkeypatch.setattr("m2sd_cli.api.bench.run_bench", brief)
    for recipe in (DATA_SETS["cifar100"].defaults, DATA_SETS["demo"].defaults, FOLDER_DEFAULTS):
        monkeypatch.setitem(recipe, "total_epochs", 2)
    monkeypatch.setitem(FOLDER_DEFAULTS, "backbone", "resnet20")
    small_weights = ImageNetWeights(
        lambda _: build_backbone("resnet20").state_dict(), "small", image_size=16, resize=16
    )
    monkeypatch.setitem(BACKBONES.entries, "small", replace(BACKBONES["resnet20"], imagenet=small_weights))
    monkeypatch.setattr("m2sd_cli.api.learn.best_backbone", lambda: "small")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for number, name in enumerate(("sparrow", "robin", "finch")):
        pictures(work / "photos" / name, 5, number)
        pictures(work / "labelled" / name, 2, number)
    for number, name in enumerate(("heron", "stork")):
        pictures(work / "new-birds" / name, 2, 3 + number)
    pictures(work / "holiday", 2, 5)
    return work


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking beside threads, from Python 3.12
@pytest.mark.parametrize("number", range(2, len(BLOCKS)))
def test_block_runs(
    number: int,
    workshop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    m2sd: Cli,
    pair: Callable[..., End],
) -> None:
    if "sessions verify" in BLOCKS[number]:
        assert m2sd("demo", "-q", "--run", "m2sd-run").code == 0
    commands = expanded(BLOCKS[number], tmp_path)
    assert commands
    for words, run in commands:
        if words[0] == "torchrun":
            torchrun = parse_args(words[1:])  # type: ignore[no-untyped-call]
            assert (torchrun.module, torchrun.training_script, torchrun.nproc_per_node) == (True, "m2sd_cli", "2")
            end = pair(*torchrun.training_script_args, "--device", "cpu")  # in which nothing is made small
            assert end.code == 0, (shlex.join(words), end)
            continue
        assert words[0] == "m2sd"
        if run:
            monkeypatch.setenv("M2SD_RUN", run)
        done = m2sd(*words[1:])
        assert done.code == 0, (shlex.join(words), done)


def test_cifar100_script_teaches_all_sessions(workshop: Path, tmp_path: Path, m2sd: Cli) -> None:
    script = next(block for block in BLOCKS if "--data cifar100" in block)
    words = [words for words, _ in expanded(script, tmp_path)]
    assert [each[1:] for each in words if each[1] == "increment"] == [
        ["increment", "--session", str(number)] for number in range(1, 9)
    ]
    assert [each[1] for each in words if each[1] != "increment"] == ["pretrain", "distill", "evaluate", "export"]


def test_opens_with_two_commands(tmp_path: Path) -> None:
    commands = [[words for words, _ in expanded(block, tmp_path)] for block in BLOCKS[:2]]
    assert commands[0] == [["pip", "install", "-e", "."], ["m2sd", "demo"]]
    assert commands[1] == [
        ["pip", "install", "-e", ".[test]"],
        ["python3", "-m", "pytest", "-n", "auto", "--cov=m2sd_cli"],
    ]


def test_commands_in_the_text_exist(m2sd: Cli) -> None:
    commands = set(re.findall(r"`m2sd (\w+)", README))
    assert {"pretrain", "evaluate"} <= commands
    for command in sorted(commands):
        assert m2sd(command, "--help").code == 0, command
