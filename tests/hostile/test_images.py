"""Images and names that mean no good, through the commands: read rightly, or one line that names the file."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from m2sd_cli.cli.output import printable
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.kinds import listed_kinds
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import StoppedError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Outcome, Stripes, check_refusal, tree

CPU = ["--device", "cpu"]
QUICK = [*CPU, "--precision", "fp32", "--image-size", "16", "--backbone", "resnet20", "--epochs", "1"]


def encode(format: str) -> bytes:
    buffer = BytesIO()
    Image.effect_noise((64, 48), 90).convert("RGB").save(buffer, format)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb() -> bytes:
    """20,000 x 20,000 pixels in 50 kB."""
    squeeze, row = zlib.compressobj(9), bytes(1 + 20_000 // 8)
    pixels = b"".join([*(squeeze.compress(row) for _ in range(20_000)), squeeze.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    whole = encode("PNG")
    return whole[:33] + chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(9_000_000))) + whole[33:]


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def pipe(path: Path) -> None:
    os.mkfifo(path)


KINDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("x.jpg", write(b""), "an empty file"),
    "text": ("x.jpg", write(b"Dear Sir,\n"), "not an image"),
    "page": ("x.png", write(b"<!DOCTYPE html><title>404</title>"), "not an image"),
    "header alone": ("x.png", write(encode("PNG")[:33]), "not an image"),
    "half a jpg": ("x.jpg", write(encode("JPEG")[:900]), "damaged image"),
    "half a png": ("x.png", write(encode("PNG")[:4000]), "damaged image"),
    "half a webp": ("x.webp", write(encode("WEBP")[:900]), "damaged image"),
    "half a bmp": ("x.bmp", write(encode("BMP")[:4000]), "damaged image"),
    "half a gif": ("x.jpg", write(encode("GIF")[:1500]), "damaged image"),
    "a bomb": ("x.png", write(bomb()), "more than 89 million pixels; scale it down first"),
    "a bomb of text": ("x.png", write(text_bomb()), "more text or colour profile in it"),
    "another format": ("x.jpg", write(encode("ICO")), "not an image"),
    "link to nowhere": ("x.png", lambda path: path.symlink_to("nowhere"), "not a file, or a link that leads nowhere"),
    "link to itself": ("x.png", lambda path: path.symlink_to(path.name), "not a file, or a link that leads nowhere"),
    "device": ("x.png", lambda path: path.symlink_to("/dev/zero"), "not a file, or a link that leads nowhere"),
    "pipe": ("x.png", pipe, "not a file, or a link that leads nowhere"),
}


@pytest.fixture
def spots(stripes: Stripes, run: Path, tmp_path: Path) -> dict[str, tuple[Path, list[object]]]:
    """For each command the folder to put a bad image into, and the words to call it with."""
    work = tmp_path / "work"
    shutil.copytree(stripes.folder, work / "colours")
    shutil.copytree(stripes.labelled, work / "labelled")
    shutil.copytree(stripes.labelled / "orange", work / "shots" / "orange")
    new = tmp_path / "new"
    return {
        "pretrain": (work / "colours" / "train" / "red", ["--data", work / "colours", "--run", new, *QUICK]),
        "increment": (work / "shots" / "orange", ["--session", 3, "--shots", work / "shots", "--run", run, *CPU]),
        "evaluate": (work / "labelled" / "red", ["--test", work / "labelled", "--run", run, *CPU]),
        "predict": (work / "shots", [work / "shots", "--run", run, *CPU]),
        "data verify": (work / "colours" / "test" / "red", [work / "colours"]),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["pretrain", "increment", "evaluate", "predict", "data verify"])
def test_a_bad_image_is_named_in_one_line_and_nothing_is_written(
    m2sd: Cli,
    spots: dict[str, tuple[Path, list[object]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    kind: str,
) -> None:
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "decoded"))
    folder, words = spots[command]
    name, make, says = KINDS[kind]
    make(folder / name)
    before = tree(tmp_path / "run")
    done = m2sd(*command.split(), *words)
    assert done.code == 3
    assert (done.out == "") is (command not in ("data verify", "predict"))
    *notes, error = done.err.splitlines()
    assert error.startswith(f"m2sd: {folder / name}: {says}")
    assert len(notes) == (2 if command == "predict" else 0)  # what is left out, and that nothing is calibrated
    assert tree(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()
    assert not [path for path in (tmp_path / "decoded").rglob("*") if path.suffix != ".lock"]


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
def test_a_bad_image_among_those_held_out_is_found_before_training(
    m2sd: Cli, stripes: Stripes, calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The class means need none of them: nothing else would read them before the last epoch is over."""
    monkeypatch.setenv("M2SD_CACHE", str(tmp_path / "decoded"))
    photos, run = tmp_path / "colours", tmp_path / "new"
    shutil.copytree(stripes.folder, photos)
    held_out = choose_training(open_folder(photos, 16), 0.25, None).held_out
    assert isinstance(held_out, FileImages)
    bad = held_out.paths[-1]
    bad.write_bytes(bad.read_bytes()[:60])
    if stage == "distill":
        run = tmp_path / "calibrated"
        shutil.copytree(calibrated, run)
        words: list[object] = ["--force", "--yes", "--epochs", 1]
    else:
        words = [*QUICK, "--held-out", 0.25]
    before = tree(run) if run.exists() else {}
    monkeypatch.setattr("m2sd_cli.training.fitting.Training", None)
    done = m2sd(stage, "--data", photos, "--run", run, *CPU, *words)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"m2sd: {bad}: damaged image")
    assert (tree(run) if run.exists() else {}) == before


def spoil(folder: Path) -> list[str]:
    """Put a bad image of every kind into a folder; their names, sorted."""
    names = []
    for number, (name, make, _) in enumerate(KINDS.values()):
        make(folder / f"{number:02d}{name}")
        names.append(f"{number:02d}{name}")
    return names


def document(done: Outcome) -> dict[str, Any]:
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_skip_bad_goes_on_without_them_and_lists_them(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path
) -> None:
    """The whole life of a model ends where it ends without the bad images."""
    photos, run = Path(shutil.copytree(stripes.folder, tmp_path / "colours")), tmp_path / "run"
    trains, tests = spoil(photos / "train" / "red"), spoil(photos / "test" / "blue")
    skipped = [f"train/red/{name}" for name in trains] + [f"test/blue/{name}" for name in tests]
    common = ["--data", photos, "--run", run, *CPU, "--precision", "fp32", "--batch-size", 8, "--epochs", 1]
    pretrain = ["pretrain", *common, "--image-size", 16, "--backbone", "resnet20", "--skip-bad"]
    stopped = m2sd(*pretrain, "--stop-after", "0s")
    assert stopped.code == StoppedError.exit_code, stopped.err
    note = stopped.err.splitlines()[0]
    assert note.startswith("32 images cannot be read and are left out: train/red/00x.jpg (an empty file, of 0 bytes")
    assert note.endswith("; and 29 more")
    (photos / "train" / "red" / trains[0]).unlink()  # that it is gone, or is mended, does not matter any more
    shutil.copy(photos / "train" / "red" / "red-00.png", photos / "train" / "red" / trains[1])
    assert m2sd(*pretrain, "--resume").code == 0
    assert m2sd("distill", *common, "--learning-rate", 0.02, "--enhancement", "full").code == 0
    for name in ("pretrain", "session-000"):
        ours, clean = (RunFolder(each).read(name).manifest for each in (run, trained))
        assert [each.file for each in ours.skipped] == skipped
        assert all(each.reason and str(tmp_path) not in each.reason for each in ours.skipped)
        assert ours.skipped[9].reason == "more than 89 million pixels; scale it down first"
        assert ours.classes == clean.classes
        assert ours.checkpoint == clean.checkpoint
    own = document(m2sd("evaluate", "--run", run, "--data", photos, *CPU, "--json"))
    assert own["sessions"][0]["images"] == 12
    assert own["skipped"] == []  # those that pretrain left out are known
    shots = Path(shutil.copytree(stripes.first_shots, tmp_path / "first"))
    names = spoil(shots / "white")
    taught = m2sd("increment", "--session", 1, "--shots", shots, "--run", run, *CPU, "--skip-bad")
    assert taught.code == 0
    assert taught.err.startswith("16 images cannot be read and are left out: white/00x.jpg (")
    ours, clean = (RunFolder(each).read("session-001").manifest for each in (run, trained))
    assert [each.file for each in ours.skipped] == [f"white/{name}" for name in names]
    assert (ours.classes, ours.checkpoint) == (clean.classes, clean.checkpoint)
    assert RunFolder(run).verify() == []


def test_a_test_image_that_has_gone_bad_since_is_skipped_when_asked_for(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    bad = sorted((photos / "test" / "red").iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:60])
    command = ["evaluate", "--run", trained, "--data", photos, *CPU]
    refused = m2sd(*command)
    assert (refused.code, refused.out) == (3, "")
    found = document(m2sd(*command, "--skip-bad", "--json"))
    assert found["sessions"][0]["images"] == 11
    assert [each["file"] for each in found["skipped"]] == [f"test/red/{bad.name}"]
    shown = m2sd(*command, "--skip-bad")
    assert shown.err.startswith(f"1 image cannot be read and is left out: test/red/{bad.name} (damaged image")
    assert m2sd(*command, "--skip-bad", "-q").err == ""


def test_evaluate_and_predict_skip_what_they_are_given(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path
) -> None:
    labelled = Path(shutil.copytree(stripes.labelled, tmp_path / "labelled"))
    clean = document(m2sd("evaluate", "--run", trained, "--test", labelled, *CPU, "--json"))
    answers = document(m2sd("predict", labelled / "red", "--run", trained, *CPU, "--json"))
    assert (clean["skipped"], answers["skipped"]) == ([], [])
    names = spoil(labelled / "red")
    found = document(m2sd("evaluate", "--run", trained, "--test", labelled, *CPU, "--json", "--skip-bad"))
    assert [each["file"] for each in found["skipped"]] == [f"red/{name}" for name in names]
    assert found["sessions"] == clean["sessions"]
    command = ["predict", labelled / "red", "--run", trained, *CPU, "--skip-bad"]
    again = document(m2sd(*command, "--json"))
    assert [each["image"] for each in again["predictions"]] == [each["image"] for each in answers["predictions"]]
    assert [each["image"] for each in again["skipped"]] == [str(labelled / "red" / name) for name in names]
    assert again["skipped"][9]["reason"] == "more than 89 million pixels; scale it down first"
    shown = m2sd(*command)
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 2
    *lines, calibrated = shown.err.splitlines()
    assert calibrated.startswith("probabilities are not calibrated, no photo is called unknown: ")
    assert [line.split(": ")[1] for line in lines] == [str(labelled / "red" / name) for name in names]
    assert all(line.startswith("left out: ") for line in lines)


def test_predict_fails_if_no_image_can_be_read(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"Dear Sir,")
    command = ["predict", tmp_path, "--run", trained, *CPU, "--skip-bad"]
    reason = f"not an image that can be read ({listed_kinds()})"
    says = f"m2sd: no photo can be read: {tmp_path / 'a.jpg'}: {reason}; and 1 more\n"
    for words in (command, [*command, "--json"]):
        done = m2sd(*words)
        assert (done.code, done.out, done.err) == (3, "", says)


@pytest.mark.parametrize("command", ["pretrain", "increment", "evaluate"])
def test_a_class_of_bad_images_alone_is_an_error(
    m2sd: Cli, spots: dict[str, tuple[Path, list[object]]], tmp_path: Path, command: str
) -> None:
    folder, words = spots[command]
    for path in folder.iterdir():
        path.write_bytes(b"")
    before = tree(tmp_path / "run")
    done = m2sd(command, *words, "--skip-bad")
    check_refusal(done, 3, f"no image of class '{folder.name}' can be read")
    assert tree(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()


def test_skip_bad_skips_nothing_but_images(m2sd: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "shots" / "hollow").mkdir(parents=True)
    before = tree(run)
    for words, code in (
        (["increment", "--session", 3, "--shots", tmp_path / "shots"], 3),
        (["increment", "--session", 3, "--shots", tmp_path / "nowhere"], 3),
        (["predict", tmp_path / "nowhere.png"], 3),
        (["predict", tmp_path / "shots"], 3),
        (["evaluate", "--test", tmp_path / "shots"], 3),
    ):
        done = m2sd(*words, "--run", run, *CPU, "--skip-bad")
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert tree(run) == before


def test_images_of_one_pixel_go_through_every_command(m2sd: Cli, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c", "d")):
        folder = tmp_path / ("shots" if number > 1 else "photos") / name
        folder.mkdir(parents=True)
        for each in range(3):
            Image.new("RGB", (1, 1), (60 * number, 80 * each, 200)).save(folder / f"{each}.png")
    common = ["--run", tmp_path / "run", *CPU]
    assert m2sd("pretrain", "--data", tmp_path / "photos", "--run", tmp_path / "run", *QUICK).code == 0
    assert m2sd("distill", "--data", tmp_path / "photos", *common, "--epochs", 0).code == 0
    assert m2sd("increment", "--session", 1, "--shots", tmp_path / "shots", *common).code == 0
    found = document(m2sd("evaluate", "--test", tmp_path / "shots", *common, "--json"))
    assert found["sessions"][1]["images"] == 6
    assert len(document(m2sd("predict", tmp_path / "shots", *common, "--json"))["predictions"]) == 6


NAMES = [
    " spaces ",
    "new\nline\r",
    "\x1b[31mred\x07",
    "\u202eright to left",
    "\U0001f426 bird",
    "\u6f22\u5b57",
    "-rf",
    "--help",
    "'single' \"double\" `back` $(x) ${HOME}",
    "%s %d {0}",
    "[bold]markup[red]",
    "a;b|c&d>e<f,g*?",
    "\\back\\slash",
    "C:",
    "~",
]


def test_any_name_is_read_rightly_and_printed_safely(
    m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, names in (("photos", NAMES[::2]), ("shots", NAMES[1::2])):
        for number, name in enumerate(names):
            (tmp_path / place / name).mkdir(parents=True)
            for kind, colour in (("a", 9), ("b", 99)):
                image = Image.new("RGB", (9, 9), (20 * number, colour, 200))
                image.save(tmp_path / place / name / f"{kind}{name}.png")
    monkeypatch.chdir(tmp_path)
    common = ["--run", "run", *CPU]
    said = [
        m2sd("data", "verify", "photos"),
        m2sd("pretrain", "--data", "photos", "--run", "run", *QUICK),
        m2sd("distill", "--data", "photos", *common, "--epochs", 0),
        m2sd("increment", "--session", 1, "--shots", "shots", *common),
        m2sd("evaluate", "--test", "shots", *common, "--confusion", "confusion.csv"),
        m2sd("evaluate", "--data", "photos", *common),
        m2sd("predict", "shots", *common, "--top-k", 20),
        m2sd("sessions", "--run", "run"),
    ]
    for done in said:
        assert done.code == 0, done
        assert (done.out + done.err).replace("\n", "").isprintable()
    chain = RunFolder(tmp_path / "run").chain()
    assert [each.name for stored in chain for each in stored.manifest.classes] == sorted(NAMES[::2]) + sorted(
        NAMES[1::2]
    )
    answers = said[6].out.splitlines()
    assert len(answers) == 2 * len(NAMES[1::2])
    assert any("[bold]markup[red]" in line for line in answers)
    assert any("new\\x0aline\\x0d" in line for line in answers)
    found = document(m2sd("predict", "shots", *common, "--json"))["predictions"]
    assert {Path(each["image"]).parent.name for each in found} == set(NAMES[1::2])
    monkeypatch.chdir(tmp_path / "shots" / "--help")
    assert m2sd("predict", "--run", "../../run", *CPU, "--", "a--help.png").out.startswith("a--help.png: ")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_bad_image_is_one_line(
    m2sd: Cli, trained: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shots" / name).mkdir(parents=True)
    (tmp_path / "shots" / name / f"{name}.png").touch()
    monkeypatch.chdir(tmp_path)
    done = m2sd("increment", "--session", 3, "--shots", "shots", "--run", trained, *CPU)
    assert (done.code, done.out) == (3, "")
    shown = printable(name)
    assert shown.isprintable()
    why = "an empty file, of 0 bytes; copy it again"
    assert done.err == f"m2sd: shots/{shown}/{shown}.png: {why}; --skip-bad leaves it out\n"


def test_thousands_of_classes_are_taught_in_one_session(
    m2sd: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    for number in range(3000):
        (tmp_path / "shots" / f"class {number:04d}").mkdir(parents=True)
        (tmp_path / "shots" / f"class {number:04d}" / "1.png").write_bytes(content.getvalue())
    opened = 0

    def count(path: Path) -> Image.Image:
        nonlocal opened
        opened += 1
        return open_rgb(path)

    monkeypatch.setattr("m2sd_cli.data.sources.open_rgb", count)
    found = document(m2sd("increment", "--session", 3, "--shots", tmp_path / "shots", "--run", run, *CPU, "--json"))
    assert found["classes_so_far"] == 3007
    assert opened == 3000
    last = RunFolder(run).read("session-003").manifest.classes[-1]
    assert (last.index, last.name, last.shots) == (3006, "class 2999", 1)


def test_the_same_class_in_another_form_or_case_is_not_taught_again(
    m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path
) -> None:
    def teach(session: int, name: str) -> Outcome:
        shots = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(stripes.labelled / "orange", shots / name)
        return m2sd("increment", "--session", session, "--shots", shots, "--run", run, *CPU)

    assert teach(3, "cafe\u0301").code == 0
    assert RunFolder(run).read("session-003").manifest.classes[0].name == "caf\u00e9"
    before = tree(run)
    for name, says in (
        ("caf\u00e9", "class 'caf\u00e9' exists already, since session 3"),
        ("cafe\u0301", "class 'caf\u00e9' exists already, since session 3"),
        (
            "CAFE\u0301",
            "the classes 'CAF\u00c9' and 'caf\u00e9' differ only by case or spaces, and 'caf\u00e9' exists since",
        ),
        ("red ", "the classes 'red ' and 'red' differ only by case or spaces, and 'red' exists since session 0"),
        ("Red", "the classes 'Red' and 'red' differ only by case or spaces, and 'red' exists since session 0"),
    ):
        done = teach(4, name)
        check_refusal(done, 4, says)
        assert "--extend adds these shots to its own" in done.err
    assert tree(run) == before


def test_test_images_find_their_class_in_whatever_form_its_name_is(
    m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stripes.labelled / "orange", tmp_path / "shots" / "caf\u00e9")
    shutil.copytree(stripes.labelled / "orange", tmp_path / "test" / "cafe\u0301")
    with monkeypatch.context() as patch:  # as a data set of another package may name it
        patch.setattr("m2sd_cli.data.layout.class_name", lambda name: name)
        for session, name in ((3, "caf\u00e9"), (4, "\u212bngstrom")):
            shots = tmp_path / f"session {session}"
            shutil.copytree(stripes.labelled / "orange", shots / name)
            assert m2sd("increment", "--session", session, "--shots", shots, "--run", run, *CPU).code == 0
    shutil.copytree(stripes.labelled / "orange", tmp_path / "test" / "A\u030angstrom")
    found = document(m2sd("evaluate", "--test", tmp_path / "test", "--run", run, *CPU, "--json"))
    assert found["unknown_classes"] == []
    assert found["sessions"][-1]["images"] == 4


def test_a_run_whose_classes_are_named_in_another_form_is_still_distilled(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(stripes.labelled / "red", photos / "cafe\u0301")
    shutil.copytree(stripes.labelled / "blue", photos / "z")
    with monkeypatch.context() as patch:  # as a data set of another package may name it
        patch.setattr("m2sd_cli.data.layout.class_name", lambda name: name)
        assert m2sd("pretrain", "--data", photos, "--run", tmp_path / "run", *QUICK).code == 0
    assert RunFolder(tmp_path / "run").pretrain().manifest.classes[0].name == "cafe\u0301"
    done = m2sd("distill", "--data", photos, "--run", tmp_path / "run", *CPU, "--epochs", 0)
    assert done.code == 0, done.err
