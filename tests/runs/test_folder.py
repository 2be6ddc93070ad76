"""The chain of a run folder: read, added to, damaged, locked."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs import folder as folder_module
from m2sd_cli.runs.chain import NO_FOLDER
from m2sd_cli.runs.files import read_verified
from m2sd_cli.runs.folder import RunFolder, default_path
from m2sd_cli.runs.manifest import FileRecord, NewestPointer
from m2sd_cli.runs.reader import session_name, session_number
from tests.helpers import QUICK_DISTILL, Cli, Stripes, check_refusal, flip, sha256, tree

FILES = [f"{name}.{end}" for name in ("pretrain", *map(session_name, range(3))) for end in ("json", "safetensors")]
FILES.append("head.json")
NEWEST = "session-002.json"


def named(run: Path, problems: list[str]) -> list[str]:
    """The files that the sentences of `verify` are about."""
    return [problem.partition(":")[0].removeprefix(f"{run}/") for problem in problems]


def repoint(run: Path) -> None:
    """Have the head vouch for the newest manifest as it is now, as whoever means harm would."""
    record = FileRecord(file=NEWEST, sha256=sha256(run / NEWEST))
    (run / "head.json").write_bytes(NewestPointer(manifest=record).encoded())


def without_head(tree: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: content for name, content in tree.items() if name not in ("head.json", "places.json")}


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_path() == Path("m2sd-run")
    monkeypatch.setenv("M2SD_RUN", "elsewhere")
    assert default_path() == Path("elsewhere")
    assert m2sd_cli.open_run().path == Path("elsewhere")
    assert m2sd_cli.open_run("here").path == Path("here")


def test_the_files_of_a_finished_run(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir() if path.name in FILES) == sorted(FILES)
    assert RunFolder(trained).newest() == RunFolder(trained).chain()[-1].record


def test_each_manifest_names_its_parent_and_its_checkpoint_by_sha256(trained: Path) -> None:
    run = RunFolder(trained)
    previous = run.pretrain()
    assert previous.manifest.parent is None
    for number, stored in enumerate(run.chain()):
        parent = stored.manifest.parent
        assert parent is not None
        assert parent == previous.record
        assert parent.sha256 == sha256(trained / parent.file)
        assert stored.manifest.session == number
        assert stored.name == session_name(number)
        assert stored.manifest.checkpoint.sha256 == sha256(trained / f"{stored.name}.safetensors")
        previous = stored
    assert run.pretrain().manifest.checkpoint.sha256 == sha256(trained / "pretrain.safetensors")


def test_a_part_of_the_chain(trained: Path) -> None:
    run = RunFolder(trained)
    assert run.sessions() == [0, 1, 2]
    assert run.chain(1) == run.chain()[:2]
    assert [stored.manifest.classes_so_far for stored in run.chain()] == [4, 6, 7]
    for wrong in (3, -1):
        with pytest.raises(RunError, match=f"no session {wrong} in it; the newest is session 2"):
            run.chain(wrong)


def test_a_folder_without_a_run(tmp_path: Path, pretrained: Path) -> None:
    for where, complaint in (
        (tmp_path / "absent", "no such run folder"),
        (tmp_path, "no trained model in it"),
        (pretrained, "run 'm2sd distill' first"),
    ):
        run = RunFolder(where)
        assert run.sessions() == []
        with pytest.raises(RunError, match=complaint) as raised:
            run.chain()
        assert raised.value.exit_code == 4
    with pytest.raises(RunError, match="run 'm2sd pretrain' first"):
        RunFolder(tmp_path).pretrain()
    with pytest.raises(RunError, match="no such run folder"):
        RunFolder(tmp_path / "absent").verify()
    with pytest.raises(RunError, match="no run in it"):
        RunFolder(tmp_path).verify()
    assert RunFolder(pretrained).verify() == []


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be read \(Permission denied\)"):
        RunFolder(tmp_path).chain()


def test_sessions_are_counted_and_not_spelt(tmp_path: Path) -> None:
    assert session_name(1000) == "session-1000"
    for number in (0, 999, 1000, 123456):
        assert session_number(FileRecord(file=f"{session_name(number)}.json", sha256="0" * 64)) == number
    for file in ("pretrain.json", "session-x.json", "session-1000.txt", "session-01.json"):
        assert session_number(FileRecord(file=file, sha256="0" * 64)) == -1
    record = FileRecord(file="session-1000.json", sha256="0" * 64)
    (tmp_path / "head.json").write_bytes(NewestPointer(manifest=record).encoded())
    assert RunFolder(tmp_path).sessions() == list(range(1001))


def test_the_base_checkpoint_holds_backbone_class_means_and_statistics_only(trained: Path) -> None:
    run = RunFolder(trained)
    tensors = run.tensors(run.chain()[0])
    assert tensors["class_means"].shape == (4, 64)
    assert {name: tensor.shape for name, tensor in tensors.items() if name.startswith("statistics.")} == {
        "statistics.power": (1,),
        "statistics.power_means": (4, 64),
        "statistics.power_covariance": (64, 64),
        "statistics.projection": (64, 1024),
        "statistics.random_means": (4, 1024),
        "statistics.random_gram": (1024, 1024),
        "statistics.directions": (64, 64),
        "statistics.class_covariances": (4, 64, 64),
    }
    others = [name for name in tensors if name != "class_means" and not name.startswith("statistics.")]
    assert others
    assert all(name.startswith("backbone.") for name in others)
    assert not [name for name in tensors if re.search("attention|pyramid|classifier|enhance|teacher", name)]
    in_stage_1 = run.tensors(run.pretrain())
    assert in_stage_1.keys() == {*others, "classifier.weight"}


def test_a_session_holds_what_is_known_of_its_own_classes_only(trained: Path) -> None:
    run = RunFolder(trained)
    for stored, rows, shots in zip(run.chain()[1:], (2, 1), (5, 4), strict=True):
        tensors = run.tensors(stored)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        assert shapes == {"class_means": (rows, 64), "shot_features": (shots, 64)}
        assert (trained / stored.manifest.checkpoint.file).stat().st_size < 2500


def test_adding_a_session_leaves_every_earlier_file_as_it_was(run: Path, stripes: Stripes) -> None:
    RunFolder(run).remove_sessions(first=1)
    before = tree(run)
    for number, shots in enumerate((stripes.second_shots, stripes.first_shots), start=1):
        m2sd_cli.increment(number, shots, run=run, device="cpu")
        after = tree(run)
        new = {f"{session_name(number)}.json", f"{session_name(number)}.safetensors"}
        assert after.keys() == before.keys() | new
        assert {name: content for name, content in without_head(after).items() if name not in new} == without_head(
            before
        )
        before = after


@pytest.mark.parametrize("file", FILES)
def test_verify_names_the_damaged_file(run: Path, file: str) -> None:
    assert RunFolder(run).verify() == []
    flip(run / file, 0 if file.endswith(".json") else -1)
    assert named(run, RunFolder(run).verify()) == [file]


@pytest.mark.parametrize("file", FILES)
def test_verify_names_the_cut_file(run: Path, file: str) -> None:
    content = (run / file).read_bytes()
    for length in (0, len(content) // 2, len(content) - 2):
        (run / file).write_bytes(content[:length])
        assert named(run, RunFolder(run).verify()) == [file]


@pytest.mark.parametrize("file", FILES)
def test_verify_names_the_missing_file(run: Path, file: str) -> None:
    (run / file).unlink()
    problems = RunFolder(run).verify()
    assert named(run, problems) == [file]
    assert "missing" in problems[0]


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".json") and file != "head.json"])
def test_a_changed_manifest_that_still_makes_sense_is_found(run: Path, file: str) -> None:
    content = (run / file).read_bytes()
    (run / file).write_bytes(content.replace(b'"seed": 0', b'"seed": 1'))
    assert (run / file).read_bytes() != content
    assert named(run, RunFolder(run).verify()) == [file]


def test_verify_names_all_damaged_files_in_their_order(run: Path) -> None:
    for file in ("session-001.safetensors", "pretrain.safetensors", "session-000.json"):
        flip(run / file, 0)
    assert named(run, RunFolder(run).verify()) == [
        "pretrain.safetensors",
        "session-000.json",
        "session-001.safetensors",
    ]


@pytest.mark.parametrize("file", ["session-000.json", "session-001.json", "session-002.json"])
def test_the_chain_is_not_read_past_a_damaged_manifest(run: Path, file: str) -> None:
    flip(run / file, 0)
    with pytest.raises(DamagedError, match=re.escape(file)):
        RunFolder(run).chain()
    with pytest.raises(DamagedError, match=re.escape(file)):
        RunFolder(run).chain(0)


def test_a_damaged_checkpoint_is_not_loaded(run: Path) -> None:
    flip(run / "session-001.safetensors", -1)
    folder = RunFolder(run)
    chain = folder.chain()
    with pytest.raises(DamagedError, match=r"session-001\.safetensors: damaged, its SHA-256 is not the recorded one"):
        folder.tensors(chain[1])
    folder.tensors(chain[0])


def test_a_session_of_another_chain_does_not_fit(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    RunFolder(other).remove_sessions(first=1)
    m2sd_cli.increment(1, stripes.second_shots, run=other, device="cpu")
    for end in ("json", "safetensors"):
        shutil.copy(other / f"session-001.{end}", run / f"session-001.{end}")
    with pytest.raises(DamagedError, match=r"session-001\.json: damaged"):
        RunFolder(run).chain()


def test_a_renamed_manifest_is_recognised(run: Path) -> None:
    (run / "session-002.json").rename(run / "session-003.json")
    record = FileRecord(file="session-003.json", sha256=sha256(run / "session-003.json"))
    (run / "head.json").write_bytes(NewestPointer(manifest=record).encoded())
    with pytest.raises(DamagedError, match=r"session-003\.json: it is the manifest of session-002"):
        RunFolder(run).chain()


@pytest.mark.parametrize("file", [NEWEST, "session-001.json", "head.json"])
def test_a_file_of_another_schema_version_is_refused_by_number(run: Path, file: str) -> None:
    path = run / file
    path.write_bytes(path.read_bytes().replace(b'"schema_version": 4', b'"schema_version": 2'))
    if file == "session-001.json":
        newest = json.loads((run / NEWEST).read_bytes())
        newest["parent"]["sha256"] = sha256(path)
        (run / NEWEST).write_text(json.dumps(newest))
    if file != "head.json":
        repoint(run)
    refusal = re.escape(f"{path}: it is of schema version 2; this version of m2sd reads 4 alone")
    for read in (RunFolder(run).summary, RunFolder(run).chain):
        with pytest.raises(DamagedError, match=f"^{refusal}") as raised:
            read()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_missing_head_is_damage_where_there_is_a_manifest(run: Path, kept: int, m2sd: Cli) -> None:
    RunFolder(run).remove_sessions(first=kept)
    (run / "head.json").unlink()
    folder = RunFolder(run)
    for read in (folder.newest, folder.sessions, folder.has_pretrain, folder.pretrain, folder.summary):
        with pytest.raises(DamagedError, match=r"head\.json: missing; restore it .* by 'm2sd sessions repair'"):
            read()
    assert named(run, folder.verify()) == ["head.json"]
    assert m2sd("pretrain", "--data", "demo", "--run", run, "--force").code == 4
    folder.repair()
    assert folder.sessions() == list(range(kept))


def test_a_manifest_that_names_a_path_is_refused(run: Path) -> None:
    path = run / NEWEST
    path.write_bytes(path.read_bytes().replace(b'"session-002.safetensors"', b'"../session-002.safetensors"'))
    repoint(run)
    with pytest.raises(DamagedError, match=r"session-002\.json: .*checkpoint\.file"):
        RunFolder(run).chain()


def test_a_manifest_with_the_wrong_parent_is_refused(run: Path) -> None:
    path = run / NEWEST
    path.write_bytes(path.read_bytes().replace(b'"session-001.json"', b'"session-000.json"'))
    repoint(run)
    with pytest.raises(DamagedError, match=r"session-002\.json: its parent is not session-001\.json"):
        RunFolder(run).chain()


def test_class_indices_follow_along_the_chain(run: Path) -> None:
    folder = RunFolder(run)
    manifest = folder.chain()[2].manifest
    classes = [each.model_copy(update={"index": each.index + 1}) for each in manifest.classes]
    folder.write_manifest("session-002", manifest.model_copy(update={"classes_before": 7, "classes": classes}))
    with pytest.raises(DamagedError, match=r"session-002\.json: its class indices do not follow the chain's"):
        folder.chain()


def test_removing_the_newest_sessions(run: Path) -> None:
    before = tree(run)
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    assert folder.sessions() == [0]
    kept = {name: content for name, content in without_head(before).items() if not re.match("session-00[12]", name)}
    assert without_head(tree(run)) == kept
    assert folder.verify() == []


def test_what_no_head_names_does_not_count(run: Path, stripes: Stripes) -> None:
    removed = {path.name: path.read_bytes() for path in run.glob("session-00[12].*")}
    folder = RunFolder(run)
    folder.remove_sessions(first=1)
    for name, content in removed.items():  # as if the removal had been killed after its first moment
        (run / name).write_bytes(content)
    assert folder.sessions() == [0]
    assert folder.verify() == []
    m2sd_cli.increment(1, stripes.second_shots, run=run, device="cpu")
    assert folder.sessions() == [0, 1]
    assert folder.verify() == []
    assert not list(run.glob("session-002.*"))


@pytest.mark.parametrize("moved", [0, 1])
def test_what_is_not_yet_in_its_place_counts_and_is_moved_by_the_next_writer(
    run: Path, stripes: Stripes, moved: int
) -> None:
    before = tree(run)
    (run / "incoming").mkdir()
    for file in ("session-002.safetensors", NEWEST)[moved:]:
        (run / file).rename(run / "incoming" / file)
    folder = RunFolder(run)
    assert folder.verify() == []
    assert folder.chain()[-1].manifest.classes[0].name == "grey"
    assert len(list(m2sd_cli.predict([stripes.labelled], run=run, device="cpu"))) > 0
    with folder.locked("test"):
        pass
    assert tree(run) == before


CHECKPOINTS = ["pretrain.safetensors", "session-000.safetensors"]
BEGINNING = (*CHECKPOINTS, "pretrain.json", "session-000.json")


def write_beginning(folder: RunFolder, source: RunFolder) -> None:
    """Write stage 1 and session 0 of another run."""
    stored = source.session(0)
    folder.copy_pretrain(source)
    folder.copy_checkpoint(source, stored)
    folder.write_manifest("session-000", stored.manifest)


def test_a_new_chain_replaces_the_old_one_at_once(run: Path, calibrated: Path) -> None:
    before, new = tree(run), RunFolder(calibrated)
    folder = RunFolder(run)
    with folder.locked("test"), folder.at_once():
        write_beginning(folder, new)
        assert RunFolder(run).sessions() == [0, 1, 2]
        assert RunFolder(run).verify() == []
        assert {name: tree(run)[name] for name in before} == before
    assert [each.record for each in folder.chain()] == [new.session(0).record]
    assert folder.verify() == []
    assert sorted(path.name for path in run.glob("*.safetensors")) == [
        "pretrain.safetensors",
        "session-000.safetensors",
    ]


def test_a_new_chain_that_is_not_whole_leaves_the_old_one(run: Path, calibrated: Path) -> None:
    before = tree(run)
    folder = RunFolder(run)

    def write_half() -> None:
        with folder.locked("test"), folder.at_once():
            folder.copy_pretrain(RunFolder(calibrated))
            raise RunError("no space")

    with pytest.raises(RunError, match="no space"):
        write_half()
    assert folder.sessions() == [0, 1, 2]
    with folder.locked("test"):
        pass
    assert tree(run) == before


@pytest.mark.parametrize("moved", range(4))
def test_a_new_chain_counts_wherever_its_files_are(run: Path, calibrated: Path, moved: int) -> None:
    new = RunFolder(calibrated)
    (run / "incoming").mkdir()
    for number, file in enumerate(BEGINNING):  # as if its writer had been killed
        shutil.copy(calibrated / file, run / file if number < moved else run / "incoming" / file)
    folder = RunFolder(run)
    folder._point(new.session(0).record)
    assert [each.record for each in folder.chain()] == [new.session(0).record]
    assert folder.verify() == []
    with folder.locked("test"):
        pass
    assert folder.verify() == []
    assert sorted(path.name for path in run.glob("*.safetensors")) == [
        "pretrain.safetensors",
        "session-000.safetensors",
    ]
    assert not (run / "incoming").exists()


def test_what_was_not_finished_is_swept_away_by_the_next_writer(run: Path) -> None:
    before = tree(run)
    (run / "incoming").mkdir()
    shutil.copy(run / "session-001.safetensors", run / "incoming" / "session-003.safetensors")
    (run / "incoming" / "session-003.json").write_bytes(b"half")
    for name in ("head.json", "places.json", "log.jsonl"):
        (run / f".{name}.x1y2.tmp").write_bytes(b"half")
    (run / ".mine.tmp").write_bytes(b"somebody's")
    folder = RunFolder(run)
    assert folder.verify() == []
    with folder.locked("test"):
        pass
    assert tree(run) == before | {".mine.tmp": b"somebody's"}


def test_files_of_a_person_in_the_folders_of_a_run_are_kept(run: Path, stripes: Stripes) -> None:
    kept = {}
    for place in ("incoming", "training", "tuning/trial"):
        for name in ("heron/1.png", "session-2024.png", "session-001.jpg", "step-1.jpg", "pretrain.png"):
            photo = run / place / name
            photo.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(next(stripes.labelled.rglob("*.png")), photo)
            kept[str(photo.relative_to(run))] = photo.read_bytes()
    for file in ("incoming/session-003.json", "training/state.json", "tuning/trial/head.json"):
        (run / file).write_bytes(b"half")
    folder = RunFolder(run)
    m2sd_cli.increment(3, {"heron": [run / "incoming" / "heron" / "1.png"]}, run=run, device="cpu")
    with folder.locked("test"):
        folder.remove_training()
        folder.remove_tuning()
    inside = {name: content for name, content in tree(run).items() if "/" in name and content is not None}
    assert inside == kept


@pytest.mark.parametrize("link", ["trial", "trial/training"])
def test_of_a_link_in_a_fine_tuning_the_link_alone_is_removed(run: Path, tmp_path: Path, link: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "head.json").write_bytes(b"half")
    (run / "tuning" / link).parent.mkdir(parents=True)
    (run / "tuning" / link).symlink_to(disk, target_is_directory=True)
    RunFolder(run).remove_tuning()
    assert tree(disk) == {"head.json": b"half"}
    assert not (run / "tuning").exists()


def test_the_session_before_a_damaged_one_is_found_where_neither_is_in_its_place_yet(run: Path) -> None:
    before = tree(run)
    for name in ("session-001", "session-002"):
        for end in (".json", ".safetensors"):
            (run / "incoming").mkdir(exist_ok=True)
            (run / f"{name}{end}").rename(run / "incoming" / f"{name}{end}")
    (run / "incoming" / "session-002.json").write_bytes(b"half")
    folder = RunFolder(run)
    # An older chain had a session of that number, too.
    (run / "session-001.json").write_bytes(before["session-001.json"] or b"")
    with pytest.raises(DamagedError, match="move the wrong one away"), folder.locked("test", damaged=True):
        folder.remove_sessions(first=2, damaged=True)
    (run / "session-001.json").unlink()
    with (
        pytest.raises(DamagedError, match=r"session-002\.json: .* 'm2sd sessions undo --force'$"),
        folder.locked("test"),
    ):
        pass
    with folder.locked("test", damaged=True):
        folder.remove_sessions(first=2, damaged=True)
    with folder.locked("test"):
        pass
    assert folder.verify() == []
    assert (run / "session-001.json").read_bytes() == before["session-001.json"]
    assert folder.sessions() == [0, 1]


def test_remains_of_a_killed_writer_do_not_replace_the_chain_before_a_damaged_session(run: Path) -> None:
    before = tree(run)
    (run / "incoming").mkdir()
    for number in ("000", "001"):
        (run / "incoming" / f"session-{number}.json").write_bytes(before[NEWEST] or b"")
    (run / NEWEST).write_bytes(b"half")
    folder = RunFolder(run)
    with folder.locked("test", damaged=True):
        folder.remove_sessions(first=2, damaged=True)
    with folder.locked("test"):
        pass
    assert folder.verify() == []
    gone = {NEWEST, "session-002.safetensors", "head.json"}
    assert {name: content for name, content in tree(run).items() if name != "head.json"} == {
        name: content for name, content in before.items() if name not in gone
    }


def test_a_file_that_cannot_be_removed_keeps_no_other(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "trial/places.json",
        "trial/pretrain.json",
        "trial/session-000.json",
        "whole/head.json",
        "tuning.json",
    ):
        (run / "tuning" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "tuning" / name).write_bytes(b"half")
    remove = os.unlink

    def refuse(path: str, **options: Any) -> None:
        if str(path).endswith("places.json"):
            raise PermissionError(13, "Permission denied")
        remove(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    RunFolder(run).remove_tuning()
    assert tree(run / "tuning").keys() == {"trial", "trial/places.json"}


def test_a_killed_writer_of_a_session_that_is_there_is_swept_away(run: Path) -> None:
    before = tree(run)
    (run / "incoming").mkdir()
    (run / "incoming" / NEWEST).write_bytes(b"half")
    with RunFolder(run).locked("test"):
        pass
    assert tree(run) == before


@pytest.mark.parametrize("content", [b"half", b'{"kind": "increment"}'])
def test_the_last_copy_of_a_session_is_not_swept_away(run: Path, content: bytes) -> None:
    """Its writer was killed before it moved the files, and then one was damaged, or makes no sense."""
    (run / "incoming").mkdir()
    for file in ("session-002.safetensors", NEWEST):
        (run / file).rename(run / "incoming" / file)
    folder = RunFolder(run)
    (run / "incoming" / NEWEST).write_bytes(content)
    if content != b"half":
        folder._point(FileRecord(file=NEWEST, sha256=hashlib.sha256(content).hexdigest()))
    before = tree(run)
    with pytest.raises(DamagedError, match=f"incoming/{NEWEST}: .*restore"), folder.locked("test"):
        pass
    assert tree(run) == before
    with folder.locked("test", damaged=True):
        folder.remove_sessions(first=2, damaged=True)
    with folder.locked("test"):
        pass
    assert folder.sessions() == [0, 1]
    assert folder.verify() == []


def test_a_manifest_that_is_larger_than_any_that_is_read_is_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = RunFolder(run), tree(run)
    stored = folder.session(2)
    monkeypatch.setattr(folder_module, "TEXT_LIMIT", len((run / NEWEST).read_bytes()) - 1)
    with pytest.raises(RunError, match=r"session-003\.json takes 0 MiB, .* take fewer images"), folder.locked("test"):
        folder.write_manifest("session-003", stored.manifest)
    assert tree(run) == before


@pytest.mark.parametrize(("name", "way"), [("session-000", "--backbone"), ("session-002", "teach fewer images")])
def test_a_checkpoint_that_is_larger_than_any_that_is_read_is_not_written(
    tmp_path: Path, name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "CHECKPOINT_LIMIT", 4)
    with pytest.raises(RunError, match=way):
        RunFolder(tmp_path).write_checkpoint(name, {"x": torch.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_a_manifest_follows_its_checkpoint(run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RunFolder, name: str, manifest: object) -> None:
        assert (self.path / "incoming" / f"{name}.safetensors").is_file()
        raise RunError("no space")

    monkeypatch.setattr(RunFolder, "write_manifest", fail)
    RunFolder(run).remove_sessions(first=2)
    with pytest.raises(RunError, match="no space"):
        m2sd_cli.increment(2, stripes.second_shots, run=run, device="cpu")
    assert RunFolder(run).sessions() == [0, 1]


def test_a_reader_sees_the_chain_before_or_after(run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is removed and another taught in its stead, between two files that a reader reads."""
    reader, writer = RunFolder(run), RunFolder(run)
    real = read_verified
    waiting: list[str] = []

    def read(path: Path, *arguments: Any) -> bytes:
        if path.name in waiting:
            waiting.clear()
            writer.remove_sessions(first=1)
            m2sd_cli.increment(1, stripes.second_shots, run=run, device="cpu")
            m2sd_cli.increment(2, stripes.first_shots, run=run, device="cpu")
        return real(path, *arguments)

    monkeypatch.setattr("m2sd_cli.runs.reader.read_verified", read)
    for file in ("session-002.json", "session-001.json"):
        RunFolder(run).remove_sessions(first=1)
        m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
        m2sd_cli.increment(2, stripes.second_shots, run=run, device="cpu")
        waiting[:] = [file]
        assert [stored.manifest.classes[0].name for stored in reader.chain()] == ["blue", "grey", "purple"]
    for file in ("session-002.json", "session-001.json", "session-001.safetensors"):
        waiting[:] = [file]
        assert reader.verify() == []
        assert not waiting
    chain = reader.chain()
    writer.remove_sessions(first=2)
    with pytest.raises(RunError, match="changed while it was read; try again"):
        reader.tensors(chain[-1])


def test_the_head_is_read_once_since_it_may_be_replaced_at_any_moment(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RunFolder(run)
    real = reader._pointer_bytes
    reads: list[bytes | None] = []

    def read_head() -> bytes | None:
        reads.append(real())
        return reads[-1]

    monkeypatch.setattr(reader, "_pointer_bytes", read_head)
    for read in (reader.pretrain, reader.chain, reader.summary, reader.sessions, reader.has_pretrain, reader.verify):
        reads.clear()
        read()
        assert len(reads) == 1, read


HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_writer_at_a_time(run: Path, stripes: Stripes) -> None:
    folder = RunFolder(run)
    folder.remove_sessions(first=2)
    before = tree(run)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another m2sd command is writing to it") as raised, folder.locked("test"):
            pass
        assert raised.value.exit_code == 4
        with pytest.raises(RunError, match="another m2sd command"):
            m2sd_cli.increment(2, stripes.second_shots, run=run, device="cpu")
        with pytest.raises(RunError, match="another m2sd command"):
            m2sd_cli.distill(str(stripes.folder), run=run, force=True, **QUICK_DISTILL)
        assert tree(run) == before
        assert len(folder.chain()) == 2  # reading needs no lock
        other.kill()
    with folder.locked("test"):  # the lock of a process that died is no lock
        pass


def test_locking_makes_the_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "b").locked("test"):
        assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match="file/run: cannot be written to"),
        RunFolder(tmp_path / "file" / "run").locked("test"),
    ):
        pass


@pytest.mark.parametrize("name", ["incoming", "training"])
def test_a_folder_of_the_run_that_is_a_link_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.json").touch()
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match=f"{name}: a link"), RunFolder(run).locked("test"):
        pass
    assert (tmp_path / "elsewhere" / "state.json").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_the_run_that_is_no_file_is_named(run: Path, tmp_path: Path, file: str) -> None:
    path = run / file
    path.rename(tmp_path / file)
    path.symlink_to(tmp_path / file)
    assert named(run, RunFolder(run).verify()) == [file]
    path.unlink()
    os.mkfifo(path)
    assert named(run, RunFolder(run).verify()) == [file]
    path.unlink()
    path.mkdir()
    assert named(run, RunFolder(run).verify()) == [file]


def test_a_file_too_large_is_refused_before_it_is_read(run: Path) -> None:
    for file in ("head.json", "session-001.json", "session-001.safetensors"):
        whole = (run / file).read_bytes()
        os.truncate(run / file, 3 << 30)  # a hole takes no room on the disk
        assert named(run, RunFolder(run).verify()) == [file]
        assert "larger than any such file" in RunFolder(run).verify()[0]
        (run / file).write_bytes(whole)


def test_every_byte_of_the_head_counts(run: Path) -> None:
    path = run / "head.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        flip(path, position)
        assert named(run, RunFolder(run).verify()) == ["head.json"]
        with pytest.raises(DamagedError, match=r"head\.json: "):
            RunFolder(run).summary()
        path.write_bytes(whole)
    for content in (b"", whole[:-1], whole + b"\n", whole.replace(b" ", b"")):
        path.write_bytes(content)
        assert named(run, RunFolder(run).verify()) == ["head.json"]


def test_a_head_that_names_no_manifest_is_refused(run: Path) -> None:
    for file in ("x.json", "session-1.json", "session-9999999.json", "session-001.safetensors"):
        (run / "head.json").write_bytes(NewestPointer(manifest=FileRecord(file=file, sha256="0" * 64)).encoded())
        with pytest.raises(DamagedError, match=r"head\.json: it names no manifest"):
            RunFolder(run).sessions()


def test_a_damaged_session_is_undone_only_if_that_is_asked_for(run: Path, m2sd: Cli) -> None:
    flip(run / NEWEST, -2)
    done = m2sd("sessions", "undo", "--yes", "--run", run)
    check_refusal(done, 4, "session-002.json: damaged")
    assert "or remove it all the same with --force" in done.err
    assert m2sd("sessions", "undo", "--yes", "--force", "--run", run).code == 0
    assert RunFolder(run).sessions() == [0, 1]
    assert RunFolder(run).verify() == []


def test_pretrain_is_known_by_its_hash_however_long_the_chain_is(run: Path) -> None:
    path = run / "pretrain.json"
    whole = path.read_bytes()
    for first in (2, 1, 0):
        path.write_bytes(whole.replace(b'"seed": 0', b'"seed": 1'))
        with pytest.raises(DamagedError, match=r"pretrain\.json: damaged"):
            RunFolder(run).pretrain()
        path.write_bytes(whole)
        assert RunFolder(run).pretrain().manifest.seed == 0
        RunFolder(run).remove_sessions(first=first)


@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_a_lost_head_is_made_of_what_is_there(run: Path, m2sd: Cli, content: bytes | None) -> None:
    path = run / "head.json"
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    told = m2sd("sessions", "--run", run)
    assert (told.code, told.err.count("\n")) == (4, 1)
    assert "head.json" in told.err
    assert "m2sd sessions repair" in told.err
    done = m2sd("sessions", "repair", "--run", run)
    assert (done.code, done.err) == (0, f"{run}: session-002.json is the newest now, taken as it is found\n")
    assert path.read_bytes() == before
    again = m2sd("sessions", "repair", "--run", run)
    assert (again.code, again.err.count("\n")) == (4, 1)
    assert "its head is sound" in again.err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damaged", "newest"),
    [
        (NEWEST, "session-001.json"),
        ("session-002.safetensors", "session-001.json"),
        ("session-001.safetensors", "session-000.json"),
        ("session-000.json", "pretrain.json"),
    ],
)
def test_the_head_is_made_of_the_longest_sound_chain(run: Path, damaged: str, newest: str) -> None:
    (run / "head.json").unlink()
    flip(run / damaged, 0)
    folder = RunFolder(run)
    assert folder.repair().record.file == newest
    assert folder.verify() == []


def test_no_head_is_made_of_nothing(run: Path, m2sd: Cli) -> None:
    done = m2sd("sessions", "repair", "--run", run / "absent")
    assert (done.code, done.err) == (4, f"m2sd: {run / 'absent'}: {NO_FOLDER}\n")
    assert not (run / "absent").exists()
    (run / "head.json").unlink()
    flip(run / "pretrain.json", 0)
    before = tree(run)
    with pytest.raises(RunError, match="no chain in it that a head could be made of"):
        RunFolder(run).repair()
    assert tree(run) == before


def test_another_run_can_begin_with_its_stage_1(trained: Path, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    with copy.locked("test"):
        copy.copy_pretrain(RunFolder(trained))
    assert copy.verify() == []
    assert copy.pretrain() == RunFolder(trained).pretrain()
    assert set(tree(copy.path)) == {"head.json", "pretrain.json", "pretrain.safetensors"}
    for name in ("pretrain.json", "pretrain.safetensors"):
        assert (copy.path / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize("file", ["pretrain.json", "pretrain.safetensors"])
def test_no_run_begins_with_a_damaged_stage_1(run: Path, tmp_path: Path, file: str) -> None:
    RunFolder(run).remove_sessions(first=0)
    flip(run / file, 0 if file.endswith(".json") else -1)
    copy = RunFolder(tmp_path / "copy")
    with pytest.raises(DamagedError, match=file), copy.locked("test"):
        copy.copy_pretrain(RunFolder(run))
    assert not copy.has_pretrain()
