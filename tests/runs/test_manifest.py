"""What a manifest may say, and what a run's manifests do say."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import SCHEMA_VERSION, FileRecord, Manifest, ManifestSummary, TrainingState
from m2sd_cli.runs.places import PLACES
from tests.helpers import QUICK, Stripes

ZEROS = "0" * 64
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def content(trained: Path) -> dict[str, Any]:
    """The manifest of session 1, which taught two classes after four."""
    manifest: dict[str, Any] = json.loads((trained / "session-001.json").read_bytes())
    return manifest


def refused(content: dict[str, Any], change: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate_json(json.dumps(content | change))
    return str(raised.value)


def test_a_manifest_comes_back_as_it_was(content: dict[str, Any]) -> None:
    manifest = Manifest.model_validate_json(json.dumps(content))
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.classes_so_far == 6


@pytest.mark.parametrize("version", [0, 1, 2, 5, "3", True, None])
def test_an_unknown_schema_version_is_refused(content: dict[str, Any], version: object) -> None:
    assert "schema_version" in refused(content, {"schema_version": version})


def test_an_unknown_field_is_refused(content: dict[str, Any]) -> None:
    assert "surprise" in refused(content, {"surprise": 1})


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "x\n", "C:x", "Upper.json", "x" * 65, "naïve"],
)
def test_a_file_name_that_is_more_than_a_name_is_refused(content: dict[str, Any], name: str) -> None:
    assert "checkpoint.file" in refused(content, {"checkpoint": {"file": name, "sha256": ZEROS}})
    assert "parent.file" in refused(content, {"parent": {"file": name, "sha256": ZEROS}})


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_what_is_no_sha256_is_refused(content: dict[str, Any], sha256: str) -> None:
    assert "checkpoint.sha256" in refused(content, {"checkpoint": {"file": "x", "sha256": sha256}})


def test_class_indices_follow_the_earlier_sessions(content: dict[str, Any]) -> None:
    assert "class indices" in refused(content, {"classes_before": 3})
    assert "class indices" in refused(content, {"classes": content["classes"][::-1]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "base"}, "kind and session"),
        ({"kind": "pretrain"}, "kind and session"),
        ({"session": 0}, "kind and session"),
        ({"session": None}, "kind and session"),
        ({"kind": "pretrain", "session": None}, "parent"),
        ({"parent": None}, "parent"),
        ({"session": -1}, "session"),
        ({"kind": "other"}, "kind"),
        ({"seconds": -1}, "seconds"),
        ({"classifier": None}, "a classifier is named by every session"),
        ({"views": None}, "views are named by every session"),
    ],
)
def test_what_contradicts_itself_is_refused(content: dict[str, Any], change: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(content, change)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("session", [10**9 + 1, 10**4000]),
        ("classes_before", [10**9 + 1]),
        ("classes.0.index", [10**9 + 1]),
        ("classes.0.shots", [10**9 + 1]),
        ("classes.0.name", [1025 * "x"]),
        ("data.name", [1025 * "x"]),
        ("backbone.width", [0, 65537]),
        ("backbone.similarity", ["other", ""]),
        ("backbone.scale", [0, -1, NAN, INFINITY, 1e999]),
        ("transform.resize", [0, 8193]),
        ("transform.crop", [0, 4097]),
        ("transform.mean.0", [NAN, -INFINITY, 1e300, None]),
        ("transform.std.0", [0, -1, NAN, INFINITY, 1e-300, 1e300]),
        ("config", [{"a": NAN}, {"a": {}}, {"a": [1]}, {"a": 1025 * "x"}, {1025 * "x": 1}, {"a": INFINITY}]),
        ("seed", [2**64, 1.5]),
        ("versions", [{"a": 1025 * "x"}, {"a": 1}]),
        ("device", [1025 * "x"]),
        ("precision", ["fp16"]),
        ("seconds", [NAN, INFINITY]),
        ("created", [1025 * "x"]),
        ("history", [[{"epoch": 1, "loss": NAN, "terms": {}, "learning_rate": 0.1}]]),
        ("history", [[{"epoch": 1, "loss": 1, "terms": {"ce": INFINITY}, "learning_rate": 0.1}]]),
        ("history", [[{"epoch": -1, "loss": 1, "terms": {}, "learning_rate": 0.1}]]),
        ("threads", [0, 65537]),
        ("backbone.name", ["", "a/b", "Upper", "x\n", "-x", 65 * "x"]),
        ("classifier", ["", "../x", "two words", "Teen", 65 * "x"]),
        ("plugins", [{"a": 1025 * "x"}, {"": "b"}, {"a": 1}]),
        ("views", [0, 1001, 1.5]),
        ("recipe", ["", 1025 * "x"]),
    ],
)
def test_numbers_and_texts_have_bounds(content: dict[str, Any], path: str, values: list[object]) -> None:
    text = json.dumps(content)
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    for value in values:
        changed: Any = json.loads(text)
        parent = changed
        for part in parents:
            parent = parent[part]
        parent[last] = value
        with pytest.raises(ValidationError, match=path.split(".")[0]):
            Manifest.model_validate_json(json.dumps(changed))


def test_an_outline_has_the_same_bounds(content: dict[str, Any]) -> None:
    ManifestSummary.model_validate_json(json.dumps(content))
    for change in ({"session": 10**9 + 1}, {"classes_before": -1}, {"classes": [{"name": 1025 * "x", "shots": 1}]}):
        with pytest.raises(ValidationError):
            ManifestSummary.model_validate_json(json.dumps(content | change))


def test_a_configuration_keeps_the_kinds_of_its_values(content: dict[str, Any]) -> None:
    config = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": None, "f": 2**63 - 1, "g": 1e300}
    read = Manifest.model_validate_json(json.dumps(content | {"config": config})).config
    assert read == config
    assert [type(value) for value in read.values()] == [type(value) for value in config.values()]


@pytest.mark.parametrize("name", [255 * "x", 63 * "\U0001f426", "a\nb\x1b[31m\u202e", " ", "../x", "/"])
def test_a_class_may_be_called_whatever_a_folder_may(content: dict[str, Any], name: str) -> None:
    renamed = [each | {"name": name} for each in content["classes"]]
    read = Manifest.model_validate_json(json.dumps(content | {"classes": renamed}))
    assert read.classes[0].name == ManifestSummary.model_validate_json(read.model_dump_json()).classes[0].name == name


def test_deep_nesting_is_refused() -> None:
    for model in (Manifest, ManifestSummary, TrainingState):
        for text in (10**6 * "[", 10**5 * '{"config":' + "1" + 10**5 * "}"):
            with pytest.raises(ValidationError):
                model.model_validate_json(text)


def test_a_class_has_a_name_and_an_image(content: dict[str, Any]) -> None:
    first = content["classes"][0]
    for change in ({"name": ""}, {"shots": 0}, {"index": -1}):
        assert "classes.0" in refused(content, {"classes": [first | change, content["classes"][1]]})


def test_nothing_can_be_assigned(content: dict[str, Any]) -> None:
    manifest = Manifest.model_validate_json(json.dumps(content))
    with pytest.raises(ValidationError, match="frozen"):
        manifest.seed = 3  # type: ignore[misc]


def test_the_schema_says_what_each_hash_is_of() -> None:
    schema = json.loads(json.dumps(Manifest.model_json_schema()))
    assert schema["additionalProperties"] is False
    assert {"schema_version", "parent", "checkpoint", "classes", "transform", "config"} <= schema["properties"].keys()
    assert schema["$defs"]["ClassRecord"]["properties"]["shot_sha256"]["description"]


def test_a_training_state_of_another_version_is_refused() -> None:
    good: dict[str, Any] = {
        "stage": "pretrain",
        "parent": None,
        "data": {"name": "x", "kind": "folder", "split": "none"},
        "data_digest": ZEROS,
        "tensors": {"file": "x", "sha256": ZEROS},
        "step": 1,
        "seconds": 1.0,
        "precision": "fp32",
        "config": {},
        "sums": {},
        "history": [],
    }
    TrainingState.model_validate(good)
    for change in ({"schema_version": 2}, {"tensors": {"file": "../x", "sha256": ZEROS}}, {"step": -1}):
        with pytest.raises(ValidationError):
            TrainingState.model_validate(good | change)


def test_every_manifest_of_a_run_says_what_made_it(trained: Path) -> None:
    run = RunFolder(trained)
    manifests = [run.pretrain(), *run.chain()]
    assert [stored.manifest.kind for stored in manifests] == ["pretrain", "base", "increment", "increment"]
    for stored in manifests:
        manifest = stored.manifest
        assert manifest.schema_version == SCHEMA_VERSION
        assert manifest.plugins == {}
        assert manifest.backbone.name == QUICK["backbone"]
        assert manifest.backbone.width == 64
        assert manifest.transform.crop == 16
        assert manifest.transform.resize == 18
        assert manifest.seed == 0
        assert {"m2sd", "python", "torch"} <= manifest.versions.keys()
        assert manifest.device == "cpu"
        assert manifest.precision == "fp32"
        assert manifest.seconds > 0
        assert manifest.created.endswith("+00:00")
        assert isinstance(manifest.checkpoint, FileRecord)
    pretrain, base, first, second = (stored.manifest for stored in manifests)
    assert pretrain.config["batch_size"] == base.config["batch_size"] == 8
    assert pretrain.config["epochs"] == len(pretrain.history) == 1
    assert base.config["attention_weight"] == 100
    assert [each.name for each in base.classes] == ["blue", "green", "red", "yellow"]
    assert [each.shots for each in base.classes] == [8] * 4
    assert [(each.index, each.name, each.shots) for each in first.classes] == [(4, "purple", 3), (5, "white", 2)]
    assert [(each.index, each.name, each.shots) for each in second.classes] == [(6, "grey", 4)]
    assert (base.data.name, base.data.kind, base.data.split) == ("colours", "folder", "train and test folders")
    assert first.data.name == "first"


def test_every_shot_is_named_by_its_sha256(trained: Path, stripes: Stripes) -> None:
    for each in RunFolder(trained).read("session-001").manifest.classes:
        files = sorted((stripes.first_shots / each.name).iterdir())
        assert each.shot_sha256 == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_no_manifest_holds_a_path(trained: Path, stripes: Stripes) -> None:
    def strings(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, each in value.items():
                yield from (str(key), *strings(each))
        elif isinstance(value, list):
            for each in value:
                yield from strings(each)
        elif isinstance(value, str):
            yield value

    for path in (each for each in trained.glob("*.json") if each.name != PLACES):
        text = path.read_text(encoding="utf-8")
        assert str(trained) not in text
        assert str(stripes.folder.parent) not in text
        assert not [each for each in strings(json.loads(text)) if each.startswith(("/", "~", "..")) or "\\" in each]
