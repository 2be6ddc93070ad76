"""The sessions of one run, taught again to another network, and asking before they are lost."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.cli.removal import is_asked
from m2sd_cli.data.image_files import list_folder
from m2sd_cli.distributed.torchrun import LAUNCHED
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.places import remember_shots
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes, check_refusal, copy_base_session, fill, finished, tree


@pytest.fixture
def edited(run: Path, tmp_path: Path) -> Path:
    """A run with a session of each kind."""
    fill(tmp_path / "more", "purple", 2, first=400)
    m2sd_cli.increment(shots=tmp_path / "more", run=run, extend=True, device="cpu", classifier="means")
    m2sd_cli.rename("purple", "violet", run=run)
    m2sd_cli.forget("red", run=run)
    return run


@pytest.fixture
def fresh(edited: Path, stripes: Stripes, tmp_path: Path) -> Path:
    """Another network, with its session 0 alone."""
    run = copy_base_session(edited, tmp_path / "fresh")
    finished(m2sd_cli.distill(stripes.folder, run=run, force=True, **{**QUICK_DISTILL, "seed": 7}))
    return run


def taught(run: Path) -> list[object]:
    return [
        (each.manifest.kind, each.manifest.classes, each.manifest.edits, each.manifest.classifier)
        for each in RunFolder(run).chain()[1:]
    ]


def test_every_kind_of_session_is_taught_again(edited: Path, fresh: Path, m2sd: Cli) -> None:
    before = tree(edited)
    done = m2sd("sessions", "replay", "--from", edited, "--run", fresh)
    assert done.code == 0, done.err
    assert "session 1: increment: purple, white\n" in done.err
    assert "session 4: rename: purple\nsession 5: forget: red\n" in done.err
    assert taught(fresh) == taught(edited)
    assert tree(edited) == before
    first, second = (load_session(RunFolder(run)) for run in (edited, fresh))
    assert first.classes == second.classes
    assert not first.means.equal(second.means)
    shutil.copytree(fresh, fresh.with_name("third"))
    RunFolder(fresh.with_name("third")).remove_sessions(first=1)
    # The replayed run knows where its shots lie.
    assert len(m2sd_cli.replay(fresh, run=fresh.with_name("third"), device="cpu")) == 5
    check_refusal(m2sd("sessions", "replay", "--from", edited, "--run", fresh), 4, "nothing is left to be taught")


def test_a_replay_is_one_json_document(edited: Path, fresh: Path, m2sd: Cli) -> None:
    done = m2sd("sessions", "replay", "--from", edited, "--run", fresh, "--json")
    assert done.code == 0, done.err
    listed = json.loads(m2sd("sessions", "--run", fresh, "--json").out)["sessions"][1:]
    for each in listed:
        del each["classes_so_far"]
    assert json.loads(done.out)["sessions"] == listed
    assert [each["kind"] for each in listed][-2:] == ["rename", "forget"]


def test_a_replay_that_was_cut_off_goes_on(edited: Path, fresh: Path) -> None:
    m2sd_cli.replay(edited, run=fresh, device="cpu")
    whole = taught(fresh)
    RunFolder(fresh).remove_sessions(first=3)
    assert len(m2sd_cli.replay(edited, run=fresh, device="cpu")) == 3
    assert taught(fresh) == whole


def test_shots_are_found_by_their_content_in_several_folders(
    edited: Path, fresh: Path, stripes: Stripes, tmp_path: Path
) -> None:
    (edited / "places.json").unlink()
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    folders = (stripes.first_shots, stripes.second_shots, tmp_path / "more")
    for number, path in enumerate(sorted(file for folder in folders for file in folder.rglob("*.png"))):
        shutil.copy(path, places[number % 2] / f"{number}.png")
    with pytest.raises(
        DataError,
        match=r"name where they are with --shots: 1 of 3 of 'purple' \(session 1\); 1 of 2 of .*; looked in .*/a$",
    ):
        m2sd_cli.replay(edited, run=fresh, shots=places[:1], device="cpu")
    assert RunFolder(fresh).sessions() == [0]
    with pytest.raises(DataError, match="3 of 3 of 'purple'"):
        m2sd_cli.replay(edited, run=fresh, device="cpu")
    m2sd_cli.replay(edited, run=fresh, shots=places, device="cpu")
    assert taught(fresh) == taught(edited)


def test_other_photos_of_the_folders_stop_no_replay(
    edited: Path, fresh: Path, stripes: Stripes, tmp_path: Path
) -> None:
    first, kept, empty = tmp_path / "first", tmp_path / "kept", tmp_path / "empty"
    shutil.copytree(stripes.first_shots, first)
    shutil.copytree(stripes.second_shots, kept)
    empty.mkdir()
    for number, folder in enumerate((first, empty, tmp_path / "more"), start=1):
        remember_shots(edited, number, [folder])
    for folder in (first, kept):
        (folder / "lost.png").symlink_to(tmp_path / "nowhere.png")
    m2sd_cli.replay(edited, run=fresh, shots=[kept], device="cpu")
    assert taught(fresh) == taught(edited)


def test_a_closed_folder_beside_the_shots_stops_neither_replay_nor_report(
    edited: Path, fresh: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, folder in enumerate((stripes.first_shots, stripes.second_shots, tmp_path / "more"), start=1):
        shutil.copytree(folder, tmp_path / "all" / str(number))
        remember_shots(edited, number, [tmp_path / "all"])
    (tmp_path / "all" / "closed").mkdir()

    def listed(folder: Path) -> list[Path]:
        if folder.name == "closed":
            raise DataError(f"{folder}: cannot be read (Permission denied)")
        return list_folder(folder)

    monkeypatch.setattr("m2sd_cli.data.image_files.list_folder", listed)
    page = m2sd_cli.report(run=edited, data=stripes.folder, device="cpu")
    assert "cannot be read" not in page
    assert page.count('loading="lazy"') >= 4 + 3 + 4  # of the base classes and of two sessions
    m2sd_cli.replay(edited, run=fresh, device="cpu")
    assert taught(fresh) == taught(edited)
    with pytest.raises(DataError, match="closed: cannot be read"):  # which a person has named
        m2sd_cli.replay(
            edited, run=copy_base_session(fresh, tmp_path / "third"), shots=[tmp_path / "all"], device="cpu"
        )


@pytest.mark.parametrize(
    ("more", "less", "says"),
    [
        ("purple", None, "class 'purple' is in it since session 0, and session 1 teaches 'purple'; learn or pretrain"),
        (None, "red", "no class 'red' in it, which session 5 forgets; learn or pretrain with its images first"),
        (
            "violet",
            None,
            "class 'violet' is in it since session 0, and session 4 renames a class to 'violet'; learn",
        ),
        ("White", None, "class 'White' is in it since session 0, and session 1 teaches 'white'; learn or pretrain"),
    ],
)
def test_names_that_do_not_go_together_are_told_before_anything_is_taught(
    edited: Path, stripes: Stripes, tmp_path: Path, more: str | None, less: str | None, says: str
) -> None:
    folder, run = tmp_path / "colours", tmp_path / "new"
    shutil.copytree(stripes.folder, folder)
    if more is not None:
        fill(folder / "train", "orange", 3)
        (folder / "train" / "orange").rename(folder / "train" / more)
    if less is not None:
        shutil.rmtree(folder / "train" / less)
        shutil.rmtree(folder / "test" / less)
    m2sd_cli.pretrain(str(folder), run=run, **QUICK)
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    with pytest.raises(RunError, match=re.escape(says)):
        m2sd_cli.replay(edited, run=run, device="cpu")
    assert RunFolder(run).sessions() == [0]


def test_a_replay_does_not_forget_the_last_class(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    old = copy_base_session(run, tmp_path / "old")
    for name in ("red", "blue"):
        m2sd_cli.forget(name, run=old)
    folder = tmp_path / "two"
    for part in ("train", "test"):
        for name in ("red", "blue"):
            shutil.copytree(stripes.folder / part / name, folder / part / name)
    m2sd_cli.pretrain(str(folder), run=tmp_path / "new", **QUICK)
    m2sd_cli.distill(run=tmp_path / "new", epochs=0, device="cpu")
    with pytest.raises(RunError, match="session 2 forgets its last class; learn or pretrain with more first"):
        m2sd_cli.replay(old, run=tmp_path / "new", device="cpu")
    assert RunFolder(tmp_path / "new").sessions() == [0]


def test_other_sessions_are_no_beginning(edited: Path, fresh: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", "orange", 1)
    m2sd_cli.increment(shots=tmp_path / "other", run=fresh, device="cpu")
    with pytest.raises(RunError, match="its session 1 is not that of"):
        m2sd_cli.replay(edited, run=fresh, device="cpu")
    with pytest.raises(UsageError, match="that is the run itself"):
        m2sd_cli.replay(edited, run=edited, device="cpu")


def test_official_sessions_need_no_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    m2sd_cli.pretrain("demo", run=first, epochs=1, batch_size=512, images_per_class=4, device="cpu", precision="fp32")
    m2sd_cli.distill(run=first, epochs=0, device="cpu")
    shutil.copytree(first, second)
    m2sd_cli.increment(run=first, device="cpu")
    assert len(m2sd_cli.replay(first, run=second, device="cpu")) == 1
    assert taught(first) == taught(second)


@pytest.mark.parametrize("stage", ["pretrain", "distill", "learn"])
def test_taught_sessions_are_not_removed_without_being_asked(
    m2sd: Cli, edited: Path, stripes: Stripes, stage: str
) -> None:
    before = tree(edited)
    words = [
        stage,
        *([stripes.folder] if stage == "learn" else ["--data", stripes.folder]),
        "--run",
        edited,
        "--force",
    ]
    done = m2sd(*words)
    check_refusal(done, 4, "--force removes 5 taught sessions of 3 classes and 11 shots; --yes agrees, or to keep them")
    assert "'m2sd sessions replay --from'" in done.err
    assert tree(edited) == before


def test_sessions_of_a_damaged_run_are_not_removed_without_being_asked(
    m2sd: Cli, edited: Path, stripes: Stripes
) -> None:
    (edited / "session-002.json").write_text("{}")
    before = tree(edited)
    done = m2sd("learn", stripes.folder, "--run", edited, "--force")
    check_refusal(done, 4, "--force removes 5 taught sessions of a damaged run; --yes agrees, or to keep")
    assert "restore from a backup what 'm2sd sessions verify' names" in done.err
    assert tree(edited) == before


def test_a_classifier_that_the_network_cannot_have_is_told_before_anything_is_taught(
    m2sd: Cli, edited: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, _statistics: object) -> None:
        if name == "means":
            raise UsageError("no")

    monkeypatch.setattr("m2sd_cli.api.replay.require_covariances", refuse)
    done = m2sd("sessions", "replay", "--from", edited, "--run", fresh)
    assert done.code == 0, done.err
    line = "session 3: this network cannot answer with means; the classifier before it stays"
    assert done.err.index(line) < done.err.index("session 1: increment")
    assert {each.manifest.classifier for each in RunFolder(fresh).chain()[1:]} == {"fecam"}


@pytest.mark.parametrize(("launched", "asked"), [(False, True), (True, False)])
def test_several_processes_do_not_ask(launched: bool, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.delenv(LAUNCHED, raising=False)
    if launched:
        monkeypatch.setenv(LAUNCHED, "1")
    assert is_asked() == asked


def test_no_is_an_answer_and_yes_is_another(
    m2sd: Cli, edited: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2sd_cli.cli.removal.is_asked", lambda: True)
    before = tree(edited)
    words = ["distill", "--data", stripes.folder, "--run", edited, "--force", "--epochs", 0, "--device", "cpu"]
    refused = m2sd(*words, stdin="n\n")
    assert refused.code == 130
    assert "nothing removed" in refused.err
    assert tree(edited) == before
    assert m2sd(*words, stdin="y\n").code == 0
    assert RunFolder(edited).sessions() == [0]
    assert m2sd(*words).code == 0  # of session 0 alone nobody asks
