"""The plan of a training: what it would do, without a trace of it."""

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest

from m2sd_cli.api.plan import Plan, plan
from m2sd_cli.data.cache import cache_folder
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.epochs import HELD_OUT_SHARE
from m2sd_cli.training.loop import Training
from tests.helpers import QUICK, Cli, Stripes, tree

FIRST = ["--image-size", 16, "--backbone", "resnet20", "--batch-size", 8, "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def _quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step take a second on the clock."""
    measure = Training.step_seconds

    def step_seconds(training: Training, _enough: float | None = None) -> float:
        assert measure(training) > 0
        return 1.0

    monkeypatch.setattr(Training, "step_seconds", step_seconds)


@pytest.fixture(scope="session")
def planned(stripes: Stripes) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step_seconds", lambda *_: 1.0)
        return plan("pretrain", stripes.folder, run=stripes.folder.parent / "no-run", **QUICK | {"epochs": 3})


def test_both_stages_are_timed(planned: Plan, stripes: Stripes) -> None:
    first, second = planned.stages
    steps = -(-planned.images // 8)
    assert (first.stage, first.epochs, first.epoch_steps) == ("pretrain", 3, steps)
    share = HELD_OUT_SHARE if planned.held_out else 0
    assert first.seconds == pytest.approx(3 * steps * (1 + share))
    assert (second.stage, second.epochs, second.epoch_steps) == ("distill", 80, -(-planned.images // 64))
    assert planned.decoding_seconds > 0
    assert (planned.data, planned.content) == (stripes.folder.name, [])


def test_every_option_has_its_origin(planned: Plan, m2sd: Cli) -> None:
    shown = json.loads(m2sd("config", "show", "--json").out)["pretrain"]
    assert planned.options.keys() == shown.keys()
    for name, (value, origin) in planned.options.items():
        given = (QUICK | {"epochs": 3}).get(name)
        assert (value, origin) == ((given, "command line") if given is not None else tuple(shown[name].values()))


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
def test_nothing_is_written(stage: str, run: Path, m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    words: list[object] = FIRST if stage == "pretrain" else ["--batch-size", 8, "--device", "cpu"]
    cache = tree(cache_folder()) if cache_folder().exists() else {}
    before = tree(tmp_path)
    done = m2sd(stage, "--data", stripes.folder, "--run", run, "--dry-run", "--force", "--epochs", 2, *words)
    assert done.code == 0, done.err
    assert tree(tmp_path) == before
    assert (tree(cache_folder()) if cache_folder().exists() else {}) == cache
    lines = done.out.splitlines()
    sessions = RunFolder(run).sessions()
    kept = f"session{'s 0 to' if len(sessions) > 1 else ''} {sessions[-1]}"
    assert f"run: {run}, a finished pretrain and {kept} in it" in lines
    assert lines[-1].startswith("distill: ")
    assert f"{stage}: 2 epochs of" in done.out
    assert done.err.splitlines()[-1] == f"{stage} --dry-run: nothing was trained, and nothing written to {run}"


def test_a_plan_is_one_json_document(m2sd: Cli, run: Path) -> None:
    done = m2sd("distill", "--run", run, "--dry-run", "--force", "--epochs", 0, "--json")
    content = json.loads(done.out)
    assert content["stage"] == "distill"
    assert content["options"]["epochs"] == {"value": 0, "origin": "command line"}
    assert content["options"]["seed"]["origin"] == "pretrain"
    assert [(each["stage"], each["seconds"]) for each in content["stages"]] == [("distill", 0.0)]


def test_a_budget_tells_the_epochs(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *FIRST, "--dry-run", "--json"]
    content = json.loads(m2sd(*words, "--time-budget", "1h").out)
    first = content["stages"][0]
    assert content["options"]["epochs"] == {"value": first["epochs"], "origin": "time budget"}
    assert 3600 - first["seconds"] / first["epochs"] < first["seconds"] <= 3600
    little = m2sd(*words, "--time-budget", "1s")
    assert (little.code, little.out) == (2, "")
    assert little.err.startswith("m2sd: --time-budget: an epoch takes about")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--resume"], 2, "--dry-run and --resume: choose one"),
        (["--requeue"], 2, "--dry-run and --requeue: choose one"),
        ([], 4, "{run}: a finished pretrain is in it; --force replaces it"),
        (["--force", "--milestones", "1"], 2, "--milestones 1: --schedule cosine has none"),
    ],
)
def test_a_plan_is_refused_as_the_training_would_be(
    words: list[str], code: int, says: str, m2sd: Cli, run: Path, stripes: Stripes
) -> None:
    done = m2sd("pretrain", "--data", stripes.folder, "--run", run, "--dry-run", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"m2sd: {says.format(run=run)}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "cifar100",
            "cifar100: not on this machine, and --dry-run downloads nothing; 'm2sd data download cifar100' gets it",
        ),
        ("cub200", "cub200: no CUB_200_2011 in"),
    ],
)
def test_nothing_is_downloaded(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(says)}"):
        plan("pretrain", name, run=tmp_path / "run", data_root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_built_in_data_set_has_a_size_of_its_own(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "device": "cpu"}
    found = plan("pretrain", "demo", run=tmp_path / "run", **options)
    assert found.options["image_size"] == (28, "data set")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("small_backbone")
def test_no_weights_are_downloaded(stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object) -> NoReturn:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("m2sd_cli.api.pretrain.initialise", download)
    options = {**QUICK, "backbone": "small", "init": "imagenet"}
    assert len(plan("pretrain", stripes.folder, run=tmp_path / "run", **options).stages) == 2
    with pytest.raises(UsageError, match=r"^--init imagenet: no weights of resnet20; choose --backbone "):
        plan("pretrain", stripes.folder, run=tmp_path / "run", **options | {"backbone": "resnet20"})
