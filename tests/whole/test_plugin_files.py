"""A file of one's own, named by --plugin, brings a classifier, a backbone or a data set."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.api.recorded_commands import recorded_command
from m2sd_cli.exporting import EXPORT_FORMATS, ExportFormat
from m2sd_cli.registry import way_to
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES, CLASSIFIERS, BackboneEntry, ClassifierEntry
from tests.helpers import BASE, Cli, Stripes, check_refusal, tables_as_before, train_on_less, tree

NEAREST = '''"""The nearest class mean."""
import torch

import m2sd_cli
from m2sd_cli.method.heads import Head


def build(known, _similarity, scale):
    means = torch.cat([known.base, known.new])
    factor = scale / known.base.square().sum(dim=1).mean()
    return Head(factor * means, "linear", bias=-factor * means.square().sum(dim=1) / 2)


m2sd_cli.register_classifier("nearest", build)
'''
TINY = '''"""Four convolutions."""
from torch import nn

import m2sd_cli
from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.numerics import global_average_pool


class Tiny(Backbone):
    level_widths = (4, 4, 8, 8)
    width = 8

    def __init__(self):
        super().__init__()
        pairs = zip((3, 4, 4, 8), self.level_widths)
        self.levels = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)

    def forward(self, x):
        maps = [x := level(x).relu() for level in self.levels]
        return Features(tuple(maps), global_average_pool(x))


m2sd_cli.register_backbone("tiny", Tiny)
'''


@pytest.fixture(autouse=True)
def _tables_as_before() -> Iterator[None]:
    with tables_as_before():
        yield


def written(folder: Path, text: str, name: str = "own.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_classifier_of_a_file_answers_and_is_recorded(run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    file = written(tmp_path, NEAREST, "nearest.py")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    RunFolder(copy).remove_sessions(first=2)
    words = ["--run", copy, "--device", "cpu"]
    evaluated = m2sd(
        "--plugin", file, "evaluate", *words, "--test", stripes.labelled, "--classifier", "nearest", "--json"
    )
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["classifier"] == "nearest"
    # Tables have it in this process from now on; in another one it has to be named again.
    taught = m2sd("increment", *words, "--session", 2, "--shots", stripes.second_shots, "--classifier", "nearest")
    assert taught.code == 0, taught.err
    manifest = RunFolder(copy).session(2).manifest
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (manifest.classifier, manifest.plugins) == ("nearest", {"nearest": f"nearest.py (SHA-256 {sha256})"})
    del CLASSIFIERS.entries["nearest"]
    refused = m2sd("predict", stripes.labelled, *words)
    check_refusal(refused, 4, "knows no classifier 'nearest'; it comes from nearest.py, to be named before the command")
    assert recorded_command(manifest).startswith("m2sd --plugin nearest.py increment --session 2")
    told = "nearest is of another nearest.py than the run was made with: answers may be others"
    for text, others in ((NEAREST, 0), (NEAREST + "# changed", 1)):
        CLASSIFIERS.entries.pop("nearest", None)
        for name in [each for each in sys.modules if each.startswith("m2sd_plugin_")]:
            del sys.modules[name]
        renamed = written(tmp_path, text, "renamed.py")
        answered = m2sd("--plugin", renamed, "predict", stripes.labelled, *words)
        assert (answered.code, answered.err.count(told)) == (0, others), answered.err


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        ("'own_parts:bild'", "--classifier own, of own.py (SHA-256 "),
        ("lambda known, *_: 1 / len(known.new[2:])", "it fails (ZeroDivisionError: division by zero); --debug shows"),
        ("lambda known, *_: known.base", "it builds a Tensor, and no Head or nn.Module"),
    ],
)
def test_a_classifier_that_cannot_answer_is_not_recorded(
    run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli, builder: str, says: str
) -> None:
    file = written(tmp_path, f"import m2sd_cli\nm2sd_cli.register_classifier('own', {builder})\n")
    RunFolder(run).remove_sessions(first=1)
    before = tree(run)
    words = ["--session", 1, "--shots", stripes.first_shots, "--run", run, "--device", "cpu", "--classifier", "own"]
    check_refusal(m2sd("--plugin", file, "increment", *words), 1, says)
    assert tree(run) == before


def test_a_misspelt_builder_is_told_before_a_training(
    pretrained: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli
) -> None:
    file = written(tmp_path, "import m2sd_cli\nm2sd_cli.register_classifier('own', 'json:bild')\n")
    before = tree(pretrained)
    words = ["--data", stripes.folder, "--run", pretrained, "--device", "cpu", "--epochs", 1, "--classifier", "own"]
    says = "--classifier own, of own.py (SHA-256 "
    check_refusal(m2sd("--plugin", file, "distill", *words), 1, says)
    assert tree(pretrained) == before
    rows, out = written(tmp_path, "[own]\ndistill.classifier = 'own'\n", "rows.toml"), tmp_path / "out"
    words = ["--data", "demo", "--rows-file", rows, "--out", out, "--device", "cpu"]
    check_refusal(m2sd("--plugin", file, "ablation", *words), 1, f"row own: {says}")
    assert not out.exists()


def test_a_backbone_of_a_file_is_trained_and_the_next_command_names_the_file(
    stripes: Stripes, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, TINY, "tiny.py")
    run = tmp_path / "run"
    words = ["--data", stripes.folder, "--run", run, "--backbone", "tiny", "--image-size", 16, "--epochs", 1]
    trained = m2sd("--plugin", file, "pretrain", *words, "--device", "cpu")
    assert trained.code == 0, trained.err
    assert f"next: m2sd --plugin {file} distill " in trained.err
    assert RunFolder(run).pretrain().manifest.plugins["tiny"].startswith("tiny.py (SHA-256 ")


PARTS = '''"""A schedule, an optimiser and a format."""
import torch

import m2sd_cli


def adagrad(groups, config, fused):
    return torch.optim.Adagrad(groups, lr=config.learning_rate)


def build(model, text):
    return "\\n".join(model.classes).encode()


m2sd_cli.register_schedule("falling", lambda config, step, steps, epoch: 1 - step / steps, milestones=True)
m2sd_cli.register_optimizer(
    "adagrad", adagrad, state={"sum.": "sum"}, defaults={"pretrain": {"learning_rate": 0.01}}
)
m2sd_cli.register_export_format("names", build)
'''


def test_a_file_adds_optimisers_schedules_and_formats(
    stripes: Stripes, trained: Path, tmp_path: Path, m2sd: Cli
) -> None:
    file, run = written(tmp_path, PARTS, "parts.py"), tmp_path / "run"
    words = ["--data", stripes.folder, "--run", run, "--backbone", "resnet20", "--image-size", 16, "--epochs", 2]
    words += ["--optimizer", "adagrad", "--schedule", "falling", "--milestones", 1, "--device", "cpu"]
    assert m2sd("--plugin", file, "pretrain", *words, "--stop-after", "0.001s").code == 5
    done = m2sd("--plugin", file, "pretrain", "--run", run, "--resume", "--device", "cpu")
    assert done.code == 0, done.err
    manifest = RunFolder(run).pretrain().manifest
    assert manifest.config["learning_rate"] == 0.01
    assert manifest.plugins.keys() == {"adagrad", "falling"}
    done = m2sd("--plugin", file, "export", "--run", trained, "--out", tmp_path / "birds.names")
    assert done.code == 0, done.err
    assert (tmp_path / "birds.names").read_text().split() == [*BASE, "purple", "white", "grey"]


def test_an_entry_has_all_that_was_registered() -> None:
    m2sd_cli.register_classifier("own", "json:dumps", candidate=True, base_cost=True, by_class=True)
    m2sd_cli.register_classifier("last", "json:dumps", levels=False)
    m2sd_cli.register_backbone("own", "json:dumps", sized=True)
    m2sd_cli.register_export_format("own", "json:dumps", files=["a", "b"], tensors_only=True)
    assert CLASSIFIERS["own"] == ClassifierEntry("json:dumps", candidate=True, base_cost=True, by_class=True)
    assert CLASSIFIERS["last"] == ClassifierEntry("json:dumps", levels=False)
    assert BACKBONES["own"] == BackboneEntry("json:dumps", "own", sized=True)
    assert EXPORT_FORMATS["own"] == ExportFormat("json:dumps", folder=True, files=("a", "b"), tensors_only=True)


def test_a_training_goes_on_with_the_file_that_it_began_with(stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    file, run = written(tmp_path, TINY, "tiny.py"), tmp_path / "run"
    words = ["--data", stripes.folder, "--run", run, "--backbone", "tiny", "--image-size", 16, "--device", "cpu"]
    assert m2sd("--plugin", file, "pretrain", *words, "--epochs", 2, "--stop-after", "0.001s").code == 5
    before = tree(run)
    del BACKBONES.entries["tiny"]
    says = "the interrupted training began with 'tiny', which is not here; it comes from tiny.py, to be named before"
    check_refusal(m2sd("pretrain", "--run", run, "--resume"), 4, says)
    written(tmp_path, TINY + "# changed", "tiny.py")
    says = "the interrupted training began with 'tiny' of another tiny.py, which was changed since; name the file as it"
    check_refusal(m2sd("--plugin", file, "pretrain", "--run", run, "--resume"), 2, says)
    assert tree(run) == before
    del BACKBONES.entries["tiny"]
    for name in [name for name in sys.modules if name.startswith("m2sd_plugin_")]:  # as in another process
        del sys.modules[name]
    other = written(tmp_path, TINY, "tiny-as-it-was.py")
    done = m2sd("--plugin", other, "pretrain", "--run", run, "--resume", "--device", "cpu")
    assert done.code == 0, done.err


def test_a_row_of_a_table_keeps_the_file_that_it_began_with(
    tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on_less(monkeypatch, 30, 10)
    rows, file = written(tmp_path, "[own]\ndistill.classifier = 'nearest'\n", "rows.toml"), tmp_path / "nearest.py"
    words = ["ablation", "--data", "demo", "--rows-file", rows, "--out", tmp_path / "out", "--device", "cpu"]
    words += ["--pretrain-epochs", 1, "--epochs", 1]
    written(tmp_path, NEAREST, "nearest.py")
    assert m2sd("--plugin", file, *words, "--seeds", 1).code == 0
    del CLASSIFIERS.entries["nearest"]
    written(tmp_path, NEAREST + "# changed", "nearest.py")
    before = tree(tmp_path / "out")
    says = "its row own began with 'nearest' of another nearest.py, which was changed since; name the file as it"
    for more in ([], ["--dry-run"], ["--rows", "plain"]):  # which would share stages with it
        check_refusal(m2sd("--plugin", file, *words, "--seeds", 2, *more), 2, says)
        assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("builder", ["partial(build, scale=1.0)", "lambda *each: build(*each)", "'own_parts:build'"])
def test_whatever_a_file_registers_comes_from_it(tmp_path: Path, m2sd: Cli, builder: str) -> None:
    text = "from functools import partial\n" + NEAREST.replace('"nearest", build', f'"nearest", {builder}')
    file = written(tmp_path, text, f"nearest-{len(builder)}.py")
    assert m2sd("--plugin", file, "recipes").code == 0
    assert str(CLASSIFIERS.origin("nearest")).startswith(f"{file.name} (SHA-256 ")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x =", 2, "no Python (invalid syntax"),
        ("x = '\0'", 2, "no Python ("),
        ("x = 1", 2, "it registers nothing; call m2sd_cli.register_classifier or its like"),
        ("1 / 0", 1, "it fails (ZeroDivisionError: division by zero); --debug shows where"),
        ("raise SystemExit(0)", 1, "it fails (SystemExit: 0)"),
        ("import m2sd_cli\nm2sd_cli.register_classifier('means', print)", 2, "--classifier means: the name is taken"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, m2sd: Cli, text: str, code: int, says: str
) -> None:
    file = written(tmp_path, text)
    check_refusal(m2sd("--plugin", file, "recipes"), code, f"--plugin {file}: {says}")


def test_a_file_is_named_before_the_command_and_has_to_be_there(tmp_path: Path, m2sd: Cli) -> None:
    check_refusal(m2sd("--plugin", tmp_path / "none.py", "recipes"), 2, "cannot be read (No such file")
    check_refusal(m2sd("--plugin", tmp_path, "recipes"), 2, "cannot be read")
    check_refusal(
        m2sd("evaluate", "--plugin", "own.py"), 2, "--plugin; write it before the command, as in 'm2sd --plugin FILE.py"
    )


def test_a_completion_runs_no_file(tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + NEAREST)
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"m2sd --plugin {file} evaluate --classifier te")
    monkeypatch.setenv("COMP_CWORD", "5")
    assert m2sd().out.split() == ["teen"]
    assert not (tmp_path / "ran").exists()


def test_the_way_to_an_origin() -> None:
    assert way_to(None) == ""
    assert way_to("roots 1.2") == "; it comes from roots 1.2, which has to be installed"
    assert way_to("a (1).py (SHA-256 00)").endswith("m2sd --plugin a (1).py")
