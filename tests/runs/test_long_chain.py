"""A long chain is read once, and adding to it reads as much of it in full as adding to a short one."""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import m2sd_cli
from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.files import read_verified
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import FileRecord, Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from tests.helpers import Cli, Stripes

Lengthen = Callable[..., None]
LENGTHS = [0, 197]  # sessions after the three of the trained run
MANIFESTS = re.compile(r"session-\d+\.json")


class Reading:
    """How often each file was read since this began to watch, and which manifests as a whole."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        real_content, real_manifest = read_verified, RunFolder.read

        def content(path: Path, sha256: str | None, limit: int) -> bytes:
            self.files[path.name] += 1
            return real_content(path, sha256, limit)

        def manifest(run: RunFolder, name: str, sha256: str | None = None) -> StoredManifest:
            self.whole[name] += 1
            return real_manifest(run, name, sha256)

        patch.setattr("m2sd_cli.runs.reader.read_verified", content)
        patch.setattr(RunFolder, "read", manifest)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


@pytest.fixture
def orange(stripes: Stripes, tmp_path: Path) -> Path:
    """Shots of a class that nobody was taught."""
    shutil.copytree(stripes.labelled / "orange", tmp_path / "orange" / "orange")
    return tmp_path / "orange"


def files(end: str, sessions: int) -> dict[str, int]:
    """Every session's file, read once."""
    return {f"{session_name(number)}.{end}": 1 for number in range(sessions)}


@pytest.mark.parametrize("more", LENGTHS)
def test_an_increment_reads_the_ends_of_a_chain_in_full_and_the_rest_in_outline(
    run: Path, lengthen: Lengthen, reading: Reading, orange: Path, more: int
) -> None:
    lengthen(run, more)
    sessions, head = 3 + more, session_name(2 + more)
    reading.files.clear()
    reading.whole.clear()
    stored = m2sd_cli.increment(sessions, orange, run=run, device="cpu")
    assert stored.manifest.classes_before == 7 + more
    assert reading.whole == Counter(["pretrain", "session-000", head])
    # Stage 1 is read once more, since it has the hashes of the base images, of which a shot may be one.
    once_more = Counter(["session-000.safetensors", "pretrain.json"])
    assert reading.files == Counter(files("json", sessions)) + once_more
    assert RunFolder(run).verify() == []


@pytest.mark.parametrize("more", LENGTHS)
def test_using_a_chain_reads_every_file_of_it_once(
    run: Path, lengthen: Lengthen, reading: Reading, stripes: Stripes, more: int
) -> None:
    lengthen(run, more)
    sessions = 3 + more
    every = Counter(files("json", sessions)) + Counter(files("safetensors", sessions))
    uses: list[tuple[Callable[[], object], set[str]]] = [
        (lambda: load_session(RunFolder(run)), set()),
        # Which images were trained on, stage 1 alone knows.
        (lambda: m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu"), {"pretrain"}),
        (lambda: m2sd_cli.evaluate(run=run, data=str(stripes.folder), device="cpu"), {"pretrain"}),
        (lambda: list(m2sd_cli.predict([stripes.labelled], run=run, device="cpu")), set()),
    ]
    for use, first in uses:
        reading.files.clear()
        reading.whole.clear()
        use()
        assert reading.files == every + Counter(f"{name}.json" for name in first)
        assert reading.whole.keys() == {"session-000", session_name(2 + more), *first}


def test_one_session_is_read_in_full_and_the_others_in_outline(
    run: Path, lengthen: Lengthen, reading: Reading, m2sd: Cli
) -> None:
    lengthen(run, 50)
    reading.files.clear()
    reading.whole.clear()
    shown = json.loads(m2sd("sessions", "show", 7, "--run", run).out)
    assert shown == json.loads((run / "session-007.json").read_text())
    assert reading.files == files("json", 53)
    assert reading.whole.keys() == {"session-007"}


def test_listing_and_undoing_read_no_more_than_they_have_to(
    run: Path, lengthen: Lengthen, reading: Reading, m2sd: Cli
) -> None:
    lengthen(run, 50)
    reading.files.clear()
    assert len(json.loads(m2sd("sessions", "--run", run, "--json").out)["sessions"]) == 53
    assert reading.files == files("json", 53)
    reading.files.clear()
    assert m2sd("sessions", "undo", "--yes", "--run", run).code == 0
    assert reading.files == {"session-052.json": 1}


def test_the_outline_says_what_the_manifests_say(run: Path, lengthen: Lengthen) -> None:
    lengthen(run, 5, classes=3)
    folder = RunFolder(run)
    for last in (0, 1, 4, 7, None):
        chain, summary = folder.chain(last), folder.summary(last)
        assert (summary.base, summary.last) == (chain[0], chain[-1])
        assert len(summary.sessions) == len(chain)
        for stored, part in zip(chain, summary.sessions, strict=True):
            assert [each.name for each in part.classes] == [each.name for each in stored.manifest.classes]
            for name in ("session", "parent", "checkpoint", "classes_before", "classes_so_far"):
                assert getattr(part, name) == getattr(stored.manifest, name)
        assert summary.taught() == {each.name: n for n, stored in enumerate(chain) for each in stored.manifest.classes}
        assert folder.session(len(chain) - 1) == chain[-1]
    model = load_session(folder)
    assert torch.equal(model.means, torch.cat([folder.tensors(stored)["class_means"] for stored in folder.chain()]))
    assert model.sizes == [stored.manifest.classes_so_far for stored in folder.chain()]


def test_a_class_of_any_session_is_known(run: Path, lengthen: Lengthen, orange: Path) -> None:
    lengthen(run, 20)
    for name, since in (("red", 0), ("purple", 1), ("class 7", 3), ("class 15", 11), ("class 26", 22)):
        shots = orange.parent / name
        shutil.copytree(orange / "orange", shots / name)
        with pytest.raises(RunError, match=f"class '{name}' exists already, since session {since};"):
            m2sd_cli.increment(23, shots, run=run, device="cpu")


@pytest.mark.parametrize("number", [0, 1, 12, 21, 22])
def test_nothing_is_added_to_a_damaged_chain(
    run: Path, lengthen: Lengthen, orange: Path, stripes: Stripes, number: int
) -> None:
    lengthen(run, 20)
    path = run / f"{session_name(number)}.json"
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole.replace(b'"seed": 0', b'"seed": x'), whole.replace(b'"kind"', b'"sort"'), None):
        path.write_bytes(damaged) if damaged else path.unlink()
        for use in (
            lambda: m2sd_cli.increment(23, orange, run=run, device="cpu"),
            lambda: m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu"),
            lambda: m2sd_cli.predict([stripes.labelled], run=run, session=0, device="cpu"),
            lambda: RunFolder(run).session(0),
        ):
            with pytest.raises(DamagedError, match=re.escape(path.name)):
                use()
        path.write_bytes(whole)
    assert len(RunFolder(run).chain()) == 23


def test_a_foreign_manifest_is_found_in_outline_too(run: Path, lengthen: Lengthen) -> None:
    """Whoever rewrites a manifest and all hashes after it has still to write one that makes sense."""
    lengthen(run, 3)
    folder = RunFolder(run)

    def rewrite(chain: list[StoredManifest], number: int, **changes: object) -> None:
        path = run / f"{session_name(number)}.json"
        path.write_text(json.dumps(chain[number].manifest.model_dump(mode="json") | changes))
        record = FileRecord(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for stored in chain[number + 1 :]:
            record = folder.write_manifest(stored.name, stored.manifest.model_copy(update={"parent": record})).record

    for number in (2, 3):
        name, chain = session_name(number), folder.chain()
        rewrite(chain, number, classes_before=chain[number].manifest.classes_before + 1)
        with pytest.raises(DamagedError, match=rf"{name}\.json: .*class indices do not follow"):
            folder.summary()
        rewrite(chain, number, parent=chain[0].record.model_dump())
        with pytest.raises(DamagedError, match=rf"{name}\.json: its parent is not"):
            folder.summary()
        rewrite(chain, number, classes=[{"index": 3}])
        with pytest.raises(DamagedError, match=rf"{name}\.json: not a manifest .*: classes\.0\.name: "):
            folder.summary()
        rewrite(chain, number, schema_version=5)
        with pytest.raises(DamagedError, match=rf"{name}\.json: it is of schema version 5; "):
            folder.summary()
        rewrite(chain, number, session=9)
        with pytest.raises(DamagedError, match=rf"{name}\.json: it is the manifest of session-009"):
            folder.summary()
        rewrite(chain, number, views=None)
        with pytest.raises(DamagedError, match=rf"{name}\.json: .*views are named by every session with shots"):
            load_session(folder)
        rewrite(chain, number)
        assert len(folder.summary().sessions) == 6


def test_a_thousandth_session_is_one_like_any_other(run: Path, lengthen: Lengthen, orange: Path, m2sd: Cli) -> None:
    lengthen(run, 997)
    for session in (1000, 1001):
        name = orange / ("orange" if session == 1000 else "amber")
        if session == 1001:
            (orange / "orange").rename(name)
        stored = m2sd_cli.increment(session, orange, run=run, device="cpu")
        assert stored.record.file == f"session-{session}.json"
        assert stored.manifest.parent is not None
        assert stored.manifest.parent.file == f"session-{session - 1}.json"
    folder = RunFolder(run)
    assert folder.sessions() == list(range(1002))
    assert [part.session for part in folder.summary().sessions] == list(range(1002))
    listed = m2sd("sessions", "--run", run).out.splitlines()
    assert [line.split()[0] for line in listed[-3:]] == ["999", "1000", "1001"]
    assert m2sd("sessions", "undo", "--yes", "--run", run).err == "removed session 1001\n"
    assert folder.sessions()[-1] == 1000
    assert isinstance(folder.session(1000).manifest, Manifest)
