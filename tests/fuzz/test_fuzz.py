"""Whatever a file from outside holds, its reader refuses it as it is meant to, or makes of it what makes sense.

The seeds of a reader are good ones, which it takes, and bad ones, those that once broke it among them. Files of our own
formats are made by today's code, see `seeds`; the others lie in a folder of corpus/.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image

from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig, validate
from m2sd_cli.data import cub200, miniimagenet
from m2sd_cli.data.cache import RECORD, list_entries
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.mapped import MappedImages
from m2sd_cli.errors import DamagedError, DataError, RunError, UsageError
from m2sd_cli.inference.session import load_session
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.runs.files import decode_tensors
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary, NewestPointer, TrainingState
from m2sd_cli.runs.tensors import find_mismatch, tensor_specs
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.initial_weights import initialise
from tests.fuzz.mutation import mutated, retold
from tests.fuzz.seeds import (
    SMALL,
    Seeds,
    checkpoint,
    head_seeds,
    manifest_seeds,
    run_seeds,
    sealed,
    state_seeds,
    tensor_seeds,
)

ROUNDS = 20 * int(os.environ.get("M2SD_ROUNDS", "1"))
ROOM = 2 * 2**30  # bytes of memory beyond what the process has already
CORPUS = Path(__file__).parent / "corpus"
LONGEST_MESSAGE = 1000  # characters
KEY = "a" * 64

Read = Callable[[Path, bytes], object]


def manifest(folder: Path, content: bytes) -> object:
    (folder / "session-001.json").write_bytes(content)
    result = RunFolder(folder).read("session-001").manifest
    text = result.model_dump_json()
    assert Manifest.model_validate_json(text) == result
    ManifestSummary.model_validate_json(text)
    return result


def state(folder: Path, content: bytes) -> object:
    (folder / "training" / "state.json").write_bytes(content)
    result = StateStore(RunFolder(folder)).load()
    assert TrainingState.model_validate_json(result.model_dump_json()) == result
    return result


def head(folder: Path, content: bytes) -> object:
    (folder / "head.json").write_bytes(content)
    result = RunFolder(folder).newest()
    assert len(RunFolder(folder).sessions()) <= 10**6
    return result


def run(folder: Path, content: bytes) -> object:
    """Read the manifest of a base session for which head.json was made to vouch, with all that it has loaded."""
    (folder / "session-000.json").write_bytes(content)
    record = FileRecord(file="session-000.json", sha256=hashlib.sha256(content).hexdigest())
    (folder / "head.json").write_bytes(NewestPointer(manifest=record).encoded())
    model = load_session(RunFolder(folder))
    assert model.means.isfinite().all()
    assert model.classify(torch.ones(1, model.means.shape[1])).isfinite().all()
    assert len(model.classes) == len(model.means)
    return model


def options(folder: Path, content: bytes) -> object:
    file = folder / "options.toml"
    file.write_bytes(content)
    result = resolve(PretrainConfig, Sources({"epochs": 1}, file))
    assert validate(PretrainConfig, json.loads(json.dumps(asdict(result)))) == result
    return resolve(DistillConfig, Sources({"epochs": 1}, file))


def tensors(folder: Path, content: bytes) -> object:
    result = decode_tensors(folder / "session-001.safetensors", content)
    mismatch = find_mismatch(result, tensor_specs(SMALL), most=3)
    if mismatch is not None:
        assert len(mismatch) < 900
        raise DamagedError(mismatch)
    return result


def record(folder: Path, content: bytes) -> object:
    (folder / KEY / RECORD).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2SD_CACHE", str(folder))
        result = list_entries()
    if not result:
        raise DataError("not an entry")
    (entry,) = result
    assert entry.use in ("training", "test")
    assert {type(entry.images), type(entry.side), type(entry.bytes)} == {int}
    return entry


def array(folder: Path, content: bytes) -> object:
    path = folder / "images.npy"
    path.write_bytes(content)
    try:
        images = MappedImages(path, (2, 3, 3, 3))
    except ValueError as error:
        raise DataError(str(error)) from None
    assert images.take(torch.tensor([1])).shape == (1, 3, 3, 3)
    assert np.array_equal(np.load(path, allow_pickle=False), images.tensor.numpy())
    return images


def file_set(name: str, file: str, folder: Path, content: bytes) -> object:
    """A list of a small benchmark of two classes, beside lists that are right."""
    module = {"cub200": cub200, "miniimagenet": miniimagenet}[name]
    info = replace(module.INFO, base=1, classes=2)
    home = folder / info.layout
    for path in home.rglob("*.*"):
        shutil.copyfile(CORPUS / f"{name}-right" / path.name, path)
    (home / file).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INFO", info)
        data = (cub200.open_cub200 if name == "cub200" else miniimagenet.open_miniimagenet)(folder)
    assert len(data.classes) == 2
    for source in (data.train, data.test):
        for path in vars(source)["paths"]:
            assert path.resolve().is_relative_to((home / "images").resolve())
            assert "\0" not in str(path)
    return data


def image(folder: Path, content: bytes) -> object:
    path = folder / "image"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
        result = open_rgb(path)
    assert result.mode == "RGB"
    assert min(result.size) > 0
    return result


def weights(suffix: str, folder: Path, content: bytes) -> object:
    """Read weights to begin from; never all of a backbone's, which would not be small."""
    path = folder / f"weights.{suffix}"
    path.write_bytes(content)
    initialise(build_backbone("resnet20"), "resnet20", str(path))
    raise AssertionError("weights of nothing")


READERS: dict[str, tuple[Read, type[Exception]]] = {
    "manifest": (manifest, DamagedError),
    "state": (state, DamagedError),
    "head": (head, DamagedError),
    "run": (run, RunError),
    "options": (options, UsageError),
    "tensors": (tensors, DamagedError),
    "record": (record, DataError),
    "array": (array, DataError),
    "cub200-images": (partial(file_set, "cub200", "images.txt"), DataError),
    "cub200-labels": (partial(file_set, "cub200", "image_class_labels.txt"), DataError),
    "cub200-split": (partial(file_set, "cub200", "train_test_split.txt"), DataError),
    "cub200-classes": (partial(file_set, "cub200", "classes.txt"), DataError),
    "miniimagenet": (partial(file_set, "miniimagenet", "split/train.csv"), DataError),
    "image": (image, DataError),
    "weights-pth": (partial(weights, "pth"), DataError),
    "weights-safetensors": (partial(weights, "safetensors"), DataError),
}
SLOW = {"run": 4, "weights-pth": 4, "weights-safetensors": 4}  # by how much fewer rounds
JSON = ("manifest", "state", "head", "run", "record")
SEALED = ("state", "head")
# What the readers are given, below the folder they look into.
GIVEN = (
    *("session-000.json", "session-001.json", "options.toml", "images.npy", "image", "weights.pth"),
    *("weights.safetensors", "training/state.json", "head.json", f"{KEY}/{RECORD}"),
)


MADE: dict[str, Callable[[], Seeds]] = {
    "manifest": manifest_seeds,
    "state": state_seeds,
    "head": head_seeds,
    "run": run_seeds,
    "tensors": tensor_seeds,
}


@lru_cache
def seeds(name: str) -> Seeds:
    """Collect the seeds of a reader."""
    folder = CORPUS / name
    stored = {path.stem: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}
    made = MADE[name]() if name in MADE else {}
    assert not stored.keys() & made.keys()
    return stored | made


@pytest.fixture(scope="module", autouse=True)
def _little_room() -> Iterator[None]:
    """An allocation far beyond what is sensible fails, whatever the machine has."""
    if sys.platform != "linux":
        yield
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whatever the readers look for beside what they read."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("training", KEY, "CUB_200_2011", "miniimagenet/split"):
        (folder / name).mkdir(parents=True)
    for name, home in (("cub200", "CUB_200_2011"), ("miniimagenet", "miniimagenet/split")):
        for path in (CORPUS / f"{name}-right").iterdir():
            shutil.copyfile(path, folder / home / path.name)
    (folder / "session-000.safetensors").write_bytes(checkpoint())
    return folder


def check(name: str, folder: Path, content: bytes) -> bool:
    """Tell whether the reader took it; it must either do that or refuse, and leave nothing behind."""
    read, refusal = READERS[name]
    given = {folder / file for file in GIVEN}
    before = {*folder.rglob("*")} - given
    said = "x"
    try:
        read(folder, content)
    except refusal as error:
        said = str(error)
        return False
    else:
        return True
    finally:
        assert 0 < len(said) < LONGEST_MESSAGE
        assert {*folder.rglob("*")} - given == before
        for path in given:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", READERS)
def test_every_seed(name: str, folder: Path) -> None:
    taken = {seed: check(name, folder, content) for seed, content in seeds(name).items()}
    assert taken == {seed: seed.startswith("good") for seed in taken}
    assert any(taken.values()) or name.startswith("weights")
    assert not all(taken.values())


@pytest.mark.parametrize("name", SEALED)
def test_a_seal_made_anew_is_right(name: str, folder: Path) -> None:
    for seed, content in seeds(name).items():
        assert check(name, folder, sealed(content)) == (seed.startswith("good") or seed == "bad seal"), seed


@pytest.mark.parametrize("name", READERS)
def test_bytes_near_the_seeds(name: str, folder: Path) -> None:
    contents = list(seeds(name).values())
    rounds = max(2, ROUNDS // SLOW.get(name, 1))

    @settings(max_examples=rounds, suppress_health_check=list(HealthCheck))
    @given(mutated(contents))
    def search(content: bytes) -> None:
        check(name, folder, content)
        if name in SEALED:  # or its seal alone would refuse it
            check(name, folder, sealed(content))

    search()


@pytest.mark.parametrize("name", JSON)
def test_values_that_nobody_expects(name: str, folder: Path) -> None:
    contents = [content for seed, content in seeds(name).items() if seed.startswith("good")]
    rounds = max(2, ROUNDS // SLOW.get(name, 1))

    @settings(max_examples=rounds, suppress_health_check=list(HealthCheck))
    @given(retold(contents))
    def search(content: bytes) -> None:
        check(name, folder, content)
        if name in SEALED:  # or its seal alone would refuse it
            check(name, folder, sealed(content))

    search()
