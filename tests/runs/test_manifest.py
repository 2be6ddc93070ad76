"""What a manifest may say, and what a run's manifests do say."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import FileRecord, Manifest, TrainingState

if TYPE_CHECKING:
    from tests.conftest import Pictures

ZEROS = "0" * 64


@pytest.fixture
def content(trained: Path) -> dict[str, Any]:
    """The manifest of session 1, which taught two classes after four."""
    found: dict[str, Any] = json.loads((trained / "session-001.json").read_bytes())
    return found


def refused(content: dict[str, Any], change: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate_json(json.dumps(content | change))
    return str(raised.value)


def test_a_manifest_comes_back_as_it_was(content: dict[str, Any]) -> None:
    manifest = Manifest.model_validate_json(json.dumps(content))
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.classes_so_far == 6


@pytest.mark.parametrize("version", [0, 3, "1.0", None])
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
    ],
)
def test_what_contradicts_itself_is_refused(content: dict[str, Any], change: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(content, change)


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
    for change in ({"schema_version": 3}, {"tensors": {"file": "../x", "sha256": ZEROS}}, {"step": -1}):
        with pytest.raises(ValidationError):
            TrainingState.model_validate(good | change)


def test_every_manifest_of_a_run_says_what_made_it(trained: Path, quick: dict[str, Any]) -> None:
    run = RunFolder(trained)
    links = [run.pretrain(), *run.chain()]
    assert [link.manifest.kind for link in links] == ["pretrain", "base", "increment", "increment"]
    for link in links:
        manifest = link.manifest
        assert manifest.schema_version == 2
        assert manifest.backbone.name == quick["backbone"]
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
    pretrain, base, first, second = (link.manifest for link in links)
    assert pretrain.config["batch_size"] == base.config["batch_size"] == 8
    assert pretrain.config["epochs"] == len(pretrain.history) == 1
    assert base.config["attention_weight"] == 100
    assert [each.name for each in base.classes] == ["blue", "green", "red", "yellow"]
    assert [each.shots for each in base.classes] == [8] * 4
    assert [(each.index, each.name, each.shots) for each in first.classes] == [(4, "purple", 3), (5, "white", 2)]
    assert [(each.index, each.name, each.shots) for each in second.classes] == [(6, "grey", 4)]
    assert (base.data.name, base.data.kind, base.data.split) == ("colours", "folder", "train and test folders")
    assert first.data.name == "first"


def test_every_shot_is_named_by_its_sha256(trained: Path, pictures: "Pictures") -> None:
    for each in RunFolder(trained).read("session-001").manifest.classes:
        files = sorted((pictures.first_shots / each.name).iterdir())
        assert each.shot_sha256 == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_no_manifest_holds_a_path(trained: Path, pictures: "Pictures") -> None:
    def strings(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, each in value.items():
                yield from (str(key), *strings(each))
        elif isinstance(value, list):
            for each in value:
                yield from strings(each)
        elif isinstance(value, str):
            yield value

    for path in trained.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(trained) not in text
        assert str(pictures.folder.parent) not in text
        assert not [each for each in strings(json.loads(text)) if each.startswith(("/", "~", "..")) or "\\" in each]
