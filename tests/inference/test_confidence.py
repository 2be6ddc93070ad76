"""Held-out base images: the features stored of them, and the confidence fitted to these."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import m2sd_cli
from m2sd_cli.checkpoints import HELD_OUT, HELD_OUT_LABELS, BaseCheckpoint
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.folders import open_folder, read_shots
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.errors import DamagedError, TrainingError
from m2sd_cli.inference.features import held_out_features
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.calibration import Confidence, fit_temperature, unknown_threshold
from m2sd_cli.method.familiarity import build_centred_likeness
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, copy_base_session
from tests.inference.test_classifiers import HEADS, rewrite
from tests.reports.test_calibration import plain_auroc, plain_ece, plain_fpr95


@pytest.fixture
def held_out(stripes: Stripes) -> ImageSource:
    """Two images of each base class."""
    found = choose_training(open_folder(stripes.folder, 16), 0.25, None).held_out
    assert found is not None
    return found


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Images that are like none that was ever seen."""
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "noise").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number}.png")
    return tmp_path / "noise"


def pixels_of(source: ImageSource, run: Path) -> Tensor:
    pixels, _ = next(iter(source.batches(load_session(RunFolder(run)).transform, 99)))
    return pixels


# ---- what is stored


def test_the_base_session_holds_the_features_of_images_that_it_was_not_trained_on(
    calibrated: Path, trained: Path, held_out: ImageSource
) -> None:
    folder = RunFolder(calibrated)
    tensors = folder.tensors(folder.session(0))
    model = load_session(folder)
    assert torch.equal(tensors[HELD_OUT_LABELS], held_out.labels)
    torch.testing.assert_close(tensors[HELD_OUT], model.embed(pixels_of(held_out, calibrated)), rtol=1e-4, atol=1e-5)
    for run, number in ((calibrated, 1), (calibrated, 2), (trained, 0)):
        assert not {HELD_OUT, HELD_OUT_LABELS} & RunFolder(run).tensors(RunFolder(run).session(number)).keys()


@pytest.mark.parametrize("most", [1, 3, 7])
def test_of_many_images_some_are_kept_of_all_classes(
    calibrated: Path, held_out: ImageSource, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    model = load_session(RunFolder(calibrated))
    every, labels = held_out_features(model.backbone, held_out, model.transform)
    monkeypatch.setattr("m2sd_cli.inference.features.MOST_KEPT", most)
    monkeypatch.setattr("m2sd_cli.inference.features.FEATURE_BATCH", 2)
    some, of = held_out_features(model.backbone, held_out, model.transform)
    chosen = [number * 8 // most for number in range(most)]
    torch.testing.assert_close(some, every[chosen], rtol=1e-4, atol=1e-5)
    assert torch.equal(of, labels[chosen])


def test_features_that_are_not_finite_are_refused(calibrated: Path, held_out: ImageSource) -> None:
    model = load_session(RunFolder(calibrated))
    for parameter in model.backbone.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="no finite numbers"):
        held_out_features(model.backbone, held_out, model.transform)


def change_labels(value: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors[HELD_OUT_LABELS].fill_(value)


HURT: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "no features": lambda tensors: tensors.pop(HELD_OUT),
    "no labels": lambda tensors: tensors.pop(HELD_OUT_LABELS),
    "another width": lambda tensors: tensors.update({HELD_OUT: torch.zeros(8, 63)}),
    "one label more": lambda tensors: tensors.update({HELD_OUT_LABELS: torch.zeros(9, dtype=torch.int64)}),
    "labels of no shape": lambda tensors: tensors.update({HELD_OUT_LABELS: torch.tensor(1)}),
    "no image": lambda tensors: tensors.update(
        {HELD_OUT: torch.zeros(0, 64), HELD_OUT_LABELS: torch.zeros(0, dtype=torch.int64)}
    ),
    "labels of another type": lambda tensors: tensors.update({HELD_OUT_LABELS: torch.zeros(8)}),
    "not finite": lambda tensors: tensors[HELD_OUT].fill_(float("inf")),
    "a class too high": change_labels(4),
    "a class below 0": change_labels(-1),
}


@pytest.mark.parametrize("change", HURT.values(), ids=HURT)
def test_a_base_session_with_other_images_than_can_be_is_refused(
    calibrated: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    run = copy_base_session(calibrated, tmp_path / "run")
    rewrite(run, 0, change)
    with pytest.raises(DamagedError, match=r"session-000\.safetensors: not the checkpoint that its manifest names"):
        load_session(RunFolder(run))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("value", [3e38, -3e38, 1e-38, 0.0])
def test_features_of_no_images_give_numbers_or_one_line(
    calibrated: Path, tmp_path: Path, name: str, value: float
) -> None:
    run = copy_base_session(calibrated, tmp_path / "run")
    rewrite(run, 0, lambda tensors: tensors[HELD_OUT].fill_(value))
    complaint, found = "", Confidence()
    try:
        found = load_session(RunFolder(run), classifier=name).confidence
    except DamagedError as error:
        complaint = str(error)
    if complaint:
        assert "session-000.safetensors: " in complaint
    else:
        assert torch.tensor([found.temperature, found.unknown_below]).isfinite().all()


def test_a_chain_with_such_images_is_reproduced(calibrated: Path, stripes: Stripes, tmp_path: Path) -> None:
    run = copy_base_session(calibrated, tmp_path / "run")
    data = str(stripes.folder)
    assert m2sd_cli.reproduce(run=run, data=data).same
    rewrite(run, 0, lambda tensors: tensors[HELD_OUT].add_(1))
    assert [each.same for each in m2sd_cli.reproduce(run=run, data=data).stages] == [True, False]


# ---- what is fitted


@pytest.mark.parametrize("name", HEADS)
def test_every_classifier_has_its_own_and_every_session_the_same(calibrated: Path, name: str) -> None:
    folder = RunFolder(calibrated)
    tensors = folder.tensors(folder.session(0))
    found = [load_session(folder, number, classifier=name).confidence for number in range(3)]
    model = load_session(folder, 0, classifier=name)
    logits = model.classify(tensors[HELD_OUT])
    temperature = fit_temperature(logits, tensors[HELD_OUT_LABELS])
    scores = model.recognise(tensors[HELD_OUT], logits).double().max(dim=1).values
    for each in found:
        assert each.temperature == pytest.approx(temperature, rel=1e-4)
        assert each.unknown_below == pytest.approx(unknown_threshold(scores), rel=1e-4)
        assert each.calibrated


def test_they_are_different(calibrated: Path) -> None:
    found = [load_session(RunFolder(calibrated), classifier=name).confidence for name in ("means", "fecam", "ranpac")]
    assert len({round(each.temperature, 3) for each in found}) == 3
    assert len({round(each.unknown_below or 0, 3) for each in found}) == 1  # the distance is the same for all


def test_without_such_images_nothing_is_unknown(trained: Path, noise: Path) -> None:
    found = load_session(RunFolder(trained)).confidence
    assert (found.temperature, found.calibrated) == (1.0, False)
    for each in m2sd_cli.predict([noise], run=trained, device="cpu"):
        assert (each.unknown, each.calibrated) == (False, False)


# ---- what it does to answers


def test_what_scores_too_low_is_called_unknown(calibrated: Path, stripes: Stripes, noise: Path, m2sd: Cli) -> None:
    words = ["--run", calibrated, "--classifier", "means", "--device", "cpu", "--top-k", 2]
    plain = m2sd("predict", noise, stripes.folder / "train" / "blue", *words)
    assert (plain.code, plain.err) == (0, "")
    lines = dict(line.rsplit(": ", 1) for line in plain.out.splitlines())
    data = json.loads(m2sd("predict", noise, stripes.folder / "train" / "blue", *words, "--json").out)["predictions"]
    assert len(lines) == len(data) == 11
    below = load_session(RunFolder(calibrated), classifier="means").confidence.unknown_below
    assert below is not None
    for each in data:
        guesses = ", ".join(f"{guess['name']} {100 * guess['probability']:.1f} %" for guess in each["classes"])
        assert each["unknown"] == (each["score"] < below)
        assert each["calibrated"]
        assert lines[each["image"]] == (f"unknown ({guesses})" if each["unknown"] else guesses)
    unknown = [each["unknown"] for each in data]
    # How many depends on the rounding of the machine that trains a network in eight steps.
    assert any(unknown[:3])
    assert not all(unknown[3:])


@pytest.mark.parametrize("name", HEADS)
def test_probabilities_are_those_at_the_temperature(calibrated: Path, stripes: Stripes, name: str) -> None:
    model = load_session(RunFolder(calibrated), classifier=name)
    source = read_shots(stripes.labelled).source
    features = model.embed(pixels_of(source, calibrated))
    logits = model.classify(features)
    scores = model.recognise(features, logits).amax(dim=1).tolist()
    logits = logits / model.confidence.temperature
    answers = list(m2sd_cli.predict([stripes.labelled], run=calibrated, top_k=7, classifier=name, device="cpu"))
    for row, answer, score in zip(logits, answers, scores, strict=True):
        found = {guess.name: guess.probability for guess in answer.guesses}
        assert [found[each] for each in model.classes] == pytest.approx(row.softmax(dim=0).tolist(), abs=1e-4)
        assert answer.score == pytest.approx(score, rel=1e-4)
        assert answer.told == model.confidence.told


@pytest.mark.parametrize("name", HEADS)
def test_an_evaluation_counts_what_each_session_says_alone(calibrated: Path, stripes: Stripes, name: str) -> None:
    found = m2sd_cli.evaluate(run=calibrated, test=stripes.labelled, classifier=name, device="cpu")
    labelled = read_shots(stripes.labelled)
    pixels = pixels_of(labelled.source, calibrated)
    truths = [labelled.classes[label] for label in labelled.source.labels.tolist()]
    assert [each.session for each in found.calibration] == [0, 1, 2]
    for number, figures in enumerate(found.calibration):
        model = load_session(RunFolder(calibrated), number, classifier=name)
        raw = model.classify(model.embed(pixels))
        logits = raw.double() / model.confidence.temperature
        best, answers = logits.softmax(dim=1).max(dim=1)
        known = [truth in model.classes for truth in truths]
        right = [model.classes[answer] == truth for answer, truth in zip(answers.tolist(), truths, strict=True)]
        ours = [place for place, each in enumerate(known) if each]
        ece = plain_ece([best.tolist()[place] for place in ours], [right[place] for place in ours])
        assert figures.ece == pytest.approx(ece, abs=0.01)
        scores = model.recognise(model.embed(pixels), raw).max(dim=1).values.tolist()
        positives = [score for score, each in zip(scores, known, strict=True) if each]
        negatives = [score for score, each in zip(scores, known, strict=True) if not each]
        assert (figures.known, figures.unknown) == (len(positives), len(negatives))
        assert figures.auroc == pytest.approx(plain_auroc(positives, negatives))
        assert figures.fpr95 == pytest.approx(plain_fpr95(positives, negatives))


@pytest.mark.parametrize("size", [1, 3])
def test_it_is_the_same_in_every_batch_size(
    calibrated: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    wanted = m2sd_cli.evaluate(run=calibrated, test=stripes.labelled, device="cpu")
    monkeypatch.setattr("m2sd_cli.reports.evaluation.FEATURE_BATCH", size)
    found = m2sd_cli.evaluate(run=calibrated, test=stripes.labelled, device="cpu")
    for one, other in zip(found.calibration, wanted.calibration, strict=True):
        assert one.ece == pytest.approx(other.ece, abs=1e-3)
        assert (one.known, one.unknown) == (other.known, other.unknown)


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "fecam"), ("onnx", "centred"), ("pt2", "means"), ("safetensors", "fecam")]
)
def test_an_exported_file_gives_the_probabilities_and_scores_of_predict(
    calibrated: Path,
    stripes: Stripes,
    tmp_path: Path,
    load_one_layer: Callable[..., SessionModel],
    form: str,
    name: str,
) -> None:
    path = m2sd_cli.export(form, tmp_path / "out", run=calibrated, classifier=name)
    model = load_one_layer(RunFolder(calibrated), classifier=name)
    pixels = pixels_of(read_shots(stripes.labelled).source, calibrated)
    if form == "onnx":
        session = onnxruntime.InferenceSession(path)
        said: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map["m2sd"])
        logits, scores = map(torch.from_numpy, session.run(None, {"images": pixels.numpy()}))
    elif form == "pt2":
        extra = {"m2sd": ""}
        logits, scores = torch.export.load(path, extra_files=extra).module()(pixels)
        said = json.loads(extra["m2sd"])
    else:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["m2sd"])
            assert model.familiarity is not None
            for tensor, value in model.familiarity.state_dict().items():
                assert torch.equal(file.get_tensor(f"familiarity.{tensor}"), value)
        features = model.embed(pixels)
        logits = model.classify(features) / said["temperature"]
        scores = model.familiarity(features).amax(dim=1)
    confidence = model.confidence
    assert said["calibrated"] is True
    assert (said["temperature"], said["unknown_below"]) == (confidence.temperature, confidence.unknown_below)
    assert said["unknown_told"] == confidence.told
    assert said["score"] == "distance"
    answers = list(m2sd_cli.predict([stripes.labelled], run=calibrated, classifier=name, top_k=1, device="cpu"))
    logits, scores = logits.detach(), scores.detach()
    best, which = logits.softmax(dim=1).max(dim=1)
    for answer, score, probability, index in zip(answers, scores, best, which, strict=True):
        assert answer.score == pytest.approx(float(score), abs=1e-3)
        assert answer.guesses[0].name == said["classes"][int(index)]
        assert answer.guesses[0].probability == pytest.approx(float(probability), abs=1e-3)


@pytest.mark.parametrize("told", [59.9, 60.0, None])
def test_a_network_that_can_hardly_tell_says_so(
    calibrated: Path, stripes: Stripes, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, told: float | None
) -> None:
    monkeypatch.setattr("m2sd_cli.inference.session.fit_confidence", lambda *_: Confidence(1.0, -2.0, told))
    words = ["--run", calibrated, "--device", "cpu"]
    for done in (m2sd("predict", stripes.labelled, *words), m2sd("evaluate", "--test", stripes.labelled, *words)):
        assert done.code == 0
        assert ('"unknown" is not reliable here' in done.err) == (told == 59.9)
        assert done.err.count("reliable") == (told == 59.9)


@pytest.mark.parametrize("score", ["logit", "centred", "centred-length"])
def test_a_base_session_says_which_score_it_goes_by(
    calibrated: Path, stripes: Stripes, tmp_path: Path, score: str, load_one_layer: Callable[..., SessionModel]
) -> None:
    """A pretrained network goes by the centred cosine, less the length today; one that names none, by the logit."""
    run = copy_base_session(calibrated, tmp_path / "run")
    assert RunFolder(run).session(0).manifest.known_score == "distance"
    rewrite(run, 0, lambda tensors: None, known_score=score)
    model = load_one_layer(RunFolder(run), classifier="means")
    features = model.embed(pixels_of(read_shots(stripes.labelled).source, run))
    logits = model.classify(features)
    other = load_session(RunFolder(run), classifier="centred").classify(features)
    likeness = model.recognise(features, logits)
    if score == "centred-length":
        chain = RunFolder(run).summary()
        base = BaseCheckpoint.read(RunFolder(run), chain.base)
        known = KnownClasses(base.means, base.means[:0], [], base.statistics, base.images)
        wanted = build_centred_likeness(known)(features)
        assert not torch.allclose(wanted, other / model.record.scale, atol=0.1)
    else:
        wanted = logits if score == "logit" else other / model.record.scale
    torch.testing.assert_close(likeness, wanted, rtol=1e-4, atol=1e-5)
    path = m2sd_cli.export("onnx", tmp_path / "out.onnx", run=run, classifier="means")
    pixels = pixels_of(read_shots(stripes.labelled).source, run)
    _, scores = onnxruntime.InferenceSession(path).run(None, {"images": pixels.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), likeness.amax(dim=1), rtol=1e-3, atol=1e-3)
