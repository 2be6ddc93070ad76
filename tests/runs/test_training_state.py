"""The state of a training under way is replaced whole, and refused when it is not what it was."""

import json
from pathlib import Path

import pytest
import torch

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs import training_state
from m2sd_cli.runs.files import write_atomically
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import DataRecord, FileRecord, TrainingState
from m2sd_cli.runs.training_state import StateStore
from tests.helpers import flip

ZEROS = "0" * 64


def state(step: int) -> TrainingState:
    return TrainingState(
        stage="pretrain",
        parent=None,
        data=DataRecord(name="birds", kind="folder", split="none"),
        data_digest=ZEROS,
        tensors=FileRecord(file="none", sha256=ZEROS),
        step=step,
        seconds=1.5,
        precision="fp32",
        config={"epochs": 3},
        sums={"loss": 0.1},
        history=[],
    )


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(RunFolder(tmp_path))


def names(store: StateStore) -> list[str]:
    return sorted(path.name for path in store.run.training.iterdir())


def test_a_state_comes_back_as_it_was(store: StateStore) -> None:
    assert not store.exists()
    store.save(state(7), {"x": torch.arange(3)})
    assert store.exists()
    loaded = store.load()
    assert loaded.model_copy(update={"tensors": state(7).tensors, "seal": None}) == state(7)
    assert torch.equal(store.tensors(loaded)["x"], torch.arange(3))


def test_a_state_that_is_larger_than_any_that_is_read_is_not_saved(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(state(7), {"x": torch.zeros(1)})
    monkeypatch.setattr(training_state, "CHECKPOINT_LIMIT", 4)
    with pytest.raises(RunError, match=r"the state of the training takes .* take a smaller --backbone"):
        store.save(state(8), {"x": torch.ones(1)})
    assert names(store) == ["state.json", "step-000000007.safetensors"]


def test_a_save_replaces_the_one_before(store: StateStore) -> None:
    store.save(state(7), {"x": torch.zeros(1)})
    store.save(state(8), {"x": torch.ones(1)})
    assert names(store) == ["state.json", "step-000000008.safetensors"]
    assert store.tensors(store.load())["x"].item() == 1


@pytest.mark.parametrize("failing", ["step-000000008.safetensors", "state.json"])
def test_a_save_that_fails_leaves_the_one_before(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.save(state(7), {"x": torch.zeros(1)})

    def write(path: Path, content: bytes) -> str:
        if path.name == failing:
            raise RunError(f"{path}: no space")
        return write_atomically(path, content)

    monkeypatch.setattr("m2sd_cli.runs.training_state.write_atomically", write)
    with pytest.raises(RunError, match="no space"):
        store.save(state(8), {"x": torch.ones(1)})
    assert store.load().step == 7
    assert store.tensors(store.load())["x"].item() == 0


def test_damaged_tensors_are_named(store: StateStore) -> None:
    store.save(state(7), {"x": torch.zeros(1)})
    path = store.run.training / "step-000000007.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedError, match=r"step-000000007\.safetensors: damaged"):
        store.tensors(store.load())
    path.unlink()
    with pytest.raises(DamagedError, match=r"step-000000007\.safetensors: missing"):
        store.tensors(store.load())


def test_a_state_that_this_version_does_not_read_is_refused(store: StateStore) -> None:
    store.save(state(7), {})
    path = store.run.training / "state.json"
    content = json.loads(path.read_bytes())
    for text in (json.dumps(content | {"stage": "x"}), path.read_text()[:-5], ""):
        path.write_text(text)
        with pytest.raises(DamagedError, match=r"state\.json: not a file that this version reads.*--force"):
            store.load()


def test_a_state_of_another_schema_version_is_refused_by_number(store: StateStore) -> None:
    store.save(state(7), {})
    path = store.run.training / "state.json"
    path.write_bytes(path.read_bytes().replace(b'"schema_version": 4', b'"schema_version": 2'))
    with pytest.raises(DamagedError, match=r"state\.json: it is of schema version 2; this version of m2sd reads 4"):
        store.load()


def test_every_byte_of_a_state_counts(store: StateStore) -> None:
    store.save(state(7), {})
    path = store.run.training / "state.json"
    content = path.read_bytes()
    for position in range(len(content)):
        flip(path, position)
        with pytest.raises(DamagedError, match=r"state\.json: .*--force"):
            store.load()
        path.write_bytes(content)


def test_forgetting_leaves_nothing(store: StateStore) -> None:
    store.run.remove_training()  # nothing to forget is fine
    store.save(state(7), {})
    store.run.remove_training()
    assert not store.exists()
    assert not store.run.training.exists()
