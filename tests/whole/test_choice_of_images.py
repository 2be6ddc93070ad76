"""The choice of base images: the same in every stage, after a pause, and when a run is reproduced."""

import hashlib
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import m2sd_cli
from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.option import flag
from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.data.cache import list_entries
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS, find_info
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.folders import read_classes
from m2sd_cli.data.sources import FileImages, ImageSource
from m2sd_cli.errors import DamagedError, DataError, RunError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.job import Job
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes, fill

if TYPE_CHECKING:
    from collections.abc import Callable

BAD = "red-99.png"  # an image that cannot be read


@pytest.fixture
def photos(stripes: Stripes, tmp_path: Path) -> Path:
    """Eight images a base class, and a bad one."""
    folder = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    (folder / "train" / "red" / BAD).write_bytes(b"no image")
    return folder


def drawn(photos: Path) -> dict[str, list[str]]:
    """The good images of each class, in the order of the SHA-256 of their names."""
    return {
        name: sorted(
            (path.name for path in paths if path.name != BAD), key=lambda each: hashlib.sha256(each.encode()).digest()
        )
        for name, paths in read_classes(photos / "train").items()
    }


def names_of(source: ImageSource | None, classes: list[str]) -> dict[str, set[str]]:
    assert isinstance(source, FileImages)
    found: dict[str, set[str]] = {name: set() for name in classes}
    for path, label in zip(source.paths, source.labels.tolist(), strict=True):
        found[classes[label]].add(path.name)
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[DataSet]:
    """Record the data set that each stage is given."""
    given: list[DataSet] = []

    def spy(stage: str) -> None:
        fit_stage: Callable[[Job[Any]], Any] = getattr(import_module(f"m2sd_cli.api.{stage}"), f"fit_{stage}")

        def watched(job: Job[Any]) -> Any:
            given.append(job.data)
            return fit_stage(job)

        monkeypatch.setattr(f"m2sd_cli.api.{stage}.fit_{stage}", watched)

    spy("pretrain")
    spy("distill")
    return given


@pytest.mark.parametrize(
    ("options", "held"),
    [({"images_per_class": 3}, 0), ({"held_out": 0.25}, 2), ({"held_out": 0.4, "images_per_class": 4}, 3)],
)
def test_every_stage_is_given_the_same_images(
    photos: Path, stripes: Stripes, seen: list[DataSet], tmp_path: Path, options: dict[str, Any], held: int
) -> None:
    run, data = tmp_path / "run", str(photos)
    assert m2sd_cli.pretrain(data, run=run, skip_bad=True, stop_after=0, **options, **QUICK) is None
    m2sd_cli.pretrain(data, run=run, resume=True)
    m2sd_cli.distill(data, run=run, stop_after=0, **QUICK_DISTILL)
    m2sd_cli.distill(data, run=run, resume=True)
    assert len(seen) == 4
    few = options.get("images_per_class")
    for each in seen:
        classes = each.classes[: each.base]
        assert names_of(each.train, classes) == {name: set(lots[held:][:few]) for name, lots in drawn(photos).items()}
        if held:
            assert names_of(each.held_out, classes) == {name: set(lots[:held]) for name, lots in drawn(photos).items()}
        else:
            assert each.held_out is None
    first, base = RunFolder(run).pretrain().manifest, RunFolder(run).session(0).manifest
    assert first.config.items() >= options.items()
    assert first.classes == base.classes
    assert sum(each.shots for each in base.classes) == len(seen[0].train)
    # What has finished is what the resumed command would have come to.
    assert m2sd_cli.pretrain(data, run=run, resume=True) is not None
    assert m2sd_cli.distill(data, run=run, resume=True) is not None
    assert m2sd_cli.evaluate(run=run, data=data, device="cpu").figures.sessions[0].images == 12
    assert m2sd_cli.reproduce(run=run, data=data).same
    # An image that is trained on decides, one that is not does not matter.
    source = seen[0].train
    assert isinstance(source, FileImages)
    rest = [path for path in (photos / "train" / "blue").iterdir() if path not in source.paths]
    shutil.copy(next((photos / "train" / "green").iterdir()), rest[0])
    assert m2sd_cli.evaluate(run=run, data=data, device="cpu").figures.sessions[0].images == 12
    shutil.copy(rest[0], source.paths[0])
    with pytest.raises(DataError, match="not the images that the run was trained on"):
        m2sd_cli.evaluate(run=run, data=data, device="cpu")
    with pytest.raises(RunError, match="pretrained on other images"):
        m2sd_cli.distill(data, run=run, force=True, **QUICK_DISTILL)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images-per-class", 0], "--images-per-class 0: at least 1"),
        (["--held-out", 0.6], "--held-out 0.6: at most 0.5"),
        (["--held-out", -0.1], "--held-out -0.1: at least 0"),
        (["--held-out", "nan"], "--held-out nan: at most 0.5"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, words: list[object], says: str
) -> None:
    done = m2sd("pretrain", "--data", stripes.folder, "--run", tmp_path / "run", *words)
    assert (done.code, done.out, done.err) == (2, "", f"m2sd: {says}\n")
    assert not (tmp_path / "run" / "training").exists()


@pytest.mark.parametrize(
    "config", [{"images_per_class": 0}, {"images_per_class": "all"}, {"held_out": 1.0}, {"held_out": True}]
)
def test_a_recorded_choice_that_makes_no_sense_is_refused(
    trained: Path, stripes: Stripes, config: dict[str, Any]
) -> None:
    first = RunFolder(trained).pretrain().manifest
    forged = first.model_copy(update={"config": {**first.config, **config}})
    with pytest.raises(DamagedError, match=f"which images it was given: {flag(next(iter(config)))} "):
        recorded_data(forged, str(stripes.folder), None, 16)


def test_by_default_some_are_held_out_and_decoded_for_no_training(
    stripes: Stripes, seen: list[DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    for colour in ("blue", "red"):
        fill(photos / "train", colour, 30)
    shutil.copytree(stripes.folder / "test", photos / "test")
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "decoded"))
    m2sd_cli.pretrain(str(photos), run=run, **QUICK)
    m2sd_cli.distill(str(photos), run=run, epochs=1, batch_size=8, device="cpu", kd_weight=0.0, attention_weight=0.0)
    m2sd_cli.evaluate(run=run, data=str(photos), device="cpu")
    assert RunFolder(run).pretrain().manifest.config["held_out"] == 0.05
    assert [(len(each.train), len(each.held_out or ())) for each in seen] == [(56, 4)] * 2
    # One entry is for both stages, one for the tests, and one for what was held out.
    entries = [("test", 4), ("test", 12), ("training", 56)]
    assert sorted((each.use, each.images) for each in list_entries()) == entries


@pytest.mark.parametrize(
    ("name", "share"), [("cifar100", 0.02), ("miniimagenet", 0.02), ("cub200", 0.05), ("demo", 0.1)]
)
def test_the_share_is_the_recipe_s(name: str, share: float) -> None:
    for each in (name, f"{name}-simulated"):
        info = find_info(each)
        assert info is not None
        assert resolve(PretrainConfig, Sources(info.defaults)).held_out == share
    assert resolve(PretrainConfig, Sources(FOLDER_DEFAULTS)).held_out == 0.05
