"""A chain that sees every image in several views: features, everything made of them, answers and exported files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

import m2sd_cli
from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.checkpoints import HELD_OUT, MEANS
from m2sd_cli.data.folders import open_folder, read_shots
from m2sd_cli.data.views import MOST_VIEWS, views
from m2sd_cli.inference.features import embed
from m2sd_cli.inference.session import SessionModel, load_session, to_transform
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, tree

COUNT = 3


@pytest.fixture(scope="module")
def seen(calibrated: Path, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibrated run, distilled anew without training and with three views of every image."""
    run = tmp_path_factory.mktemp("seen") / "run"
    shutil.copytree(calibrated, run)
    m2sd_cli.distill(str(stripes.folder), run=run, epochs=0, views=COUNT, device="cpu", force=True)
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    m2sd_cli.increment(2, stripes.second_shots, run=run, views=2, device="cpu")
    return run


@pytest.fixture
def model(seen: Path) -> SessionModel:
    return load_session(RunFolder(seen))


@pytest.fixture
def images(model: SessionModel, stripes: Stripes) -> Tensor:
    return next(iter(read_shots(stripes.labelled).source.batches(model.transform, 99)))[0]


def by_hand(model: SessionModel, pixels: Tensor, count: int = COUNT) -> Tensor:
    """One image and one view after the other, their mean in float64."""
    plain = replace(model.transform, views=1)
    found = [
        torch.stack([embed(model.backbone, view, plain)[0].double() for view in views(image[None], count)]).mean(dim=0)
        for image in pixels
    ]
    return torch.stack(found).float()


@pytest.mark.parametrize("count", [1, 2, 5, MOST_VIEWS])
def test_a_feature_is_the_mean_over_the_views(model: SessionModel, images: Tensor, count: int) -> None:
    found = embed(model.backbone, images, replace(model.transform, views=count))
    torch.testing.assert_close(found, by_hand(model, images, count), rtol=1e-4, atol=1e-5)
    if count > 1:
        assert not torch.allclose(found, embed(model.backbone, images, replace(model.transform, views=1)), rtol=1e-3)


def test_an_image_and_its_mirror_image_have_one_feature_if_both_are_seen(model: SessionModel, images: Tensor) -> None:
    both = replace(model.transform, views=2)
    mirrored = embed(model.backbone, images.flip(3), both)
    torch.testing.assert_close(mirrored, embed(model.backbone, images, both), rtol=1e-4, atol=1e-5)


def test_every_session_sees_what_the_base_session_saw(seen: Path) -> None:
    folder = RunFolder(seen)
    assert folder.pretrain().manifest.transform.views == 1
    assert [stored.manifest.transform.views for stored in folder.chain()] == [COUNT] * 3
    assert [stored.manifest.views for stored in folder.chain()] == [None, 1, 2]
    assert folder.chain()[0].manifest.config["views"] == COUNT


def test_means_and_held_out_features_are_of_all_views(seen: Path, model: SessionModel, stripes: Stripes) -> None:
    folder = RunFolder(seen)
    data = recorded_data(folder.pretrain().manifest, str(stripes.folder), None, 16)
    pixels, labels = next(iter(data.train.batches(model.transform, 99)))
    features = by_hand(model, pixels)
    for label in range(4):
        torch.testing.assert_close(model.means[label], features[labels == label].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert data.held_out is not None
    pixels, _ = next(iter(data.held_out.batches(model.transform, 99)))
    torch.testing.assert_close(
        folder.tensors(folder.chain()[0])[HELD_OUT], by_hand(model, pixels), rtol=1e-4, atol=1e-5
    )
    shots = read_shots(stripes.first_shots)
    pixels, labels = next(iter(shots.source.batches(model.transform, 99)))
    taught = folder.tensors(folder.chain()[1])[MEANS]
    for label in range(2):
        wanted = by_hand(model, pixels[labels == label]).mean(dim=0)
        torch.testing.assert_close(taught[label], wanted, rtol=1e-4, atol=1e-5)


def test_an_evaluation_sees_all_views(seen: Path, model: SessionModel, stripes: Stripes) -> None:
    source = open_folder(stripes.folder, 16).test
    pixels, labels = next(iter(source.batches(model.transform, 99)))
    right = model.classify(by_hand(model, pixels))[:, :4].argmax(dim=1) == labels
    found = m2sd_cli.evaluate(run=seen, data=str(stripes.folder), device="cpu").figures.sessions[0]
    assert found.overall == pytest.approx(100 * right.double().mean().item())


def test_a_prediction_sees_all_views(seen: Path, model: SessionModel, stripes: Stripes) -> None:
    image = sorted((stripes.labelled / "grey").iterdir())[0]
    feature = by_hand(model, model.transform.pixels(Image.open(image).convert("RGB"))[None])
    (found,) = m2sd_cli.predict([image], run=seen, top_k=7, device="cpu")
    wanted = (model.classify(feature)[0] / model.confidence.temperature).softmax(dim=0)
    assert {guess.name: guess.probability for guess in found.guesses} == pytest.approx(
        dict(zip(model.classes, wanted.tolist(), strict=True)), abs=1e-4
    )


def test_exported_networks_see_all_views(
    seen: Path, images: Tensor, tmp_path: Path, load_one_layer: Callable[..., SessionModel]
) -> None:
    model = load_one_layer(RunFolder(seen))
    wanted = model.classify(by_hand(model, images)) / model.confidence.temperature
    pt2, onnx = (m2sd_cli.export(form, tmp_path / f"model.{form}", run=seen) for form in ("pt2", "onnx"))
    extra = {"m2sd": ""}
    program = torch.export.load(pt2, extra_files=extra).module()
    torch.testing.assert_close(program(images)[0], wanted, rtol=1e-3, atol=1e-3)
    assert json.loads(extra["m2sd"])["views"] == COUNT
    session = onnxruntime.InferenceSession(onnx)
    for batch in (1, len(images)):
        logits, _ = session.run(None, {"images": images[:batch].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), wanted[:batch], rtol=1e-3, atol=1e-3)


def test_the_chain_is_reproduced(seen: Path, stripes: Stripes) -> None:
    shots: dict[int, Path | str] = {1: stripes.first_shots, 2: stripes.second_shots}
    again = m2sd_cli.reproduce(run=seen, data=str(stripes.folder), shots=shots, device="cpu")
    assert [stage.same for stage in again.stages] == [True] * 4


def test_runs_that_name_no_views_saw_one(trained: Path) -> None:
    record = RunFolder(trained).chain()[0].manifest.transform
    without = type(record).model_validate(record.model_dump(exclude={"views"}))
    assert to_transform(without).views == 1


def test_mirror_images_that_are_seen_already_are_refused(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    """The mean over a shot and its mirror image is what such a chain takes anyway."""
    m2sd_cli.distill(str(stripes.folder), run=run, epochs=0, views=2, device="cpu", force=True)
    before = tree(run)
    words = ["increment", "--session", 1, "--shots", stripes.first_shots, "--run", run, "--device", "cpu"]
    done = m2sd(*words, "--views", 2)
    assert (done.code, done.out) == (2, "")
    assert done.err == "m2sd: --views 2: this chain sees every image and its mirror image already; leave it out\n"
    assert tree(run) == before
    assert m2sd(*words, "--views", 4).code == 0


@pytest.mark.parametrize("count", [0, MOST_VIEWS + 1])
def test_there_are_so_many_views_and_no_more(pretrained: Path, m2sd: Cli, count: int) -> None:
    done = m2sd("distill", "--run", pretrained, "--views", count)
    assert done.code == 2
    assert done.err.startswith(f"m2sd: --views {count}: ")
    assert done.err.count("\n") == 1
