"""Run folders remember where their images lie, and nobody needs it."""

import json
import shutil
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.places import PLACES, Places, read_places, remember_data, remember_shots
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes, check_refusal, copy_base_session, tree


def test_folders_are_named_once(stripes: Stripes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert m2sd_cli.pretrain(str(stripes.folder), run=run, stop_after=0, **QUICK) is None
    m2sd_cli.pretrain(run=run, resume=True, device="cpu")
    m2sd_cli.distill(run=run, **QUICK_DISTILL)
    m2sd_cli.increment(shots=stripes.first_shots, run=run, device="cpu")
    asked = m2sd_cli.evaluate(run=run, device="cpu")
    assert asked.figures == m2sd_cli.evaluate(run=run, data=stripes.folder, device="cpu").figures
    assert m2sd_cli.reproduce(run=run, device="cpu").same
    assert read_places(run) == Places({"colours": str(stripes.folder)}, {"1": [str(stripes.first_shots)]})
    for path in run.iterdir():
        assert path.name == PLACES or str(stripes.folder).encode() not in path.read_bytes(), path


def test_without_the_file_a_folder_is_named_again(run: Path, stripes: Stripes, m2sd: Cli) -> None:
    (run / PLACES).unlink()
    assert RunFolder(run).verify() == []
    for words in (["distill", "--force", "--yes"], ["evaluate"]):
        check_refusal(m2sd(*words, "--run", run), 2, "is of the folder 'colours'; say where it is with --data")
    assert not (run / PLACES).exists()
    m2sd_cli.evaluate(run=run, data=stripes.folder, device="cpu")
    assert read_places(run).data == {"colours": str(stripes.folder)}


def test_a_moved_folder_is_asked_for_once(run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    remember_data(run, "colours", tmp_path / "gone" / "colours")
    done = m2sd("evaluate", "--run", run)
    check_refusal(done, 2, f"it is not where it was, {tmp_path / 'gone' / 'colours'}; say where it is with --data")
    moved = Path(shutil.copytree(stripes.folder, tmp_path / "new" / "colours"))
    m2sd_cli.evaluate(run=run, data=moved, device="cpu")
    m2sd_cli.evaluate(run=run, device="cpu")
    assert read_places(run).data == {"colours": str(moved)}


def test_a_folder_of_another_name_is_asked_for_once(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    (run / PLACES).unlink()
    renamed = Path(shutil.copytree(stripes.folder, tmp_path / "colours of 2026"))
    m2sd_cli.evaluate(run=run, data=renamed, device="cpu")
    m2sd_cli.evaluate(run=run, device="cpu")
    (run / PLACES).unlink()
    m2sd_cli.distill(renamed, run=run, force=True, **QUICK_DISTILL)
    m2sd_cli.evaluate(run=run, device="cpu")
    assert read_places(run).data == {"colours": str(renamed)}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b'{"data": 3, "shots": {}}', b'{"data": {"colours": 3}, "shots": {}}'),
        *(b'{"data": {}, "shots": {"1": 3}}', b'{"data": {}, "shots": [[]]}', b"\xff\xfe", b"[" * 100_000),
    ],
)
def test_a_file_that_nobody_wrote_is_no_file(run: Path, content: bytes) -> None:
    (run / PLACES).write_bytes(content)
    assert read_places(run) == Places()
    with pytest.raises(UsageError, match="say where it is with --data"):
        m2sd_cli.evaluate(run=run, device="cpu")
    assert (run / PLACES).read_bytes() == content


def test_a_session_that_is_taught_anew_forgets_the_places_of_later_ones(tmp_path: Path) -> None:
    for session, folder in ((1, "a"), (2, "b"), (3, "c"), (2, "d")):
        remember_shots(tmp_path, session, [tmp_path / folder])
    assert read_places(tmp_path).shots == {"1": [str(tmp_path / "a")], "2": [str(tmp_path / "d")]}
    assert json.loads((tmp_path / PLACES).read_bytes())["data"] == {}


def test_odd_names_are_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "a\udcff\nb 'c'"
    remember_data(tmp_path, "odd", folder)
    assert read_places(tmp_path).data == {"odd": str(folder)}


def test_a_run_folder_that_cannot_be_written_is_no_obstacle(
    run: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("m2sd_cli.runs.files.os.replace", refuse)
    before = tree(run)
    moved = Path(shutil.copytree(stripes.folder, tmp_path / "new" / "colours"))
    remember_data(run, "colours", moved)
    assert tree(run) == before


def test_a_run_of_built_in_data_remembers_none(simulated: Path, tmp_path: Path) -> None:
    assert not (copy_base_session(simulated, tmp_path / "run") / PLACES).exists()


def test_test_images_that_were_learned_are_told(run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    """They prove nothing: base images, and shots of a later session."""
    own = m2sd("evaluate", "--run", run)
    assert "were learned" not in own.err
    tested = tmp_path / "tested"
    learned = [next((stripes.folder / "train" / "red").iterdir()), next((stripes.second_shots / "grey").iterdir())]
    for image in (*learned, *(stripes.labelled / "red").iterdir()):
        (tested / image.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tested / image.parent.name / f"of-{image.parent.parent.name}-{image.name}")
    done = m2sd("evaluate", "--run", run, "--test", tested)
    count = 2 + len(list((stripes.labelled / "red").iterdir()))
    assert done.code == 0
    assert f"2 of {count} test images were learned or held out, such as {tested}" in done.err
    assert "their answers prove nothing; leave them out" in done.err
    (run / "pretrain.json").unlink()  # tells of the base images, and the figures need sessions alone
    assert m2sd("evaluate", "--run", run, "--test", tested).out == done.out
