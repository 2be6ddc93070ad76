"""Folders of base classes that have changed since pretrain."""

import shutil
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import QUICK, QUICK_DISTILL, Cli, check_refusal, draw, fill, finished, sha256


@pytest.fixture(scope="module")
def pretrained_on_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `photos` of classes without a split, and a run of stage 1 on them."""
    home = tmp_path_factory.mktemp("home")
    for colour in ("blue", "red", "green"):
        fill(home / "photos", colour, 10)
    m2sd_cli.pretrain(str(home / "photos"), run=home / "run", held_out=0.2, **QUICK)
    return home


@pytest.fixture
def home(pretrained_on_classes: Path, tmp_path: Path) -> Path:
    """A copy of both, which remember each other."""
    home = Path(shutil.copytree(pretrained_on_classes, tmp_path / "home"))
    (home / "run" / "places.json").unlink()
    return home


def distilled(home: Path, **options: object) -> str:
    stored = finished(m2sd_cli.distill(home / "photos", run=home / "run", **{**QUICK_DISTILL, **options}))
    return stored.manifest.checkpoint.sha256


def test_the_images_are_listed_by_their_part(home: Path) -> None:
    files = RunFolder(home / "run").pretrain().manifest.files
    assert len(files) == 30
    tested = [name for name, digest in files.items() if digest is None]
    assert len(tested) == 6
    trained = {name: digest for name, digest in files.items() if digest is not None}
    assert trained == {name: sha256(home / "photos" / name) for name in trained}


def test_new_images_are_named_and_ignored_if_asked(home: Path, m2sd: Cli) -> None:
    wanted = distilled(home)
    figures = m2sd_cli.evaluate(run=home / "run", device="cpu").figures
    for number in range(12):
        draw("red", 500 + number).save(home / "photos" / "red" / f"new-{number:02d}.png")
    fill(home / "photos", "white", 3)
    named = "15 new: " + ", ".join(f"red/new-{number:02d}.png" for number in range(10)) + " and 5 more"
    way = "--ignore-new goes on with the recorded ones"
    words = ["--run", home / "run"]
    done = m2sd("distill", *words, "--force", "--epochs", 1, "--device", "cpu")
    check_refusal(done, 4, named)
    assert way in done.err
    check_refusal(m2sd("evaluate", *words), 3, named)
    assert distilled(home, force=True, ignore_new=True) == wanted
    assert m2sd("evaluate", *words, "--ignore-new").code == 0
    page = ["report", *words, "--out", home / "report.html"]
    assert way in m2sd(*page).err
    assert "has no figures" not in m2sd(*page, "--ignore-new").err
    hub = ["export", *words, "--format", "hub", "--out", home / "hub"]
    assert way in m2sd(*hub).err
    assert "has no figures" not in m2sd(*hub, "--force", "--ignore-new").err
    check_refusal(m2sd(*hub[:3], "--out", home / "a.safetensors", "--ignore-new"), 2, "--ignore-new and --format")
    check_refusal(m2sd("simulate", *words), 4, way)
    check_refusal(m2sd("simulate", *words, "--ignore-new"), 2, "to learn from; 3 are here")
    assert m2sd_cli.evaluate(run=home / "run", device="cpu", ignore_new=True).figures == figures


def test_images_that_are_gone_or_changed_are_named_and_not_ignored(home: Path) -> None:
    files = RunFolder(home / "run").pretrain().manifest.files
    first, second, *_ = [name for name, digest in files.items() if digest is not None and name.startswith("red/")]
    draw("red", 900).save(home / "photos" / first)
    with pytest.raises(RunError, match=rf"; 1 changed: {first}$"):
        distilled(home)
    draw("red", 901).save(home / "photos" / "red" / "zzz.png")
    with pytest.raises(RunError, match=rf"1 changed: {first}$"):
        distilled(home, ignore_new=True)
    (home / "photos" / second).unlink()
    with pytest.raises(RunError, match=rf"; 1 new: red/zzz.png; 1 gone: {second}; 1 changed: {first}$"):
        distilled(home)
    with pytest.raises(DataError, match=f"1 of the recorded images gone: {second}; put them back, or train anew$"):
        distilled(home, ignore_new=True)


def test_a_run_that_lists_no_images_cannot_ignore_new_ones(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "few"
    m2sd_cli.pretrain(str(home / "photos"), run=run, images_per_class=4, **QUICK)
    assert RunFolder(run).pretrain().manifest.files == {}
    with pytest.raises(UsageError, match="this run does not list its images"):
        m2sd_cli.distill(run=run, ignore_new=True, **QUICK_DISTILL)


def test_a_class_that_was_tested_alone_stays_behind_the_base_classes(tmp_path: Path) -> None:
    """Its first training images make it the first class of the folder by its name."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    for part, colours in (("train", ("green", "red")), ("test", ("blue", "green", "red"))):
        for colour in colours:
            fill(photos / part, colour, 6)
    m2sd_cli.pretrain(str(photos), run=run, **QUICK)
    wanted = finished(m2sd_cli.distill(photos, run=run, **QUICK_DISTILL)).manifest
    assert [each.name for each in wanted.classes] == ["green", "red"]
    for number in range(3):
        (photos / "train" / "blue").mkdir(exist_ok=True)
        draw("blue", 900 + number).save(photos / "train" / "blue" / f"{number}.png")
    again = finished(m2sd_cli.distill(photos, run=run, ignore_new=True, force=True, **QUICK_DISTILL)).manifest
    assert (again.classes, again.checkpoint) == (wanted.classes, wanted.checkpoint)
