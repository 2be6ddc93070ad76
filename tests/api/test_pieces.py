"""The pieces of a run, and features as arrays: those that the commands answer with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import m2sd_cli
from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import DataError, RunError, UsageError
from tests.helpers import BASE, Cli, Stripes, check_refusal

CPU = ["--device", "cpu", "-q"]


@pytest.mark.parametrize("kind", [str, Path])
def test_the_pieces_answer_as_predict_does(trained: Path, stripes: Stripes, kind: Any) -> None:
    loaded = m2sd_cli.load_run(kind(trained))
    path = next((stripes.labelled / "purple").iterdir())
    pixels = loaded.transform.pixels(open_rgb(path))[None]
    with torch.inference_mode():
        feature = loaded.backbone(loaded.transform.normalise(pixels)).pooled
        best = int(loaded.head(feature).argmax())
    (predicted,) = m2sd_cli.predict([path], run=trained, device="cpu")
    assert loaded.classes[best] == predicted.guesses[0].name
    assert loaded.classes == [*BASE, "purple", "white", "grey"]
    assert loaded.taught == [0, 0, 0, 0, 1, 1, 2]
    assert loaded.means.shape == (7, 64)
    assert not loaded.backbone.training
    assert len(repr(loaded)) < 800


def test_every_head_is_the_one_that_evaluate_answers_with(trained: Path) -> None:
    loaded = m2sd_cli.load_run(trained, session=1)
    assert loaded.classifier in loaded.heads
    assert {"means", "teen"} <= set(loaded.heads)
    for name in ("means", "teen"):
        assert loaded.heads[name] is loaded.heads[name]
        assert loaded.heads[name](torch.zeros(2, 64)).shape == (2, 6)
    with pytest.raises(KeyError, match=r"nobody.*means"):
        loaded.heads["nobody"]


def test_a_network_can_be_trained_further(trained: Path) -> None:
    loaded = m2sd_cli.load_run(trained)
    loaded.backbone(torch.ones(2, 3, 16, 16)).pooled.sum().backward()
    assert all(each.grad is not None for each in loaded.backbone.parameters())


def test_parts_are_those_of_the_run(calibrated: Path, stripes: Stripes) -> None:
    found = {part: m2sd_cli.features(calibrated, part=part, device="cpu") for part in ("train", "held-out", "test")}
    assert {part: len(each.labels) for part, each in found.items()} == {"train": 24, "held-out": 8, "test": 12}
    paths = {part: {*(each.paths or [])} for part, each in found.items()}
    assert not paths["train"] & paths["held-out"]
    assert paths["train"] | paths["held-out"] == {*(stripes.folder / "train").rglob("*.png")}
    for each in found.values():
        assert each.paths is not None
        assert [each.classes[label] for label in each.labels] == [path.parent.name for path in each.paths]
    train = found["train"]
    means = np.stack([train.features[train.labels == label].mean(axis=0) for label in range(4)])
    assert means == pytest.approx(m2sd_cli.load_run(calibrated).means[:4].numpy(), abs=1e-5)


def test_a_simulated_data_set_has_the_trained_images_alone(simulated: Path) -> None:
    found = m2sd_cli.features(str(simulated), device="cpu")
    held_out = m2sd_cli.features(simulated, part="held-out", device="cpu")
    assert found.paths is None
    means = m2sd_cli.load_run(simulated).means
    rows = [found.features[found.labels == label].mean(axis=0) for label in range(len(means))]
    assert np.stack(rows) == pytest.approx(means.numpy(), abs=1e-4)
    assert 0 < len(held_out.labels) < len(found.labels)


def test_the_file_has_the_arrays(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "test.safetensors"
    done = m2sd("features", "--run", trained, "--part", "test", "--out", out, *CPU, "--json")
    assert json.loads(done.out) == {"file": str(out), "part": "test", "images": 12, "width": 64}
    expected = m2sd_cli.features(trained, part="test", device="cpu")
    with safe_open(out, "pt") as file:
        assert torch.equal(file.get_tensor("features"), torch.from_numpy(expected.features))
        assert file.get_tensor("labels").tolist() == expected.labels.tolist()
        about = json.loads(file.metadata()["m2sd"])
    assert about["classes"] == expected.classes
    assert about["files"] == expected.names
    assert about["files"][0].startswith("test/blue/")


def test_other_images_than_those_trained_on_are_refused(trained: Path, stripes: Stripes) -> None:
    with pytest.raises(DataError):
        m2sd_cli.features(trained, stripes.labelled, device="cpu")


def test_what_is_not_there_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such part; choose train, held-out, test"):
        m2sd_cli.features(trained, part="shots")
    with pytest.raises(RunError, match="no such run folder"):
        m2sd_cli.load_run(tmp_path / "none")


def test_the_command_refuses_in_one_line(m2sd: Cli, run: Path, tmp_path: Path) -> None:
    check_refusal(m2sd("features", "--run", run, "--out", run / "session-000.json"), 2, "that is a file of the run")
    check_refusal(m2sd("features", "--run", run, "--out", "-", "--json"), 2, "both write to stdout")
    done = m2sd("features", "--run", run, "--out", tmp_path / "x", "--part", "tset")
    assert (done.code, done.out) == (2, "")
    assert "no such part; choose train, held-out, test" in done.err


def test_every_public_name_is_listed() -> None:
    assert {*m2sd_cli.__all__, "features", "load_run", "study"} <= {*dir(m2sd_cli)}
