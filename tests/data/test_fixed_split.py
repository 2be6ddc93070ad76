"""A folder that a list divides: the list is checked as a whole, and every later command follows it."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.data.fixed_split import open_fixed_split
from m2sd_cli.data.folders import usual_treatment
from m2sd_cli.data.split_list import SplitList, read_list
from m2sd_cli.errors import DataError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import COMMON, QUICK, QUICK_DISTILL, Cli, check_refusal, fill, finished, tree

CPU = ["--device", "cpu"]
README = (Path(__file__).parents[2] / "m2sd_cli" / "data" / "README.md").read_text(encoding="utf-8")


def write(path: Path, **parts: Any) -> Path:
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in parts.items()))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for colour in ("red", "blue", "green"):
        fill(folder / "train", colour, 4)
        fill(folder / "test", colour, 2, first=100)
    for colour in ("white", "grey"):
        fill(folder / "new", colour, 3)
        fill(folder / "test", colour, 2, first=100)
    return folder


PARTS: dict[str, Any] = {
    "base": ["train/red", "train/green/green-00.png", "train/green/green-03.png"],
    "sessions": [["new/white/white-01.png"], ["./new/grey/grey-00.png", "new/grey/grey-02.png"]],
    "test": ["test/green", "test/red", "test/white/white-100.png", "test/grey"],
}


def test_a_run_follows_the_list(m2sd: Cli, photos: Path, tmp_path: Path) -> None:
    listed, run, other = write(tmp_path / "split.toml", **PARTS), tmp_path / "run", tmp_path / "other"
    m2sd_cli.pretrain(photos, run=run, split=str(listed), stop_after=0, **QUICK)
    listed.unlink()  # everything is recorded
    fill(photos / "train", "orange", 2)
    first = m2sd_cli.pretrain(run=run, resume=True, device="cpu")
    assert first is not None
    assert [(each.name, each.shots) for each in first.manifest.classes] == [("red", 4), ("green", 2)]
    assert (first.manifest.data.kind, first.manifest.data.split) == ("folder", "by a list of paths")
    assert first.manifest.split is not None
    assert len(first.manifest.split.base) == 6
    assert first.manifest.split.sessions[1] == ["new/grey/grey-00.png", "new/grey/grey-02.png"]
    assert str(tmp_path) not in (run / "pretrain.json").read_text()
    hint = m2sd("distill", "--epochs", 0, "--run", run, *CPU).err
    assert "--shots" not in hint
    assert "m2sd increment" in hint
    for number, name, shots in ((1, "white", 1), (2, "grey", 2)):
        taught = m2sd("increment", "--run", run, *CPU)
        assert f"session {number}: learned {name} ({shots})" in taught.err
    check_refusal(m2sd("increment", "--run", run, *CPU), 4, "the list of 'photos' has no session 3, its last is 2")
    sessions = json.loads(m2sd("evaluate", "--run", run, "--json", *CPU).out)["sessions"]
    assert [(each["classes"], each["images"]) for each in sessions] == [(2, 4), (3, 5), (4, 7)]
    reproduced = m2sd("sessions", "reproduce", "--run", run)
    assert (reproduced.code, reproduced.out.count("same")) == (0, 8), reproduced.err
    moved = photos.rename(tmp_path / "elsewhere")
    assert m2sd("sessions", "reproduce", "--run", run, "--data", moved).code == 0
    m2sd_cli.pretrain(moved, run=other, split=str(write(listed, **PARTS)), seed=1, **QUICK)
    m2sd_cli.distill(run=other, epochs=0, device="cpu")
    replayed = m2sd("sessions", "replay", "--from", run, "--run", other, "--shots", moved / "new", *CPU)
    assert replayed.code == 0, replayed.err
    assert [stored.manifest.classes for stored in RunFolder(other).chain()[1:]] == [
        stored.manifest.classes for stored in RunFolder(run).chain()[1:]
    ]


def test_images_keep_the_order_of_the_list_where_new_ones_are_ignored(photos: Path, tmp_path: Path) -> None:
    names = [f"train/{colour}/{colour}-{number:02d}.png" for number in (3, 0, 2) for colour in ("red", "green")]
    run = tmp_path / "run"
    m2sd_cli.pretrain(
        photos, run=run, split=str(write(tmp_path / "split.toml", **PARTS | {"base": names})), held_out=0.2, **QUICK
    )
    once = finished(m2sd_cli.distill(photos, run=run, **QUICK_DISTILL)).manifest
    again = finished(m2sd_cli.distill(photos, run=run, ignore_new=True, force=True, **QUICK_DISTILL)).manifest
    assert again.checkpoint.sha256 == once.checkpoint.sha256


def test_a_moved_folder_is_named(m2sd: Cli, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(photos, run=run, split=str(write(tmp_path / "split.toml", **PARTS)), **QUICK)
    moved = photos.rename(tmp_path / "elsewhere")
    m2sd_cli.distill(moved, run=run, epochs=0, device="cpu")
    shutil.copytree(run, tmp_path / "copy")
    moved = moved.rename(tmp_path / "again")
    assert "--data" in m2sd("increment", "--run", run, *CPU).err
    assert m2sd("increment", "--run", run, "--data", moved, *CPU).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": ["train/red", "train/nobody"]}, "nobody: no such file"),
        ({"base": ["train/red/red-00.png", "train/red"]}, "red-00.png: there twice, in base and in base"),
        ({"base": ["train/red", "train/green", "test/red"]}, "there twice, in base and in test"),
        ({"sessions": [["new/white"], ["new/white/white-00.png"]]}, "white-00.png: there twice, in session 1 and in"),
        ({"sessions": [["new/white/white-00.png"], ["new/white/white-01.png"]]}, "the class 'white' is in session 1"),
        ({"sessions": [["test/red/red-100.png"]], "test": []}, "the class 'red' is in base and in session 1"),
        (
            {"base": ["train/red", "../other/red/1.png"]},
            "'../other/red/1.png' of base is not the path of an image below",
        ),
        ({"base": ["/etc/passwd"]}, "'/etc/passwd' of base is not the path"),
        ({"base": ["C:\\red\\1.png"]}, "of base is not the path"),
        ({"base": [""]}, "'' of base is not the path"),
        ({"base": ["train/red\0"]}, "of base is not the path"),
        ({"base": ["alone.png"]}, "alone.png: it lies in no folder of a class"),
        ({"base": ["train"]}, "'train' of base: no image in it"),
        ({"sessions": [["new/white"]]}, "the class 'grey' is tested, and never taught"),
        ({"base": []}, "no path in base"),
        ({"sessions": [["new/white"], []]}, "no path in session 2"),
        ({"sessions": ["new/white"]}, "base and test are lists of paths, and sessions is a list of such lists"),
        ({"base": [1]}, "base and test are lists of paths"),
        ({"train": ["train/red"]}, "only base, sessions and test are known, not 'train'"),
    ],
)
def test_a_list_with_a_fault_is_refused_before_anything_is_written(
    m2sd: Cli, photos: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    listed = write(tmp_path / "split.toml", **PARTS | change)
    shutil.copy(photos / "train" / "red" / "red-00.png", photos / "alone.png")
    before = tree(tmp_path)
    done = m2sd("pretrain", "--data", photos, "--split", listed, "--run", tmp_path / "run", "--epochs", 1, *CPU)
    check_refusal(done, 3, message)
    assert tree(tmp_path) == before


def test_what_is_no_list_is_refused(m2sd: Cli, photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "split.toml"
    common = ["pretrain", "--data", photos, "--split", listed, "--run", tmp_path / "run", *CPU]
    check_refusal(m2sd(*common), 3, f"--split {listed}: cannot be read")
    listed.write_bytes(b"base = \xff")
    check_refusal(m2sd(*common), 3, f"--split {listed}: not TOML")
    write(listed, **PARTS)
    check_refusal(m2sd("pretrain", "--data", "demo", *common[3:]), 2, "--split is for folders; demo has sessions of")


def test_many_faults_are_counted(photos: Path) -> None:
    listed = SplitList(tuple(f"train/red/{number}.png" for number in range(9)), (), ())
    with pytest.raises(DataError, match=r"0\.png: no such file; .*2\.png: no such file; and 6 more"):
        open_fixed_split(photos, listed, usual_treatment(16))


def test_images_that_cannot_be_read_are_left_out(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (photos / "train" / "red" / "red-00.png").write_bytes(b"no image")
    m2sd_cli.pretrain(photos, run=run, split=str(write(tmp_path / "list", **PARTS)), skip_bad=True, **QUICK)
    (photos / "train" / "red" / "red-00.png").unlink()
    stored = m2sd_cli.distill(run=run, **{**COMMON, "epochs": 0})
    assert stored is not None
    assert [each.shots for each in stored.manifest.classes] == [3, 2]


def test_the_example_of_the_documentation_is_a_list(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "split.toml").write_text(text)
    listed = read_list(tmp_path / "split.toml")
    assert list(dict(listed.parts())) == ["base", "session 1", "session 2", "test"]
    assert tomllib.loads(text)["sessions"][1] == list(listed.sessions[1])
