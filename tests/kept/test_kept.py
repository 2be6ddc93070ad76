"""A run of version 0.2.0 is read, verified, asked, taught and exported, with the answers that it gave then."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import m2sd_cli
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.runs.manifest import SCHEMA_VERSION, Manifest, NewestPointer, TrainingState, TuningState
from m2sd_cli.tables import BACKBONES, CLASSIFIERS, BackboneEntry
from tests.helpers import Cli

KEPT = Path(__file__).parent / "0.2.0"
EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text(encoding="utf-8"))
SCHEMA = Path(__file__).parent / f"schema-{SCHEMA_VERSION}.json"
EXACT: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
ROUNDING = 0.005  # of a probability, on another processor


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of each file of a run."""
    return {kind.__name__: kind.model_json_schema() for kind in (Manifest, NewestPointer, TrainingState, TuningState)}


def drawn_state(backbone: Backbone) -> dict[str, Tensor]:
    """Draw weights for a backbone: the same ones for every version of numpy and torch."""
    random = np.random.RandomState(0)
    state = {}
    for name, tensor in backbone.state_dict().items():
        values = torch.from_numpy(random.standard_normal(tensor.shape).astype(np.float32))
        if not tensor.is_floating_point():
            values = torch.zeros_like(tensor)
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            values = 1 + values.abs()
        elif tensor.dim() > 1:
            values = values / tensor[0].numel() ** 0.5
        state[name] = values
    return state


def fingerprint(name: str) -> dict[str, Any]:
    """Describe a backbone: the SHA-256 of the names and shapes of its weights, and a few features of drawn ones."""
    backbone = build_backbone(name, 32)
    state = drawn_state(backbone)
    backbone.load_state_dict(state)
    lines = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    image = torch.linspace(-1, 1, 3 * 32 * 32).sin().view(1, 3, 32, 32)
    with torch.no_grad():
        pooled = backbone.eval()(image).pooled[0]
    return {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "features": (pooled[:4] / pooled.norm()).tolist()}


def answers(run: Path, classifier: str) -> list[list[Any]]:
    """List the first guess for each image: name and probability."""
    found = m2sd_cli.predict(KEPT / "labelled", run=run, classifier=classifier, top_k=1, **EXACT)
    return [[guess.name, guess.probability] for prediction in found for guess in prediction.guesses]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the run, whose network a package of its owner has."""
    monkeypatch.setitem(BACKBONES.entries, "tiny", BackboneEntry("tests.kept.tiny:Tiny", "Tiny"))
    return Path(shutil.copytree(KEPT / "run", tmp_path / "run"))


def test_it_is_small_and_of_the_frozen_schema() -> None:
    assert SCHEMA_VERSION == 4
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < 300_000
    versions = {json.loads(path.read_text())["schema_version"] for path in (KEPT / "run").glob("*.json")}
    assert versions == {SCHEMA_VERSION}


def test_it_verifies_and_tells_its_story(kept: Path, m2sd: Cli) -> None:
    done = m2sd("sessions", "verify", "--run", kept)
    assert (done.code, done.err) == (0, "")
    listed = json.loads(m2sd("sessions", "--run", kept, "--json").out)
    assert [each["kind"] for each in listed["sessions"]] == EXPECTED["kinds"]
    known = m2sd_cli.load_run(kept).classes
    assert list(known) == EXPECTED["classes"]


@pytest.mark.parametrize("classifier", EXPECTED["answers"])
def test_it_answers_as_it_did(kept: Path, classifier: str) -> None:
    then, now = EXPECTED["answers"][classifier], answers(kept, classifier)
    assert [name for name, _ in now] == [name for name, _ in then]
    assert [probability for _, probability in now] == pytest.approx([each for _, each in then], abs=ROUNDING)


def test_every_classifier_of_then_is_still_there() -> None:
    assert set(EXPECTED["answers"]) <= set(CLASSIFIERS.names())


def test_the_classifier_that_came_later_is_refused_for_want_of_covariances(kept: Path, m2sd: Cli) -> None:
    line = "m2sd: --classifier quadratic: session 0 keeps no covariance of each class"
    for words in (
        ("evaluate", "--test", KEPT / "labelled", "--classifier", "quadratic"),
        ("increment", "--shots", KEPT / "third", "--classifier", "quadratic"),
    ):
        done = m2sd(words[0], "--run", kept, *words[1:])
        assert (done.code, done.err.startswith(line), done.err.count("\n")) == (2, True, 1), done.err
    assert "quadratic" not in m2sd_cli.load_run(kept).heads
    assert len(list(m2sd_cli.load_run(kept).heads.values())) == len(EXPECTED["answers"])


def test_its_accuracies_are_those_that_it_had(kept: Path) -> None:
    figures = m2sd_cli.evaluate(run=kept, test=KEPT / "labelled", **EXACT).figures
    assert [each.overall for each in figures.sessions] == pytest.approx(EXPECTED["overall"])


def test_it_is_taught_one_class_more(kept: Path) -> None:
    before = {path.name: path.read_bytes() for path in kept.glob("session-*")}
    m2sd_cli.increment(5, KEPT / "third", run=kept, device="cpu")
    assert {name: (kept / name).read_bytes() for name in before} == before
    assert list(m2sd_cli.load_run(kept).classes) == [*EXPECTED["classes"], "orange"]
    [first, *_] = m2sd_cli.predict(KEPT / "third", run=kept, top_k=1, **EXACT)
    assert first.guesses[0].name == "orange"


def test_its_newest_session_is_undone(kept: Path, m2sd: Cli) -> None:
    assert m2sd("sessions", "undo", "--yes", "--run", kept).code == 0
    assert "white" in m2sd_cli.load_run(kept).classes


def test_it_is_exported(kept: Path, tmp_path: Path) -> None:
    out = m2sd_cli.export("safetensors", tmp_path / "model.safetensors", run=kept)
    with safe_open(out, "pt") as file:
        described = json.loads(file.metadata()["m2sd"])
        assert described["classes"] == EXPECTED["classes"]
        assert set(EXPECTED["exported"]) <= set(file.keys())


@pytest.mark.parametrize("name", EXPECTED["backbones"])
def test_a_network_of_then_has_its_weights_and_computes_what_it_did(name: str) -> None:
    then, now = EXPECTED["backbones"][name], fingerprint(name)
    assert now["sha256"] == then["sha256"], "the weights of old runs have other names or shapes"
    assert now["features"] == pytest.approx(then["features"], abs=1e-3)


def test_the_schema_is_the_one_that_is_kept() -> None:
    kept, now = json.loads(SCHEMA.read_text(encoding="utf-8")), json.loads(json.dumps(schemas()))
    for name, schema in kept.items():
        assert lost_or_needed(schema, now[name]) == [], f"{name}: old runs cannot be read"
    assert now == kept, "if each new field has a default that means what was before: python -m tests.kept.test_kept"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"properties": {"a": {}}}, ["b"]),
        ({"required": ["a", "b"]}, ["b"]),
        ({"properties": {"a": {}, "b": {}, "c": {}}}, []),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["a", "c"]}, ["c"]),
        ({"$defs": {"Inner": {"properties": {}}}}, ["Inner.d"]),
        ({"$defs": {}}, []),
    ],
)
def test_a_change_that_old_runs_do_not_survive_is_found(change: dict[str, Any], found: list[str]) -> None:
    schema = {"properties": {"a": {}, "b": {}}, "required": ["a"], "$defs": {"Inner": {"properties": {"d": {}}}}}
    assert lost_or_needed(schema, schema) == []
    assert lost_or_needed(schema, schema | change) == found


def lost_or_needed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List the fields of old files that a new version does not know, and those of new ones that it needs."""
    lost = before.get("properties", {}).keys() - after.get("properties", {}).keys()
    needed = set(after.get("required", [])) - set(before.get("required", []))
    inner = [
        f"{name}.{field}"
        for name, definition in before.get("$defs", {}).items()
        if name in after["$defs"]
        for field in lost_or_needed(definition, after["$defs"][name])
    ]
    return sorted(lost | needed) + inner


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schemas(), indent=1) + "\n", encoding="utf-8")
