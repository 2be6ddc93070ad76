"""The classifiers of stage 3 on a chain: their tensors, their names, and answers that fit together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import m2sd_cli
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.folders import read_shots
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.views import MOST_VIEWS, views
from m2sd_cli.errors import DamagedError, M2sdError, UsageError
from m2sd_cli.inference.features import shot_features
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.feature_maps import (
    CentredFeatures,
    PlainFeatures,
    PowerFeatures,
    QuadraticFeatures,
    RandomFeatures,
)
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import choices, default_classifier
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import session_name
from m2sd_cli.tables import CLASSIFIERS, DEFAULT_CLASSIFIER, ClassifierEntry
from tests.helpers import QUICK, Cli, Stripes

HEADS = tuple(CLASSIFIERS.entries)
STATISTICS = {"fecam", "ranpac", "debiased", "centred", "quadratic"}


@pytest.fixture
def images(trained: Path, stripes: Stripes) -> Tensor:
    """Images of known and unknown classes."""
    pixels, _ = next(iter(read_shots(stripes.labelled).source.batches(load_session(RunFolder(trained)).transform, 99)))
    return pixels


def rewrite(run: Path, number: int, change: Callable[[dict[str, Tensor]], object], **update: object) -> None:
    """Change the checkpoint of the newest session, and its manifest so that it vouches for that."""
    folder = RunFolder(run)
    stored = folder.session(number)
    tensors = folder.tensors(stored)
    change(tensors)
    with folder.locked("test"):
        update["checkpoint"] = folder.write_checkpoint(session_name(number), tensors)
        folder.write_manifest(session_name(number), stored.manifest.model_copy(update=update))


def logits_of(model: SessionModel, pixels: Tensor) -> Tensor:
    return model.classify(model.embed(pixels))


def test_a_configuration_can_name_every_one() -> None:
    assert options_of(DistillConfig)["classifier"].choices == HEADS
    assert DEFAULT_CLASSIFIER in HEADS
    assert choices("cosine") == list(HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_every_session_is_evaluated_in_one_pass_as_it_would_be_alone(
    trained: Path, stripes: Stripes, images: Tensor, name: str
) -> None:
    whole = m2sd_cli.evaluate(run=trained, test=stripes.labelled, classifier=name, device="cpu")
    assert whole.classifier == name
    last = logits_of(load_session(RunFolder(trained), classifier=name), images)
    for number, figures in enumerate(whole.figures.sessions):
        alone = m2sd_cli.evaluate(run=trained, session=number, test=stripes.labelled, classifier=name, device="cpu")
        assert alone.figures.sessions[number] == figures
        here = logits_of(load_session(RunFolder(trained), number, classifier=name), images)
        assert here.shape == (len(images), figures.classes)
        torch.testing.assert_close(here, last[:, : figures.classes], rtol=1e-4, atol=1e-4)
        assert here.std() > 0.01


def test_they_are_different(trained: Path, images: Tensor) -> None:
    found = [logits_of(load_session(RunFolder(trained), classifier=name), images).softmax(dim=1) for name in HEADS]
    for number, one in enumerate(found):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in found[:number])


@pytest.mark.parametrize("name", HEADS)
def test_what_was_trained_is_known(trained: Path, stripes: Stripes, name: str) -> None:
    found = m2sd_cli.evaluate(run=trained, data=str(stripes.folder), classifier=name, device="cpu").figures.sessions
    assert found[0].overall is not None
    assert found[0].overall > 50


@pytest.mark.parametrize("name", HEADS)
def test_predictions_are_of_the_classifier_and_similarities_of_the_class_means(
    trained: Path, stripes: Stripes, images: Tensor, name: str
) -> None:
    model = load_session(RunFolder(trained), classifier=name)
    wanted = logits_of(model, images).softmax(dim=1)
    answers = list(m2sd_cli.predict([stripes.labelled], run=trained, top_k=7, classifier=name, device="cpu"))
    plain = list(m2sd_cli.predict([stripes.labelled], run=trained, top_k=7, device="cpu"))
    for row, answer, other in zip(wanted, answers, plain, strict=True):
        found = {guess.name: guess for guess in answer.guesses}
        assert [found[each].probability for each in model.classes] == pytest.approx(row.tolist(), abs=1e-4)
        assert {each: found[each].similarity for each in found} == pytest.approx(
            {guess.name: guess.similarity for guess in other.guesses}, abs=1e-5
        )


@pytest.mark.parametrize("name", [name for name in HEADS if name != "means"])
def test_an_exported_file_answers_as_the_session_does(
    trained: Path, images: Tensor, tmp_path: Path, load_one_layer: Callable[..., SessionModel], name: str
) -> None:
    tensor_specs: tuple[Literal["safetensors", "onnx", "pt2"], ...] = ("safetensors", "onnx", "pt2")
    files = {form: m2sd_cli.export(form, tmp_path / form, run=trained, classifier=name) for form in tensor_specs}
    model = load_one_layer(RunFolder(trained), classifier=name)
    wanted = logits_of(model, images)
    assert wanted.std(dim=0).max() > 0.01  # so that the comparison means something
    torch.testing.assert_close(torch.export.load(files["pt2"]).module()(images)[0], wanted, rtol=1e-4, atol=1e-3)
    logits, _ = onnxruntime.InferenceSession(files["onnx"]).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=1e-3)
    with safe_open(files["safetensors"], "pt") as file:
        said = json.loads(file.metadata()["m2sd"])
        tensors = {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
    assert said["classifier"] == name
    assert torch.equal(tensors["class_means"], model.means)
    again = rebuilt(said["head"], {each.removeprefix("head."): tensor for each, tensor in tensors.items()})
    torch.testing.assert_close(again(model.embed(images)), wanted)


def rebuilt(said: dict[str, Any], tensors: dict[str, Tensor]) -> Head:
    """A head of what a safetensors file says of it."""
    features = said["features"]
    kind = features.pop("kind")
    if kind == "random":
        assert features == {"size": tensors["features.projection"].shape[1]}
        mapped: Any = RandomFeatures(tensors["features.projection"])
    elif kind == "centred":
        mapped = CentredFeatures(features["power"], tensors["features.centre"], tensors["features.projection"])
    elif kind == "quadratic":
        mapped = QuadraticFeatures(features["power"], tensors["features.directions"])
    else:
        mapped = {"plain": PlainFeatures, "power": PowerFeatures}[kind](**features)
    return Head(tensors["rows"], said["rows"], said["scale"], tensors.get("bias"), mapped)


# ---- who names it


def test_distill_names_the_first(run: Path, stripes: Stripes) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=0)
    m2sd_cli.distill(str(stripes.folder), run=run, epochs=0, classifier="teen", device="cpu")
    assert folder.session(0).manifest.classifier == folder.session(0).manifest.config["classifier"] == "teen"
    assert m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu").manifest.classifier == "teen"


def test_a_session_names_it_for_those_after_it(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    folder = RunFolder(run)
    assert [stored.manifest.classifier for stored in folder.chain()] == [DEFAULT_CLASSIFIER] * 3
    folder.remove_sessions(first=1)
    words = ["--run", run, "--device", "cpu", "--json"]
    first = json.loads(m2sd("increment", "--session", 1, "--shots", stripes.first_shots, *words).out)
    assert (first["classifier"], first["views"]) == (DEFAULT_CLASSIFIER, 1)
    folder.remove_sessions(first=1)
    changed = ["--classifier", "ranpac", "--views", 2]
    first = json.loads(m2sd("increment", "--session", 1, "--shots", stripes.first_shots, *changed, *words).out)
    assert (first["classifier"], first["views"]) == ("ranpac", 2)
    second = json.loads(m2sd("increment", "--session", 2, "--shots", stripes.second_shots, *words).out)
    assert (second["classifier"], second["views"]) == ("ranpac", 1)
    assert [each["classifier"] for each in json.loads(m2sd("sessions", "--run", run, "--json").out)["sessions"]] == [
        DEFAULT_CLASSIFIER,
        "ranpac",
        "ranpac",
    ]
    assert m2sd("sessions", "--run", run).out.count("ranpac") == 2
    assert load_session(folder).classifier == "ranpac"
    assert load_session(folder, 0).classifier == DEFAULT_CLASSIFIER
    assert load_session(folder, classifier="fecam").classifier == "fecam"
    done = m2sd("evaluate", "--test", stripes.labelled, "--run", run, "--device", "cpu")
    assert "classifier: ranpac\n" in done.err
    other = m2sd("evaluate", "--test", stripes.labelled, "--classifier", "teen", *words)
    assert json.loads(other.out)["classifier"] == "teen"


def test_an_unknown_one_is_refused(run: Path, stripes: Stripes) -> None:
    for use in (
        lambda: m2sd_cli.evaluate(run=run, test=stripes.labelled, classifier="best"),
        lambda: m2sd_cli.predict([stripes.labelled], run=run, classifier="cosine"),
        lambda: m2sd_cli.export("pt2", run.parent / "out", run=run, classifier="best"),
        lambda: m2sd_cli.increment(3, stripes.second_shots, run=run, classifier="best"),
    ):
        with pytest.raises(UsageError, match=f"choose {', '.join(HEADS)}"):
            use()


def test_one_that_this_version_does_not_know_is_named_with_its_package(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    folder = RunFolder(run)
    manifest = folder.session(2).manifest
    changed = manifest.model_copy(update={"classifier": "oracle", "plugins": {"oracle": "delphi 2.1"}})
    folder.write_manifest("session-002", changed)
    says = f"m2sd: {run}/session-002.json: this version knows no classifier 'oracle'"
    says += "; it comes from delphi 2.1, which has to be installed\n"
    for words in (
        ["evaluate", "--test", stripes.labelled],
        ["predict", stripes.labelled],
        ["increment", "--session", 3, "--shots", stripes.labelled / "orange"],
        ["export", "--format", "safetensors", "--out", run.parent / "out"],
    ):
        done = m2sd(*words, "--run", run)
        assert (done.code, done.out, done.err) == (4, "", says), words
    assert m2sd("evaluate", "--test", stripes.labelled, "--run", run, "--classifier", "means").code == 0
    assert load_session(folder, 1).classifier == DEFAULT_CLASSIFIER


def test_linear_class_weights_compare_no_directions(
    stripes: Stripes, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(str(stripes.folder), run=run, **QUICK | {"similarity": "linear"})
    monkeypatch.setattr("m2sd_cli.method.stage3.DEFAULT_CLASSIFIER", "teen")
    m2sd_cli.distill(str(stripes.folder), run=run, epochs=0, device="cpu")
    assert RunFolder(run).session(0).manifest.classifier == "means"
    m2sd_cli.increment(1, stripes.first_shots, run=run, classifier="fecam", device="cpu")
    for name in ("means", "fecam", "ranpac", "debiased"):
        assert m2sd_cli.evaluate(run=run, test=stripes.labelled, classifier=name, device="cpu").classifier == name
    model = load_session(RunFolder(run), classifier="means")
    assert (model.head.similarity, model.head.bias) == ("linear", None)
    others = ", ".join(name for name in HEADS if name != "teen")
    for name in ("teen",):
        done = m2sd("distill", "--data", stripes.folder, "--force", "--yes", "--run", run, "--classifier", name)
        assert (done.code, done.out) == (2, "")
        assert f"pretrained with --similarity linear; choose {others}\n" in done.err
        for words in (
            ["evaluate", "--test", stripes.labelled],
            ["increment", "--session", 2, "--shots", stripes.second_shots],
        ):
            done = m2sd(*words, "--run", run, "--classifier", name)
            assert (done.code, done.out) == (2, "")
            assert done.err == (
                f"m2sd: --classifier {name}: it compares directions, and this run was pretrained with "
                f"--similarity linear; choose {others}\n"
            )
    assert RunFolder(run).sessions() == [0, 1]


def test_the_default_is_one_that_the_trained_classifier_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HEADS:
        monkeypatch.setattr("m2sd_cli.method.stage3.DEFAULT_CLASSIFIER", name)
        assert default_classifier("cosine") == name
        assert default_classifier("linear") in choices("linear")


# ---- what is stored


def test_a_class_mean_is_the_mean_over_views_and_the_features_of_all_views_are_kept(
    run: Path, stripes: Stripes
) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    stored = m2sd_cli.increment(1, stripes.first_shots, run=run, views=5, device="cpu")
    assert stored.manifest.views == 5
    tensors = folder.tensors(stored)
    model = load_session(folder)
    pixels, labels = next(iter(read_shots(stripes.first_shots).source.batches(model.transform, 99)))
    wanted = [
        [
            model.embed(view)[0]
            for image, own in zip(pixels, labels, strict=True)
            if own == label
            for view in views(image[None], 5)
        ]
        for label in range(2)
    ]
    for label, each in enumerate(wanted):
        torch.testing.assert_close(tensors["class_means"][label], torch.stack(each).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tensors["shot_features"], torch.stack([*wanted[0], *wanted[1]]), rtol=1e-4, atol=1e-5)
    folder.remove_sessions(first=1)
    plain = folder.tensors(m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu"))
    torch.testing.assert_close(plain["shot_features"], tensors["shot_features"][::5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain["class_means"], tensors["class_means"], rtol=1e-3)


def quarter_power(tensors: dict[str, Tensor]) -> None:
    tensors["statistics.power"].fill_(0.25)


def negated_projection(tensors: dict[str, Tensor]) -> None:
    tensors["statistics.projection"].neg_()


OTHER = {name: negated_projection if name == "ranpac" else quarter_power for name in STATISTICS}


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_a_base_session_keeps_its_own_power_and_random_features(run: Path, images: Tensor, name: str) -> None:
    """Answers follow the file, so that other constants of a later version do not change them."""
    RunFolder(run).remove_sessions(first=1)
    before = logits_of(load_session(RunFolder(run), classifier=name), images)
    rewrite(run, 0, lambda tensors: None)
    assert torch.equal(logits_of(load_session(RunFolder(run), classifier=name), images), before)
    rewrite(run, 0, OTHER[name])
    after = logits_of(load_session(RunFolder(run), classifier=name), images)
    assert not torch.allclose(after, before, rtol=0.01, atol=0.01)


def test_features_are_sorted_by_class(trained: Path) -> None:
    model = load_session(RunFolder(trained))
    images = torch.randint(0, 256, (5, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([1, 0, 1, 2, 0])
    means, features = shot_features(model.backbone, ArrayImages(images, labels), 3, model.transform)
    wanted = model.embed(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(features, wanted[[1, 4, 0, 2, 3]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(means[0], wanted[[1, 4]].mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, -1, MOST_VIEWS + 1])
def test_there_are_so_many_views_and_no_more(run: Path, stripes: Stripes, count: int, m2sd: Cli) -> None:
    words = ["--session", 3, "--shots", stripes.second_shots, "--run", run]
    done = m2sd("increment", *words, "--views", count)
    assert (done.code, done.err) == (2, f"m2sd: --views {count}: 1 to {MOST_VIEWS}\n")


def test_a_chain_of_other_classifiers_and_views_is_reproduced(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    m2sd_cli.increment(1, stripes.first_shots, run=run, classifier="teen", views=3, device="cpu")
    m2sd_cli.increment(2, stripes.second_shots, run=run, views=2, device="cpu")
    done = m2sd_cli.reproduce(
        run=run,
        data=str(stripes.folder),
        shots={1: stripes.first_shots, 2: stripes.second_shots},
        keep=tmp_path / "again",
    )
    assert done.same
    again = [stored.manifest for stored in RunFolder(tmp_path / "again").chain()]
    assert [(each.classifier, each.views) for each in again] == [(DEFAULT_CLASSIFIER, None), ("teen", 3), ("teen", 2)]


# ---- what may come from anywhere


def no_shape(tensors: dict[str, Tensor]) -> None:
    tensors["statistics.projection"] = torch.zeros(64)


HURT: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "no projection": lambda tensors: tensors.pop("statistics.projection"),
    "no shape": no_shape,
    "no random features": lambda tensors: tensors.update(
        {
            "statistics.projection": torch.zeros(64, 0),
            "statistics.random_means": torch.zeros(4, 0),
            "statistics.random_gram": torch.zeros(0, 0),
        }
    ),
    "another size": lambda tensors: tensors.update({"statistics.projection": torch.zeros(64, 7)}),
    "another width": lambda tensors: tensors.update({"statistics.power_covariance": torch.zeros(63, 63)}),
    "not finite": lambda tensors: tensors["statistics.power_means"].fill_(float("nan")),
    "no power": lambda tensors: tensors.pop("statistics.power"),
    "one more": lambda tensors: tensors.update({"statistics.other": torch.zeros(1)}),
    "no directions": lambda tensors: tensors.pop("statistics.directions"),
    "covariances of other classes": lambda tensors: tensors.update(
        {"statistics.class_covariances": torch.zeros(3, 64, 64)}
    ),
}


@pytest.mark.parametrize("change", HURT.values(), ids=HURT)
def test_a_base_session_with_other_statistics_is_refused(
    run: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    RunFolder(run).remove_sessions(first=1)
    rewrite(run, 0, change)
    with pytest.raises(DamagedError, match=r"session-000\.safetensors: not the checkpoint that its manifest names"):
        load_session(RunFolder(run))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("value", [-1.0, 3e38, 1e-38, 0.0])
def test_statistics_of_no_features_give_numbers_or_one_line(run: Path, name: str, value: float) -> None:
    RunFolder(run).remove_sessions(first=1)

    def fill(tensors: dict[str, Tensor]) -> None:
        for each, tensor in tensors.items():
            if each.startswith("statistics."):
                tensor.fill_(value)

    rewrite(run, 0, fill)
    try:
        model = load_session(RunFolder(run), classifier=name)
    except DamagedError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert model.classify(torch.ones(2, 64)).isfinite().all()
    assert not complaint or "session-000.safetensors: " in complaint


@pytest.mark.parametrize("count", [2, MOST_VIEWS])
def test_a_session_with_other_features_than_it_names_is_refused(run: Path, count: int) -> None:
    rewrite(run, 2, lambda tensors: None, views=count)
    with pytest.raises(DamagedError, match=r"session-002\.safetensors: .*shot_features has not the shape"):
        load_session(RunFolder(run))
    rewrite(run, 2, lambda tensors: tensors.pop("shot_features"), views=1)
    with pytest.raises(DamagedError, match=r"session-002\.safetensors: .*shot_features is missing"):
        load_session(RunFolder(run))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda known, similarity, scale: known.base, "it builds a Tensor, and no Head or nn.Module"),
        (lambda known, similarity, scale: Head(known.base), "it builds a Head of 4 rows for 7 classes"),
    ],
)
def test_a_builder_that_breaks_the_contract_is_named(
    build: Callable[..., Any], says: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSIFIERS.entries, "broken", ClassifierEntry(build))
    with pytest.raises(M2sdError, match=f"^--classifier broken: {says}$"):
        load_session(RunFolder(trained), classifier="broken")
