"""A classifier of one's own is registered by a script and a package, and a backbone from Python."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import m2sd_cli
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.locate import treatment_of
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.session import load_session
from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.numerics import global_average_pool
from m2sd_cli.registry import OTHERS
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES, CLASSIFIERS, BackboneEntry, ClassifierEntry
from tests.helpers import Cli, Stripes, check_refusal

SHIPPED = ", ".join(CLASSIFIERS.entries)  # none of a plug-in is among them when this is imported
ROOT = Path(__file__).parents[2]
SCRIPT = '''
"""Compare square roots of features by cosine: python roots.py evaluate --classifier roots"""

import torch

import m2sd_cli
from m2sd_cli.__main__ import main
from m2sd_cli.method.feature_maps import PowerFeatures
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.tables import ClassifierEntry


def build(known: KnownClasses, similarity: str, scale: float) -> Head:
    rows = torch.cat([known.statistics.power_means, known.power_means()])
    return Head(rows, "cosine", scale, features=PowerFeatures(float(known.statistics.power)))


ENTRY = ClassifierEntry("roots:build")
if __name__ == "__main__":
    m2sd_cli.register_classifier("roots", build)
    main()
'''
ENTRY_POINTS = """
[m2sd.classifiers]
roots = roots:ENTRY
"""
HELP = """
import sys
from m2sd_cli.tables import {table}, {entry}
{table}.entries["toy"] = {entry}("toy:build"{label})
from m2sd_cli.cli.app import app
app(["{command}", "--help"])
"""


def run_python(*words: object, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python beside the modules of a folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "COLUMNS": "200"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "roots.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of a package with an entry point, as an installer lays it out."""
    folder = tmp_path / "installed"
    metadata = folder / "roots-1.2.dist-info"
    metadata.mkdir(parents=True)
    (folder / "roots.py").write_text(SCRIPT, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: roots\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def evaluation(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["classifier"] == "roots"
    assert content["sessions"][0]["overall"] > 50
    return content["sessions"]


def test_a_script_and_an_installed_package_bring_the_same_classifier(
    run: Path, stripes: Stripes, script: Path, installed: Path, m2sd: Cli
) -> None:
    words = ["evaluate", "--run", run, "--test", stripes.labelled, "--device", "cpu", "--json"]
    words += ["--classifier", "roots"]
    first = evaluation(run_python(script, *words, path=ROOT))
    assert evaluation(run_python("-m", "m2sd_cli", *words, path=installed)) == first

    RunFolder(run).remove_sessions(first=2)
    increment = ["increment", "--session", 2, "--shots", stripes.second_shots, "--run", run, "--device", "cpu", "-q"]
    done = run_python("-m", "m2sd_cli", *increment, "--classifier", "roots", path=installed)
    assert done.returncode == 0, done.stderr
    manifest = RunFolder(run).session(2).manifest
    assert (manifest.classifier, manifest.plugins) == ("roots", {"roots": "roots 1.2"})
    missing = m2sd("predict", stripes.labelled, "--run", run)
    check_refusal(missing, 4, "knows no classifier 'roots'; it comes from roots 1.2, which has to be installed")


def test_an_installed_package_is_named_without_being_imported(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "roots.py").write_text("1 / 0")
    refused = run_python("-m", "m2sd_cli", "evaluate", "--classifier", "root", path=installed).stderr
    assert refused.endswith(f"{SHIPPED}, roots (did you mean roots?); {OTHERS}\n")
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "m2sd evaluate --classifier ro")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run_python("-m", "m2sd_cli", path=installed).stdout.split() == ["roots"]


@pytest.fixture
def broken_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package of a classifier and a data set that cannot be imported."""
    for table in (CLASSIFIERS, DATA_SETS):
        monkeypatch.setitem(vars(table), "_plugins", {"lost": EntryPoint("lost", "no_such_module:X", table.group)})


@pytest.mark.usefixtures("broken_packages")
def test_a_broken_package_disables_no_other_part(trained: Path, stripes: Stripes, m2sd: Cli) -> None:
    done = m2sd("predict", stripes.labelled, "--run", trained, "--device", "cpu", "--classifier", "means")
    assert done.code == 0, done.err
    assert "lost" not in done.err
    loaded = m2sd_cli.load_run(trained)
    assert loaded.head is loaded.heads[loaded.classifier]
    assert "lost" not in loaded.heads
    listed = m2sd("data", "list")
    assert listed.code == 0
    assert listed.err.startswith("left out: --data lost: no_such_module cannot be loaded (No module named")
    treatment_of("cifar100")
    with pytest.raises(UsageError, match=r"^--transform demo-2: choose cifar100, .* or demo$"):
        treatment_of("demo-2")


class Tiny(Backbone):
    """Four convolutions, each of which halves the resolution."""

    width = 8
    level_widths = (4, 4, 4, 8)
    blocks = ("0", "1", "2", "3")

    def __init__(self) -> None:
        super().__init__()
        for name, in_channels, width in zip(self.blocks, (3, *self.level_widths), self.level_widths, strict=False):
            self.add_module(name, nn.Conv2d(in_channels, width, 3, stride=2, padding=1))

    def forward(self, x: Tensor) -> Features:
        """See Backbone."""
        maps = []
        for name in self.blocks:
            x = torch.relu(self.get_submodule(name)(x))
            maps.append(x)
        return Features(tuple(maps), global_average_pool(x))


def test_a_registered_backbone_lives_a_whole_life(
    stripes: Stripes, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKBONES, "entries", dict(BACKBONES.entries))
    m2sd_cli.register_backbone("tiny", Tiny)
    run = tmp_path / "run"
    words = ["--run", run, "--device", "cpu", "-q"]
    trained = m2sd(
        "pretrain", "--data", stripes.folder, "--backbone", "tiny", "--image-size", 16, "--epochs", 1, *words
    )
    assert trained.code == 0, trained.err
    assert m2sd("distill", "--data", stripes.folder, "--epochs", 1, *words).code == 0
    assert m2sd("increment", "--session", 1, "--shots", stripes.first_shots, *words).code == 0
    assert RunFolder(run).pretrain().manifest.plugins == {"tiny": "tests without a version"}
    assert load_session(RunFolder(run)).backbone.width == 8
    monkeypatch.delitem(BACKBONES.entries, "tiny")
    done = m2sd("evaluate", "--test", stripes.labelled, *words)
    check_refusal(done, 4, "this version knows no backbone 'tiny'; it comes from tests without a version")


@pytest.mark.parametrize(
    ("table", "entry", "label", "command", "listed"),
    [
        ("BACKBONES", "BackboneEntry", ', "Toy"', "pretrain", f"{list(BACKBONES.entries)[-1]}, toy or timm:NAME."),
        ("BACKBONES", "BackboneEntry", ', "Toy"', "bench", f"{list(BACKBONES.entries)[-1]}, toy or timm:NAME."),
        ("CLASSIFIERS", "ClassifierEntry", "", "distill", f"{SHIPPED} or toy."),
        ("CLASSIFIERS", "ClassifierEntry", "", "increment", f"Classifier from this session on: {SHIPPED} or toy;"),
        (
            "CLASSIFIERS",
            "ClassifierEntry",
            "",
            "export",
            f"Classifier: {SHIPPED} or toy; by default the session's own.",
        ),
    ],
)
def test_an_entry_is_in_the_help(table: str, entry: str, label: str, command: str, listed: str, tmp_path: Path) -> None:
    program = HELP.format(table=table, entry=entry, label=label, command=command)
    assert listed in " ".join(run_python("-c", program, path=tmp_path).stdout.split())


def test_an_entry_is_configured_and_completed(m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES.entries, "toy", BackboneEntry("toy:build", "Toy"))
    monkeypatch.setitem(CLASSIFIERS.entries, "toy", ClassifierEntry("toy:build"))
    assert resolve(PretrainConfig, Sources({"epochs": 1, "backbone": "toy"})).backbone == "toy"
    assert resolve(DistillConfig, Sources({"epochs": 1, "classifier": "toy"})).classifier == "toy"
    refused = m2sd("evaluate", "--classifier", "tay")
    assert refused.err == f"m2sd: --classifier tay: choose {SHIPPED}, toy (did you mean toy?); {OTHERS}\n"
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    for typed in (
        "pretrain --backbone t",
        "distill --classifier to",
        "evaluate --classifier to",
        "bench --backbone to",
    ):
        monkeypatch.setenv("COMP_WORDS", f"m2sd {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        assert "toy" in m2sd().out.split(), typed
