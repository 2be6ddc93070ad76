"""Degenerate input keeps its numbers finite: zero features, one class, equal shots, classes of one image."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.cli.evaluate import as_data
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import TrainingError
from m2sd_cli.exporting.deployed import Deployed
from m2sd_cli.inference.session import load_session
from m2sd_cli.method.class_weights import SIMILARITIES
from m2sd_cli.method.stage3 import choices
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import session_name
from m2sd_cli.training.distill import build_enhancement, distill_module, distill_objective, loss_weights
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.sums import all_finite
from tests.helpers import QUICK, QUICK_DISTILL, Stripes, finished


def rewrite_base(run: Path, similarity: str, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Write another session 0 of that similarity, with hashes that fit."""
    folder = RunFolder(run)
    stored = folder.session(0)
    tensors = folder.tensors(stored)
    change(tensors)
    with folder.locked("test"):
        update = {
            "checkpoint": folder.write_checkpoint(session_name(0), tensors),
            "backbone": stored.manifest.backbone.model_copy(update={"similarity": similarity}),
        }
        folder.write_manifest(session_name(0), stored.manifest.model_copy(update=update))


def leave_nothing(tensors: dict[str, Tensor]) -> None:
    """Make features and means zero."""
    tensors["class_means"].zero_()
    for name, tensor in tensors.items():
        if ("bn" in name or "downsample.1" in name) and name.endswith(("weight", "bias")):
            tensor.zero_()


def check_use(run: Path, labelled: Path, paths: list[Path]) -> None:
    """Check that a run answers in finite numbers."""
    folder = RunFolder(run)
    assert all(all_finite(folder.tensors(stored)) for stored in folder.chain())
    evaluation = m2sd_cli.evaluate(run=run, test=labelled, device="cpu")
    json.dumps(as_data(evaluation, None), allow_nan=False)
    names = [each.name for stored in folder.chain() for each in stored.manifest.classes]
    for prediction in m2sd_cli.predict(paths, run=run, top_k=1000, device="cpu"):
        assert sorted(guess.name for guess in prediction.guesses) == sorted(names)
        assert sum(guess.probability for guess in prediction.guesses) == pytest.approx(1, abs=1e-5)
        assert all(0 <= guess.probability <= 1 for guess in prediction.guesses)
        assert all(-1.00001 <= guess.similarity <= 1.00001 for guess in prediction.guesses)
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for name in choices(folder.session(0).manifest.backbone.similarity):
        assert all_finite(
            dict(zip(("logits", "score"), Deployed(load_session(folder, classifier=name)).eval()(black), strict=True))
        )


@pytest.fixture
def single(stripes: Stripes, tmp_path: Path) -> Path:
    """One class of one image."""
    return fill(tmp_path / "single", stripes, gold=1)


def fill(folder: Path, stripes: Stripes, **classes: int) -> Path:
    """Classes of so many images each, all of them the first one of grey."""
    image = sorted((stripes.second_shots / "grey").iterdir())[0]
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shutil.copy(image, folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_zero_features(run: Path, stripes: Stripes, single: Path, similarity: str) -> None:
    rewrite_base(run, similarity, leave_nothing)
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    m2sd_cli.increment(2, single, run=run, device="cpu")
    assert not RunFolder(run).tensors(RunFolder(run).session(2))["class_means"].any()
    check_use(run, stripes.labelled, [stripes.labelled])
    guesses = next(iter(m2sd_cli.predict([single], run=run, top_k=1000, classifier="means", device="cpu"))).guesses
    assert [guess.probability for guess in guesses] == pytest.approx([1 / 7] * 7)
    assert [guess.similarity for guess in guesses] == [0] * 7


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_class_of_one_shot_and_equal_shots(
    run: Path, stripes: Stripes, single: Path, tmp_path: Path, similarity: str
) -> None:
    rewrite_base(run, similarity, lambda tensors: None)
    m2sd_cli.increment(1, single, run=run, device="cpu")
    m2sd_cli.increment(2, fill(tmp_path / "equal", stripes, silver=1, tin=3), run=run, device="cpu")
    folder = RunFolder(run)
    one, two = (folder.tensors(folder.session(number))["class_means"] for number in (1, 2))
    assert one.shape[0] == 1
    torch.testing.assert_close(two, one.expand_as(two))
    check_use(run, stripes.labelled, [single, stripes.labelled])
    guesses = next(iter(m2sd_cli.predict([single], run=run, top_k=1000, device="cpu"))).guesses
    gold, silver, tin = (next(each for each in guesses if each.name == name) for name in ("gold", "silver", "tin"))
    assert gold.similarity == pytest.approx(1)
    assert [silver.probability, tin.probability] == pytest.approx([gold.probability] * 2, rel=1e-4)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_base_classes_of_one_image(
    stripes: Stripes, single: Path, tmp_path: Path, similarity: str, batch_size: int
) -> None:
    """Batches of 7 images in sizes 2, 2, 3; 3, 4; and 7: one image is never left alone."""
    data, run = tmp_path / "few", tmp_path / "run"
    for number in range(7):
        (data / "train" / f"class {number}").mkdir(parents=True)
        # The last two are the same image.
        image = sorted((stripes.folder / "train" / "red").iterdir())[min(number, 5)]
        shutil.copy(image, data / "train" / f"class {number}")
    options: dict[str, Any] = {"run": run, "batch_size": batch_size, "epochs": 3, "learning_rate": 0.01}
    trained = [
        m2sd_cli.pretrain(str(data), **QUICK | {"similarity": similarity} | options),
        m2sd_cli.distill(str(data), **QUICK_DISTILL | {"clean_weight": 1.0} | options),
    ]
    for stored in trained:
        assert stored is not None
        json.dumps([each.model_dump() for each in stored.manifest.history], allow_nan=False)
    m2sd_cli.increment(1, single, run=run, device="cpu")
    check_use(run, single, [single])
    figures = m2sd_cli.evaluate(run=run, test=single, device="cpu").figures
    assert figures.sessions[0].overall is None
    assert figures.average is None


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_split_folder_whose_test_part_is_empty(stripes: Stripes, tmp_path: Path, similarity: str) -> None:
    data, run = fill(tmp_path / "split", stripes, one=1, two=2), tmp_path / "run"
    m2sd_cli.pretrain(str(data), run=run, **QUICK | {"similarity": similarity})
    m2sd_cli.distill(str(data), run=run, epochs=0, device="cpu")
    evaluation = m2sd_cli.evaluate(run=run, data=str(data), device="cpu")
    json.dumps(as_data(evaluation, None), allow_nan=False)
    assert evaluation.untested == ["one"]
    check_use(run, data, [data])


def batches(stripes: Stripes) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Normalised images and labels of three classes that leave nothing to tell apart."""
    image = torch.from_numpy(np.array(open_rgb(next((stripes.folder / "train" / "red").iterdir()))))
    noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    same = image[:16, :16].permute(2, 0, 1).float().div(127.5).sub(1).expand(4, 3, 16, 16)
    yield "one class", noise, torch.tensor([1, 1, 1, 1])
    yield "equal images", same, torch.tensor([0, 1, 2, 0])
    yield "black images", torch.zeros(4, 3, 16, 16), torch.tensor([0, 0, 1, 2])
    yield "two images", noise[:2], torch.tensor([2, 2])


@pytest.mark.parametrize("zero", [False, True], ids=["usual", "zero features"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_every_loss_and_gradient_is_a_number(stripes: Stripes, similarity: str, precision: str, zero: bool) -> None:
    config = resolve(PretrainConfig, Sources({"epochs": 1, "backbone": "resnet20", "similarity": similarity}))
    settings = DistillConfig(epochs=1, clean_weight=1.0)
    weights = loss_weights(settings)
    for what, x, labels in batches(stripes):
        network = build_network(config, 3)
        if zero:
            with torch.no_grad():
                for name, parameter in network.backbone.named_parameters():
                    if "bn" in name or "downsample.1" in name:
                        parameter.zero_()
        enhancement = build_enhancement(network, settings, weights)
        module = distill_module(network, enhancement).train()
        for objective in (
            pretrain_objective(network, config),
            distill_objective(network, enhancement, settings, weights),
        ):
            module.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss, measures = objective(x, labels, torch.Generator().manual_seed(0), slice(None))
            torch.autograd.backward(loss)
            assert all_finite({"loss": loss, **measures}), what
            assert all_finite({name: each.grad for name, each in module.named_parameters() if each.grad is not None})
            assert all_finite(dict(module.named_buffers())), what


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [
        ("pretrain", "scale", 1e300),
        ("pretrain", "learning_rate", 1e300),
        ("pretrain", "weight_decay", 1e300),
        ("distill", "temperature", 1e300),
        ("distill", "temperature", 1e-300),
        ("distill", "ce_weight", 1e300),
        ("distill", "attention_weight", 1e300),
    ],
)
def test_settings_beyond_all_bounds_end_in_one_line(
    run: Path, stripes: Stripes, stage: str, option: str, value: float
) -> None:
    options = (QUICK if stage == "pretrain" else QUICK_DISTILL) | {option: value, "batch_size": 16}
    with pytest.raises(TrainingError, match=f"^{stage}: no finite (value|weights)"):
        getattr(m2sd_cli, stage)(str(stripes.folder), run=run, force=True, **options)


@pytest.mark.parametrize("beta", [1e-300, 1e-3, 1e300])
def test_any_beta_mixes(run: Path, stripes: Stripes, beta: float) -> None:
    stored = finished(m2sd_cli.distill(str(stripes.folder), run=run, force=True, beta=beta, **QUICK_DISTILL))
    json.dumps([each.model_dump() for each in stored.manifest.history], allow_nan=False)
