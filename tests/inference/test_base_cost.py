"""The points of base accuracy that a new class may cost: recorded, chosen again, and the same in exported files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli import recipes
from m2sd_cli.api.base_session import base_cost
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.catalogue import get_info
from m2sd_cli.errors import UsageError
from m2sd_cli.exporting.deployed import Deployed
from m2sd_cli.inference.session import SessionModel, load_all_sessions, load_session
from m2sd_cli.method.debiased import SHARE, affordable_margin, separation
from m2sd_cli.method.heads import Head
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BASE_COST
from tests.helpers import QUICK_DISTILL, Cli, Stripes
from tests.inference.test_classifiers import rewrite


def margin(run: Path, base_cost: float | None = None) -> float:
    """What `debiased` takes from the logits of base classes."""
    folder = RunFolder(run)

    def bias(classifier: str, cost: float | None) -> float:
        model = load_all_sessions(folder, folder.summary(), classifier=classifier, base_cost=cost)[-1]
        assert isinstance(model.head, Head)
        assert model.head.bias is not None
        return float(model.head.bias[0])

    return bias("fecam", None) - bias("debiased", base_cost)


def measured(run: Path, base_cost: float) -> float:
    """The margin that held-out images allow, from the tensors of session 0."""
    folder = RunFolder(run)
    tensors = folder.tensors(folder.session(0))
    model = load_session(folder, 0, classifier="fecam")
    logits = model.classify(tensors["held_out_features"])
    return affordable_margin(logits, tensors["held_out_labels"], base_cost)


def test_session_0_records_the_points_and_answers_by_them(calibrated: Path) -> None:
    assert RunFolder(calibrated).session(0).manifest.base_cost == BASE_COST
    assert margin(calibrated) == pytest.approx(measured(calibrated, BASE_COST), abs=1e-4)


@pytest.mark.parametrize(
    ("data", "cost"),
    [("cifar100", 0.15), ("cub200", 0.06), ("miniimagenet", 0.15), ("cifar100-simulated", 0.5), ("demo", 0.5)],
)
def test_all_classes_of_the_sessions_may_cost_six_points(data: str, cost: float) -> None:
    info = get_info(data)
    assert info is not None
    opened: Any = SimpleNamespace(
        classes=["a class"] * info.classes, base=info.base, sessions=info.sessions, held_out=["an image"]
    )
    assert base_cost(DistillConfig(epochs=1), opened) == pytest.approx(cost)
    assert base_cost(DistillConfig(epochs=1, base_cost=2.0), opened) == 2.0
    opened.held_out = None
    assert base_cost(DistillConfig(epochs=1), opened) is None


def test_distill_takes_other_points(calibrated: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    words = ["--from", calibrated, "--run", tmp_path / "run", "--classifier", "debiased", "--base-cost", "30"]
    done = m2sd("distill", "--data", stripes.folder, *words, "--epochs", "0", "--device", "cpu")
    assert done.code == 0
    assert "debiased: a new class may cost 30 points of base accuracy, measured on 8 held-out images" in done.err
    manifest = RunFolder(tmp_path / "run").session(0).manifest
    assert (manifest.base_cost, manifest.config["base_cost"]) == (30.0, 30.0)
    assert margin(tmp_path / "run") == pytest.approx(measured(tmp_path / "run", 30.0), abs=1e-4)


def test_evaluate_chooses_them_again(calibrated: Path, stripes: Stripes, m2sd: Cli) -> None:
    assert margin(calibrated, 30.0) == pytest.approx(measured(calibrated, 30.0), abs=1e-4)
    assert margin(calibrated, 30.0) > margin(calibrated)
    words = ("evaluate", "--run", calibrated, "--test", stripes.labelled, "--classifier", "debiased", "--json")
    plain, asked = (m2sd(*words, *more) for more in ((), ("--base-cost", "100")))
    assert (plain.code, asked.code) == (0, 0)
    last = [json.loads(each.out)["sessions"][-1] for each in (plain, asked)]
    assert last[0]["base"] > last[1]["base"] == 0  # every class taught later wins


@pytest.mark.parametrize(
    ("run", "words", "says"),
    [
        ("calibrated", ["--base-cost", "1"], "fecam has none; leave it out, or add --classifier debiased or quadratic"),
        ("calibrated", ["--classifier", "debiased", "--base-cost", "101"], "points of accuracy, 0 to 100"),
        ("calibrated", ["--classifier", "debiased", "--base-cost", "nan"], "points of accuracy, 0 to 100"),
        ("trained", ["--classifier", "debiased", "--base-cost", "1"], "held no base image out to measure it with"),
    ],
)
def test_points_that_mean_nothing_are_refused(
    request: pytest.FixtureRequest, m2sd: Cli, run: str, words: list[str], says: str
) -> None:
    done = m2sd("evaluate", "--run", request.getfixturevalue(run), *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("calibrated", "new classes have no margin: 8 held-out images are too few to measure 0.5 points"),
        ("trained", "no image is held out; the margin of new classes is 5% of the distance between base classes"),
    ],
)
def test_distill_says_where_nothing_can_be_measured(
    request: pytest.FixtureRequest, stripes: Stripes, tmp_path: Path, m2sd: Cli, run: str, says: str
) -> None:
    words = ["--from", request.getfixturevalue(run), "--run", tmp_path / "run", "--classifier", "debiased"]
    done = m2sd("distill", "--data", stripes.folder, *words, "--epochs", "0", "--device", "cpu")
    assert done.code == 0
    assert f"debiased: {says}" in done.err


def test_distill_refuses_points_that_nothing_measures(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no base image is held out to measure it with"):
        m2sd_cli.distill(str(stripes.folder), run=tmp_path / "run", source=trained, base_cost=1.0, **QUICK_DISTILL)
    assert not (tmp_path / "run").exists()


def test_the_cost_of_a_recipe_gives_way_to_images_that_are_not_held_out(
    trained: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "costly.toml").write_text('[distill]\nclassifier = "debiased"\nbase_cost = 0.15\n')
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    run, words = tmp_path / "run", {**QUICK_DISTILL, "recipe": "costly"}
    m2sd_cli.distill(str(stripes.folder), run=run, source=trained, **words)
    assert RunFolder(run).session(0).manifest.base_cost is None
    with pytest.raises(UsageError, match="no base image is held out to measure it with"):
        m2sd_cli.distill(str(stripes.folder), run=run, source=trained, base_cost=0.2, force=True, **words)


def fixed_margin(model: SessionModel, run: Path) -> float:
    folder = RunFolder(run)
    return model.record.scale * SHARE * separation(folder.tensors(folder.session(0))["statistics.power_means"])


def test_a_run_without_the_field_means_what_it_meant(calibrated: Path, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(calibrated, run)
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    rewrite(run, 0, lambda tensors: None, base_cost=None)
    for each in (run, trained):
        assert RunFolder(each).session(0).manifest.base_cost is None
        assert margin(each) == pytest.approx(fixed_margin(load_session(RunFolder(each)), each), abs=1e-4)


def test_an_exported_file_has_the_same_margin(calibrated: Path) -> None:
    model = load_session(RunFolder(calibrated), classifier="debiased")
    pixels = torch.randint(0, 256, (4, 3, model.transform.crop, model.transform.crop)).float()
    exported = Deployed(model).eval()(pixels)[0] * model.confidence.temperature
    torch.testing.assert_close(exported, model.classify(model.embed(pixels.to(torch.uint8))), atol=1e-3, rtol=1e-3)
