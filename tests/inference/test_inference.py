"""Features, class means and answers do not depend on how images are put into batches."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import m2sd_cli
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.folders import open_folder, read_shots
from m2sd_cli.errors import DamagedError, DataError, UsageError
from m2sd_cli.inference.device import autocast, choose_device, inference_precision, training_precision
from m2sd_cli.inference.features import base_features, embed, shot_features
from m2sd_cli.inference.prediction import Prediction
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import TransformRecord
from tests.helpers import Stripes

SIZES = [1, 3, 7, 256]


@pytest.mark.parametrize("size", SIZES)
def test_class_means_are_the_same_in_every_batch_size(
    trained: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    model = load_session(RunFolder(trained), 0)
    source = open_folder(stripes.folder, 16).train
    monkeypatch.setattr("m2sd_cli.inference.features.FEATURE_BATCH", size)
    means, statistics = base_features(model.backbone, source, 4, model.transform)
    assert means.shape == (4, 64)
    torch.testing.assert_close(means, model.means, rtol=1e-4, atol=1e-5)
    wanted = BaseCheckpoint.read(RunFolder(trained), RunFolder(trained).session(0)).statistics
    for name, tensor in statistics.tensors().items():
        torch.testing.assert_close(tensor, wanted.tensors()[name], rtol=1e-4, atol=1e-5)
    shots = read_shots(stripes.first_shots).source
    of_shots, features = shot_features(model.backbone, shots, 2, model.transform, 3)
    monkeypatch.undo()
    again = shot_features(model.backbone, shots, 2, model.transform, 3)
    torch.testing.assert_close((of_shots, features), again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 256, 3 * 256, 2**20])
@pytest.mark.parametrize("seen", [1, 2])
def test_parts_of_a_batch_have_the_features_of_the_whole(
    trained: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, pixels: int, seen: int
) -> None:
    model = load_session(RunFolder(trained))
    transform = replace(model.transform, views=seen)
    images = next(iter(read_shots(stripes.labelled).source.batches(transform, 99)))[0]
    wanted = torch.cat([embed(model.backbone, image[None], transform) for image in images])
    monkeypatch.setattr("m2sd_cli.inference.features.PIXELS_AT_ONCE", pixels)
    found = embed(model.backbone, images, transform)
    assert found.shape == (len(images), 64)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert embed(model.backbone, images[:0], transform).shape == (0, 64)


def test_a_class_mean_is_the_mean_of_the_features_of_its_shots(trained: Path, stripes: Stripes) -> None:
    model = load_session(RunFolder(trained))
    shots = read_shots(stripes.first_shots)
    pixels, labels = next(iter(shots.source.batches(model.transform, 99)))
    features = torch.cat([model.embed(each[None]) for each in pixels]).double()
    for number, name in enumerate(shots.classes):
        wanted = features[labels == number].mean(dim=0)
        torch.testing.assert_close(model.means[model.classes.index(name)].double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_an_evaluation_is_the_same_in_every_batch_size(
    trained: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    wanted = m2sd_cli.evaluate(run=trained, test=stripes.labelled, device="cpu")
    monkeypatch.setattr("m2sd_cli.reports.evaluation.FEATURE_BATCH", size)
    found = m2sd_cli.evaluate(run=trained, test=stripes.labelled, device="cpu")
    assert found.figures == wanted.figures
    assert torch.equal(found.answers.predicted, wanted.answers.predicted)


def test_every_session_is_evaluated_in_one_pass_as_it_would_be_alone(trained: Path, stripes: Stripes) -> None:
    whole = m2sd_cli.evaluate(run=trained, test=stripes.labelled, device="cpu").figures.sessions
    assert [each.classes for each in whole] == [4, 6, 7]
    assert [each.images for each in whole] == [8, 10, 12]
    source = read_shots(stripes.labelled)
    for number, figures in enumerate(whole):
        assert m2sd_cli.evaluate(run=trained, session=number, test=stripes.labelled, device="cpu").figures.sessions[
            number
        ] == (figures)
        model = load_session(RunFolder(trained), number)
        right = counted = 0
        for pixels, labels in source.source.batches(model.transform, 4):
            answers = model.classify(model.embed(pixels)).argmax(dim=1)
            for label, answer in zip(labels.tolist(), answers.tolist(), strict=True):
                counted += source.classes[label] in model.classes
                right += source.classes[label] == model.classes[answer]
        assert counted == figures.images
        assert figures.overall == pytest.approx(100 * right / counted)


def test_what_was_trained_is_known(trained: Path, stripes: Stripes) -> None:
    base = m2sd_cli.evaluate(run=trained, data=str(stripes.folder), session=0, device="cpu").figures.sessions[0]
    assert base.images == 12
    assert base.overall is not None
    assert base.overall > 50


def close(found: list[Prediction], wanted: list[Prediction]) -> bool:
    return all(
        [guess.name for guess in one.guesses] == [guess.name for guess in other.guesses]
        and [guess.probability for guess in one.guesses]
        == pytest.approx([guess.probability for guess in other.guesses], abs=1e-4)
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_predictions_are_the_same_in_every_batch_size(
    trained: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    wanted = list(m2sd_cli.predict([stripes.labelled], run=trained, device="cpu"))
    assert [each.path for each in wanted] == sorted(stripes.labelled.rglob("*.png"))
    monkeypatch.setattr("m2sd_cli.inference.prediction.PREDICT_BATCH", size)
    assert close(list(m2sd_cli.predict([stripes.labelled], run=trained, device="cpu")), wanted)


def test_a_prediction_names_the_likeliest_classes_first(trained: Path, stripes: Stripes) -> None:
    image = stripes.second_shots / "grey" / "grey-00.png"
    (all_of_them,) = m2sd_cli.predict([image], run=trained, top_k=99, device="cpu")
    assert all_of_them.path == image
    assert {guess.name for guess in all_of_them.guesses} == set(load_session(RunFolder(trained)).classes)
    shares = [guess.probability for guess in all_of_them.guesses]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    (best,) = m2sd_cli.predict([image], run=trained, top_k=2, device="cpu")
    assert best.guesses == all_of_them.guesses[:2]
    (earlier,) = m2sd_cli.predict([image], run=trained, top_k=99, session=0, device="cpu")
    assert {guess.name for guess in earlier.guesses} == {"blue", "green", "red", "yellow"}


def test_similarity_is_the_cosine_of_feature_and_class_mean(trained: Path, stripes: Stripes) -> None:
    image = stripes.labelled / "red" / "red-200.png"
    model = load_session(RunFolder(trained))
    feature = model.embed(model.transform.pixels(Image.open(image).convert("RGB"))[None])
    (answer,) = m2sd_cli.predict([image], run=trained, top_k=7, device="cpu")
    for guess in answer.guesses:
        wanted = F.cosine_similarity(feature[0], model.means[model.classes.index(guess.name)], dim=0).item()
        assert guess.similarity == pytest.approx(wanted, abs=1e-5)
        assert -1 <= guess.similarity <= 1


def test_images_of_every_kind_are_predicted_as_what_they_show(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    plain = Image.open(stripes.labelled / "green" / "green-201.png").convert("RGB")
    grey = plain.convert("L")
    opaque = plain.copy()
    opaque.putalpha(255)
    turned = plain.transpose(Image.Transpose.ROTATE_270)
    exif = turned.getexif()
    exif[0x0112] = 8  # to be turned by 90 degrees against the clock
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
    kinds = {
        "plain.bmp": plain,
        "opaque.png": opaque,
        "palette.png": plain.quantize(256),
        "grey.png": grey,
        "grey as colour.webp": grey.convert("RGB"),
        "sixteen.png": sixteen,
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, lossless=True)  # which only webp asks about
    turned.save(tmp_path / "turned.png", exif=exif)
    answers = {each.path.name: each for each in m2sd_cli.predict([tmp_path], run=trained, top_k=7, device="cpu")}
    assert answers.keys() == {*kinds, "turned.png"}
    for one, other in (
        ("opaque.png", "plain.bmp"),
        ("turned.png", "plain.bmp"),
        ("grey as colour.webp", "grey.png"),
        ("sixteen.png", "grey.png"),
    ):
        assert close([answers[one]], [answers[other]])


def test_an_image_of_one_pixel_and_a_long_one(trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    Image.new("RGB", (500, 2), "red").save(tmp_path / "long.png")
    answers = list(m2sd_cli.predict([tmp_path / "dot.png", tmp_path / "long.png"], run=trained, device="cpu"))
    assert [len(each.guesses) for each in answers] == [5, 5]
    assert close([answers[0]], [answers[1]])  # both are red all over


def test_what_cannot_be_predicted_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("text")
    for place, complaint in (("absent.jpg", "no such file"), ("empty", "no image in it")):
        with pytest.raises(DataError, match=f"{place}: {complaint}"):
            m2sd_cli.predict([tmp_path / place], run=trained, device="cpu")
    with pytest.raises(DataError, match=r"text\.jpg: not an image"):
        list(m2sd_cli.predict([tmp_path / "text.jpg"], run=trained, device="cpu"))
    with pytest.raises(UsageError, match="--top-k 0: at least 1"):
        m2sd_cli.predict([tmp_path], run=trained, top_k=0)


def test_a_folder_is_searched_for_images_and_hidden_files_are_passed_over(
    trained: Path, stripes: Stripes, tmp_path: Path
) -> None:
    image = stripes.labelled / "red" / "red-200.png"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/er/a.PNG", "b.png"):
        shutil.copy(image, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.png").write_bytes(b"what some systems leave beside a file")
    found = [each.path for each in m2sd_cli.predict([tmp_path], run=trained, device="cpu")]
    assert found == [tmp_path / "b.png", tmp_path / "deep" / "er" / "a.PNG"]


def test_a_checkpoint_that_does_not_fit_its_manifest_is_named(run: Path) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    base = folder.chain()[0]
    tensors = folder.tensors(base)
    backbone = base.manifest.backbone

    def rewrite(**changes: object) -> None:
        record = folder.write_checkpoint("session-000", tensors)
        folder.write_manifest("session-000", base.manifest.model_copy(update={"checkpoint": record, **changes}))

    means = tensors.pop("class_means")
    rewrite()
    with pytest.raises(DamagedError, match=r"session-000\.safetensors: not the checkpoint .*: class_means"):
        load_session(folder)
    tensors["class_means"] = means[:3]
    rewrite()
    with pytest.raises(DamagedError, match="class_means has not the shape"):
        load_session(folder)
    tensors["class_means"] = means
    rewrite(backbone=backbone.model_copy(update={"name": "resnet18"}))
    with pytest.raises(DamagedError, match="64 is not the feature width of resnet18"):
        load_session(folder)
    rewrite(backbone=backbone.model_copy(update={"name": "transformer"}))
    with pytest.raises(DamagedError, match="knows no backbone 'transformer'"):
        load_session(folder)


def test_the_transform_of_the_manifest_is_used(run: Path, stripes: Stripes) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    base = folder.chain()[0]
    other = TransformRecord(resize=40, crop=24, mean=(0, 0, 0), std=(1, 1, 1), squash=True)
    folder.write_manifest("session-000", base.manifest.model_copy(update={"transform": other}))
    model = load_session(folder)
    assert model.transform.crop == 24
    stored = m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    assert stored.manifest.transform == other


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cuda:", "cpu:0", "cpu:", "mps:1", "", "CUDA"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="choose auto, cpu, cuda, cuda:N or mps") as raised:
        choose_device(name)
    assert raised.value.exit_code == 2


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"--device {name}: .*leave --device out"):
            choose_device(name)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_auto_takes_cuda_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("mps").type == "mps"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1").index == 1
    with pytest.raises(UsageError, match="only 2 CUDA"):
        choose_device("cuda:2")


def test_bf16_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    for here in (True, False):
        wanted = "bf16" if here else "fp32"
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda here=here: here)
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation, here=here: here)
        assert training_precision("auto", cpu) == training_precision("auto", cuda) == wanted
        assert training_precision("auto", mps) == "fp32"
        assert training_precision("fp32", cpu) == "fp32"
        assert training_precision("bf16", cpu) == "bf16"
        assert inference_precision("auto") == "fp32"
        assert inference_precision("bf16") == "bf16"


def test_an_unknown_precision_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match="--precision fp16: choose auto, fp32, bf16"):
        training_precision("fp16", torch.device("cpu"))
    with pytest.raises(UsageError, match="--precision fp16"):
        m2sd_cli.evaluate(run=trained, precision="fp16")


def test_bf16_features_are_near(trained: Path, stripes: Stripes) -> None:
    exact, rough = (load_session(RunFolder(trained), precision=each) for each in ("fp32", "bf16"))
    pixels, _ = next(iter(read_shots(stripes.labelled).source.batches(exact.transform, 99)))
    wanted, found = exact.embed(pixels), rough.embed(pixels)
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted).min() > 0.99
    with autocast(torch.device("cpu"), "fp32"):
        assert not torch.is_autocast_enabled("cpu")
