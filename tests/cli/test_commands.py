"""The output of every command, its refusals and its promises."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock
from PIL import Image

import m2sd_cli
from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.cli.options import seconds
from m2sd_cli.cli.output import duration, printable
from m2sd_cli.data.cache import as_size
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.check import Summary
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.locate import open_data
from m2sd_cli.errors import DamagedError, DataError, RunError, StoppedError, UsageError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.loop import Training
from tests.benchmark.small import skip_slow_parts
from tests.helpers import Cli, Outcome, Stripes, check_refusal, train_on_less, tree

CPU = ["--device", "cpu"]


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        yield from walk(each, (*words, name))


BUILT = {words: command for name in COMMANDS for words, command in walk(build_command(name), (name,))}


def test_the_commands_are_those_of_the_manual() -> None:
    wanted = {"pretrain", "distill", "increment", "evaluate", "export", "predict"}
    wanted |= {"sessions", "data", "recipes", "demo", "bench", "ablation"}
    assert wanted <= {words[0] for words in BUILT if len(words) == 1}
    assert {words[1] for words in BUILT if words[:1] == ("sessions",) and len(words) == 2} >= {
        "list",
        "show",
        "verify",
        "reproduce",
        "undo",
    }


@pytest.mark.parametrize("words", list(BUILT), ids=" ".join)
def test_every_help_has_a_worked_example(m2sd: Cli, words: tuple[str, ...]) -> None:
    for option in ("--help", "-h"):
        done = m2sd(*words, option)
        assert (done.code, done.err) == (0, "")
        written = [line for line in BUILT[words].callback.__doc__.split("\n") if line.startswith("      m2sd ")]
        assert written
        assert all(f"\n{line.removeprefix('  ')}\n" in done.out for line in written)
        assert max(map(len, done.out.split("\n"))) < 80


@pytest.mark.parametrize("words", list(BUILT), ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    for parameter in BUILT[words].params:
        assert parameter.help or parameter.hidden, parameter.name


def test_the_first_help_names_every_command_and_the_demo(m2sd: Cli) -> None:
    done = m2sd("--help")
    assert done.code == 0
    assert all(f"\n  {words[0]} " in done.out for words in BUILT if len(words) == 1)
    assert "m2sd demo" in " ".join(done.out.split())
    assert m2sd("--version").out.strip() == m2sd_cli.__version__


# ---- refusals: a code, one line on stderr, nothing on stdout, nothing changed on disk


@pytest.fixture
def places(stripes: Stripes, simulated: Path, tmp_path: Path) -> dict[str, str]:
    """The paths for which the words of a command stand."""
    work = tmp_path / "work"
    (work / "empty").mkdir(parents=True)
    (work / "known" / "red").mkdir(parents=True)
    image = next((stripes.labelled / "red").iterdir())
    shutil.copy(image, work / "known" / "red")
    (work / "strangers" / "orange").mkdir(parents=True)
    shutil.copy(image, work / "strangers" / "orange")
    shutil.copytree(stripes.first_shots, work / "broken")
    shutil.copytree(work / "strangers", work / "broken", dirs_exist_ok=True)
    (work / "broken" / "white" / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    return {
        "RUN": str(tmp_path / "run"),
        "NONE": str(work / "none"),
        "SIMULATED": str(simulated),
        "FOLDER": str(stripes.folder),
        "SHOTS": str(stripes.second_shots),
        "1=FIRST": f"1={stripes.first_shots}",
        "2=SECOND": f"2={stripes.second_shots}",
        "NEW": str(work / "strangers"),
        "IMAGE": str(image),
        "KNOWN": str(work / "known"),
        "EMPTY": str(work / "empty"),
        "BROKEN": str(work / "broken"),
        "ABSENT": str(work / "absent"),
        "WORK": str(work),
    }


def fill(places: dict[str, str], words: str) -> list[str]:
    filled = []
    for word in words.split():
        first, slash, rest = word.partition("/")
        filled.append(places.get(first, first) + slash + rest)
    return filled


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("increment --session 4 --shots NEW --run RUN", 4, "session 4 needs session 3; the next one is 3"),
        ("increment --session 2 --shots NEW --run RUN", 4, "session 2 exists already; the next one is session 3"),
        ("increment --session 0 --shots NEW --run RUN", 2, "session 0 is made by 'm2sd distill'"),
        ("increment --session 3 --shots KNOWN --run RUN", 4, "class 'red' exists already, since session 0"),
        ("increment --session 3 --shots SHOTS --run RUN", 4, "class 'grey' exists already, since session 2"),
        ("increment --session 3 --shots ABSENT --run RUN", 3, "absent: no such folder"),
        ("increment --session 3 --shots EMPTY --run RUN", 3, "empty: no class in it"),
        ("increment --session 3 --run RUN", 2, "name the new images with --shots DIR"),
        ("increment --session 3 --data imagenet --run RUN", 2, "imagenet"),
        ("increment --session 3 --data demo --run RUN", 4, "demo has no session 3 of its own, its last is 2"),
        ("increment --session 3 --data cub200 --data-root EMPTY --run RUN", 3, "no CUB_200_2011"),
        ("pretrain --data FOLDER --run RUN", 4, "a finished pretrain is in it; --force"),
        ("distill --data FOLDER --run RUN", 4, "session 2 is in it; --force"),
        ("distill --data KNOWN --run RUN --force --yes", 4, "pretrained on other images"),
        ("distill --data FOLDER --run RUN --force --yes --temperature 0", 2, "--temperature 0"),
        ("distill --data FOLDER --run RUN --force --yes --kd-weight -1", 2, "--kd-weight -1"),
        ("distill --data demo --run RUN --force --yes", 2, "this run is of the folder"),
        ("evaluate --session 9 --test SHOTS --run RUN", 4, "no session 9 in it; the newest is session 2"),
        ("evaluate --session last --run RUN", 2, "all, or the number of one session"),
        ("evaluate --test ABSENT --run RUN", 3, "absent: no such folder"),
        (
            "evaluate --test SHOTS --data FOLDER --run RUN",
            2,
            "--test and --data: that is for the run's own test images",
        ),
        ("evaluate --test NEW --run RUN", 3, "no test image of a class that the model knows"),
        ("evaluate --test SHOTS --confusion ABSENT/c.csv --run RUN", 2, "no such folder as"),
        ("evaluate --test SHOTS --run RUN --device gpu", 2, "--device gpu: choose"),
        ("evaluate --test SHOTS --run RUN --precision half", 2, "--precision half: choose"),
        ("predict ABSENT --run RUN", 3, "absent: no such file or folder"),
        ("predict EMPTY --run RUN", 3, "empty: no image in it"),
        ("predict IMAGE --top-k 0 --run RUN", 2, "--top-k 0"),
        ("predict IMAGE --session 3 --run RUN", 4, "no session 3 in it"),
        ("predict IMAGE --session -1 --run RUN", 4, "no session -1 in it"),
        ("export --format gif --out WORK/x.gif --run RUN", 2, "--format gif: choose safetensors, onnx, pt2"),
        ("export --out WORK/x.bin --run RUN", 2, "its suffix names no format; choose one with --format: safetensors"),
        ("export --format pt2 --out WORK/x.onnx --run RUN", 2, "the suffix is that of onnx; leave --format out"),
        ("export --format pt2 --out ABSENT/x.pt2 --run RUN", 2, "no such folder as"),
        ("export --format pt2 --out IMAGE --run RUN", 2, "it exists already; --force replaces it"),
        ("export --format pt2 --out WORK/x.pt2 --session 3 --run RUN", 4, "no session 3 in it"),
        ("sessions show 3 --run RUN", 4, "no session 3 in it"),
        ("data verify ABSENT", 3, "absent"),
        ("demo --run RUN", 2, "it exists already"),
    ],
)
def test_a_refusal_on_a_finished_run(
    m2sd: Cli, run: Path, places: dict[str, str], command: str, code: int, says: str
) -> None:
    work = Path(places["WORK"])
    before, around = tree(run), tree(work)
    check_refusal(m2sd(*fill(places, command)), code, says)
    assert tree(run) == before
    assert tree(work) == around


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (
            "pretrain --run NONE",
            2,
            f"name the images with --data: {', '.join(DATA_SETS.names())}, one of these with -simulated",
        ),
        ("pretrain --data imagenet --run NONE", 2, "--data imagenet: no data set of that name"),
        ("pretrain --data ABSENT --run NONE", 3, "absent"),
        ("pretrain --data EMPTY --run NONE", 3, "empty: no class in it"),
        ("pretrain --data KNOWN --run NONE", 3, "1 base class; at least two are needed, a folder each"),
        ("pretrain --data BROKEN --run NONE --image-size 16", 3, "bad.jpg"),
        ("pretrain --data cub200 --data-root EMPTY --run NONE", 3, "no CUB_200_2011"),
        ("pretrain --data demo --image-size 32 --run NONE", 2, "--image-size is for folders"),
        ("pretrain --data FOLDER --backbone vgg --run NONE", 2, "--backbone vgg"),
        ("pretrain --data FOLDER --similarity svm --run NONE", 2, "--similarity svm"),
        ("pretrain --data FOLDER --epochs 0 --run NONE", 2, "--epochs 0"),
        ("pretrain --data FOLDER --image-size 4 --run NONE", 2, "--image-size 4"),
        ("pretrain --data FOLDER --config ABSENT --run NONE", 2, "--config"),
        ("pretrain --data FOLDER --stop-after soon --run NONE", 2, "--stop-after soon: write 90s, 9m or 2h"),
        ("pretrain --data FOLDER --init ABSENT --run NONE", 3, "no such file"),
        ("pretrain --data FOLDER --device cuda:x --run NONE", 2, "--device cuda:x: choose"),
        ("pretrain --data FOLDER --precision fp16 --run NONE", 2, "--precision fp16: choose"),
        ("pretrain --data FOLDER --resume --run NONE", 4, "no interrupted training in it"),
        ("distill --run NONE", 4, "no finished pretrain in it; run 'm2sd pretrain' first"),
        ("distill --resume --run NONE", 4, "no finished pretrain in it"),
        ("distill --force --yes --data FOLDER --run EMPTY", 4, "no finished pretrain in it"),
        ("increment --session 1 --shots NEW --run NONE", 4, "no such run folder"),
        ("increment --session 1 --run EMPTY", 4, "no trained model in it"),
        ("evaluate --run NONE", 4, "no such run folder"),
        ("predict IMAGE --run NONE", 4, "no such run folder"),
        ("export --format onnx --out WORK/x.onnx --run NONE", 4, "no such run folder"),
        ("sessions --run NONE", 4, "no such run folder"),
        ("sessions list --run NONE", 4, "no such run folder"),
        ("sessions show 0 --run NONE", 4, "no such run folder"),
        ("sessions verify --run NONE", 4, "no such run folder"),
        ("sessions undo --run NONE", 4, "no such run folder"),
        ("sessions repair --run NONE", 4, "no such run folder"),
        ("sessions undo --yes --run EMPTY", 4, "no session in it"),
    ],
)
def test_a_refusal_makes_no_run(m2sd: Cli, places: dict[str, str], command: str, code: int, says: str) -> None:
    work = Path(places["WORK"])
    before = tree(work)
    check_refusal(m2sd(*fill(places, command)), code, says)
    assert tree(work) == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "increment --session 1 --shots NEW --run RUN",
            "no session in it yet; run 'm2sd distill' first",
        ),
        ("evaluate --test SHOTS --run RUN", "run 'm2sd distill' first"),
        ("predict IMAGE --run RUN", "run 'm2sd distill' first"),
        ("sessions undo --yes --run RUN", "no session in it"),
        ("distill --resume --data FOLDER --run RUN", "no interrupted training in it"),
    ],
)
def test_a_refusal_before_distill(m2sd: Cli, pretrained: Path, places: dict[str, str], command: str, says: str) -> None:
    before = tree(pretrained)
    check_refusal(m2sd(*fill(places, command)), 4, says)
    assert tree(pretrained) == before


def test_session_3_does_not_follow_session_1(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    RunFolder(run).remove_sessions(first=2)
    before = tree(run)
    done = m2sd("increment", "--session", 3, "--shots", stripes.second_shots, "--run", run)
    check_refusal(done, 4, "session 3 needs session 2; the next one is 2")
    assert tree(run) == before


def test_without_a_number_the_next_session_is_taught(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    RunFolder(run).remove_sessions(first=2)
    done = m2sd("increment", "--shots", stripes.second_shots, "--run", run, *CPU)
    assert (done.code, RunFolder(run).sessions()) == (0, [0, 1, 2])
    assert "session 2: learned grey (4); 7 classes now" in done.err


def test_a_broken_shot_is_named(m2sd: Cli, run: Path, places: dict[str, str]) -> None:
    RunFolder(run).remove_sessions(first=1)
    before = tree(run)
    done = m2sd("increment", "--session", 1, "--shots", places["BROKEN"], "--run", run)
    check_refusal(done, 3, f"{places['BROKEN']}/white/bad.jpg: ")
    assert tree(run) == before


USERS_OF_THE_CHAIN = [
    "increment --session 3 --shots NEW --run RUN",
    "evaluate --test SHOTS --run RUN",
    "predict IMAGE --run RUN",
    "export --format pt2 --out WORK/x.pt2 --run RUN",
    "sessions verify --run RUN",
]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        *((file, each) for file in ("session-000.json", "session-000.safetensors") for each in USERS_OF_THE_CHAIN),
        ("session-000.json", "sessions --run RUN"),  # the list reads manifests only
    ],
)
def test_a_damaged_chain_is_not_used(m2sd: Cli, run: Path, places: dict[str, str], command: str, file: str) -> None:
    (run / file).write_bytes((run / file).read_bytes()[:-20])
    before = tree(run)
    check_refusal(m2sd(*fill(places, command)), 4, f"{run / file}: ")
    assert tree(run) == before


def test_a_damaged_pretrain_is_not_distilled(m2sd: Cli, pretrained: Path, stripes: Stripes) -> None:
    path = pretrained / "pretrain.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    before = tree(pretrained)
    done = m2sd("distill", "--data", stripes.folder, "--run", pretrained)
    check_refusal(done, 4, "pretrain.safetensors: damaged, its SHA-256 is not the recorded one; restore it")
    assert tree(pretrained) == before


@pytest.mark.parametrize(
    "command",
    [
        "increment --session 3 --shots NEW --run RUN",
        "distill --data FOLDER --force --yes --run RUN",
        "pretrain --data FOLDER --force --yes --run RUN",
        "sessions undo --yes --run RUN",
    ],
)
def test_a_locked_run_is_not_written_to(m2sd: Cli, run: Path, places: dict[str, str], command: str) -> None:
    before = tree(run)
    with FileLock(run / ".lock"):
        check_refusal(m2sd(*fill(places, command)), 4, "another m2sd command is writing to it")
    assert tree(run) == before


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "pretrain --no-such-option",
        "increment --session one",
        "pretrain --epochs many",
    ],
)
def test_wrong_usage_prints_nothing_to_stdout(m2sd: Cli, command: str) -> None:
    done = m2sd(*command.split())
    assert done.code == 2
    if command:  # without a command there is help
        check_refusal(done, 2)


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("export", "--out (The file or folder to write)"),
        ("export --format onnx", "--out (The file or folder to write)"),
        ("predict", "IMAGES (Photos or folders of photos; - reads their names from stdin)"),
        ("sessions forget", "CLASS (Name of the class)"),
        ("sessions replay", "--from (Run folder whose sessions to teach)"),
    ],
)
def test_a_missing_word_is_named_in_one_line(m2sd: Cli, command: str, needs: str) -> None:
    name = command.partition(" --")[0]
    check_refusal(m2sd(*command.split()), 2, f"m2sd: {name} needs {needs}; 'm2sd {name} -h' shows examples\n")
    assert m2sd(*command.split(), "-h").code == 0


def test_debug_shows_where_an_error_comes_from(m2sd: Cli, tmp_path: Path) -> None:
    shown = m2sd("--debug", "sessions", "--run", tmp_path / "none")
    plain = m2sd("sessions", "--run", tmp_path / "none")
    assert (shown.code, plain.code) == (4, 4)
    assert shown.err.startswith("Traceback")
    assert "Traceback" not in plain.err


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (DataError, 3), (RunError, 4), (DamagedError, 4), (KeyboardInterrupt, 130)],
)
def test_exit_codes(m2sd: Cli, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int) -> None:
    def fail(**_: object) -> NoReturn:
        raise error("what was wrong")

    monkeypatch.setattr("m2sd_cli.evaluate", fail)
    done = m2sd("evaluate")
    assert done.code == code
    assert done.out == ""
    assert "Traceback" not in done.err


def test_a_reader_that_leaves_is_no_error() -> None:
    program = "from m2sd_cli.cli.app import main; main()"
    command = [sys.executable, "-c", program, "data", "list"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


# ---- what they print


def one_document(done: Outcome, code: int = 0) -> dict[str, Any]:
    assert done.code == code, done.err
    found: dict[str, Any] = json.loads(done.out)
    assert isinstance(found, dict)
    return found


JSON = {
    "pretrain": "--data FOLDER --run NONE --image-size 16 --backbone resnet20 --epochs 1 --batch-size 16",
    "distill": "--data FOLDER --run RUN --force --yes --epochs 1 --batch-size 16 --learning-rate 0.02",
    "increment": "--shots NEW --run RUN",
    "evaluate": "--test SHOTS --run RUN",
    "study": "RUN --test SHOTS",
    "features": "--out WORK/features.safetensors --run RUN",
    "predict": "IMAGE --run RUN",
    "export": "--out WORK/x.safetensors --run RUN",
    "sessions": "--run RUN",
    "sessions list": "--run RUN",
    "sessions verify": "--run RUN",
    "sessions reproduce": "--run RUN --data FOLDER --shots 1=FIRST --shots 2=SECOND",
    "data": "",
    "data list": "",
    "data verify": "FOLDER",
    "config": "",
    "config show": "",
    "recipes": "",
    "recipes list": "",
    "simulate": "--run SIMULATED --draws 2",
    "ablation": "--data demo --rows plain --seeds 1 --stop-after 0s --device cpu --out WORK/ablation",
    "doctor": "--run RUN",
    "bench": "--image-size 8 --batch-size 4 --classes 3 --backbone resnet20 --seconds 0.1 --rounds 1",
}
KEYS = {
    "pretrain": {"stage", "finished", "run", "manifest", "classes", "epochs", "loss", "seconds", "device", "precision"},
    "increment": {"session", "manifest", "classes", "classes_so_far", "classifier", "views", "seconds"},
    "evaluate": {
        "sessions",
        "average",
        "average_harmonic",
        "drop",
        "classifier",
        "temperature",
        "calibrated",
        "unknown_told",
        "untested_classes",
        "unknown_classes",
        "skipped",
    },
    "study": {"runs", "sessions", "classes", "average", "average_harmonic", "drop", "deviation", "differences"},
    "features": {"file", "part", "images", "width"},
    "predict": {"predictions", "skipped"},
    "export": {"file", "format", "bytes"},
    "sessions": {"sessions"},
    "sessions verify": {"sound", "problems"},
    "sessions reproduce": {"same", "stages", "circumstances"},
    "data": {"data_sets", "cache"},
    "config": {"data", "recipe", "pretrain", "distill"},
    "recipes": {"recipes"},
    "simulate": {"data", "sizes", "parts", "playing", "shots", "views", "skipped", "classifiers"},
    "ablation": {"out", "baseline", "budget", "finished", "rows", "runs"},
    "doctor": {"works", "problems", "remarks", "findings"},
    "bench": {
        "conditions",
        "versions",
        "device_name",
        "cores",
        "threads",
        "throughput",
        "distill_to_pretrain_step_time_ratio",
        "pretrain_to_reference_throughput_ratio",
        "durations",
        "processes",
    },
    "data verify": {each.name for each in dataclasses.fields(Summary)},
}


def test_every_command_with_json_is_tested() -> None:
    # Two need more than a run: a pretrained network, or another run. See tests/api/test_learn.py and test_replay.py.
    have = {" ".join(words) for words, each in BUILT.items() if "json" in {p.name for p in each.params}}
    assert have == JSON.keys() | {"learn", "sessions replay"}


@pytest.mark.parametrize("command", JSON)
def test_json_is_one_document(
    m2sd: Cli, run: Path, places: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_slow_parts(monkeypatch)
    device = CPU if command in ("pretrain", "distill", "increment", "evaluate", "predict") else []
    code = StoppedError.exit_code if "--stop-after 0s" in JSON[command] else 0
    found = one_document(m2sd(*command.split(), *fill(places, JSON[command]), *device, "--json"), code)
    wanted = KEYS.get(command) or KEYS["pretrain" if command == "distill" else command.split()[0]]
    assert found.keys() == wanted
    assert str(RunFolder(run).path) == places["RUN"]


def test_pretrain_and_distill_say_what_comes_next(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    options = ["--run", tmp_path / "run", "--data", stripes.folder, *CPU, "--precision", "fp32", "--batch-size", 8]
    first = m2sd("pretrain", *options, "--image-size", 16, "--backbone", "resnet20", "--epochs", 1)
    assert (first.code, first.out) == (0, "")
    lines = first.err.splitlines()
    assert lines[0].startswith("pretrain: epoch 1/1, loss ")
    assert "accuracy" in lines[0]
    assert "images/s" in lines[0]
    assert lines[1].startswith("pretrain: 4 base classes of colours, 1 epoch in ")
    assert lines[2].startswith("next: m2sd distill")
    second = m2sd("distill", *options, "--epochs", 0)
    assert (second.code, second.out) == (0, "")
    assert "no training" in second.err
    assert "next: m2sd evaluate" in second.err
    third = m2sd("increment", "--session", 1, "--shots", stripes.first_shots, "--run", tmp_path / "run", *CPU)
    assert (third.code, third.out) == (0, "")
    assert third.err.startswith("session 1: learned purple (3), white (2); 6 classes now\n")
    quiet = m2sd("increment", "--session", 2, "--shots", stripes.second_shots, "--run", tmp_path / "run", *CPU, "-q")
    assert quiet == type(quiet)(0, "", "")
    assert RunFolder(tmp_path / "run").sessions() == [0, 1, 2]


def test_a_training_that_runs_out_of_time_can_be_resumed(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    options = ["--data", stripes.folder, "--run", tmp_path / "run", *CPU, "--precision", "fp32"]
    small = ["--image-size", 16, "--backbone", "resnet20", "--epochs", 2, "--batch-size", 16]
    first = m2sd("pretrain", *options, *small, "--stop-after", "0s", "--json")
    assert first.code == StoppedError.exit_code
    assert json.loads(first.out) == {"stage": "pretrain", "finished": False, "run": str(tmp_path / "run")}
    again = m2sd("pretrain", *options, *small, "--stop-after", "0s")
    check_refusal(again, 4, "an interrupted pretrain is in it; go on with 'm2sd pretrain --resume'")
    changed = m2sd("pretrain", *options, "--resume", "--epochs", 3)
    check_refusal(changed, 2, "--epochs 3: the training began with 2; leave it out, or start over with --force")
    stopped_again = m2sd("pretrain", *options, "--resume", "--stop-after", "0s")
    assert stopped_again.code == StoppedError.exit_code
    assert "--resume" in stopped_again.err
    assert one_document(m2sd("pretrain", *options, "--resume", "--json"))["finished"] is True
    assert not (tmp_path / "run" / "training").exists()


@pytest.mark.usefixtures("signals_as_at_a_terminal")
def test_a_training_that_started_over_is_resumed_without_force(
    m2sd: Cli, run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pretrain", "--data", stripes.folder, "--run", run, *CPU, "--precision", "fp32"]
    small = ["--image-size", 16, "--backbone", "resnet20", "--epochs", 1, "--batch-size", 16]
    stopped = m2sd(*words, *small, "--force", "--yes", "--stop-after", "0s")
    assert (stopped.code, stopped.err.splitlines()[-1]) == (
        StoppedError.exit_code,
        "m2sd: pretrain: time is up; saved. Go on with the same command and --resume, or with --requeue, but without "
        "--force",
    )
    step = Training._step

    def interrupted_step(training: Training, sums: Any) -> None:
        step(training, sums)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_step", interrupted_step)
        interrupted = m2sd(*words, *small, "--force", "--yes")
    assert (interrupted.code, interrupted.err.splitlines()[-1]) == (
        130,
        "m2sd: interrupted and saved; go on with the same command and --resume, but without --force",
    )
    assert m2sd(*words, *small, "--resume").code == 0


def test_the_place_of_the_run_can_come_from_the_environment(
    m2sd: Cli, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2SD_RUN", str(run))
    assert len(one_document(m2sd("sessions", "--json"))["sessions"]) == 3
    monkeypatch.delenv("M2SD_RUN")
    assert m2sd("sessions").code == 4
    run.rename(tmp_path / "m2sd-run")
    assert len(one_document(m2sd("sessions", "--json"))["sessions"]) == 3


@pytest.mark.parametrize("held_out", [False, True])
def test_the_table_of_evaluate_says_what_its_json_says(
    m2sd: Cli, trained: Path, calibrated: Path, stripes: Stripes, held_out: bool
) -> None:
    command = ["evaluate", "--test", stripes.labelled, "--run", calibrated if held_out else trained, *CPU]
    data, shown = one_document(m2sd(*command, "--json")), m2sd(*command)
    header, *rows, summary = shown.out.splitlines()
    columns = ["session", "classes", "images", "overall", "base", "novel", "HM", "ECE", "AUROC", "FPR95"]
    assert header.split() == columns
    assert max(map(len, (header, *rows))) <= 100

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    fields = ("overall", "base", "novel", "harmonic", "ece", "auroc", "fpr95")
    assert data["calibrated"] == held_out
    assert (data["temperature"] == 1) == (not held_out)
    assert ("no base images were held out" in shown.err) == (not held_out)
    for each in data["sessions"]:
        assert [each[name] is None for name in fields[4:]] == [not held_out] * 3
    assert [row.split() for row in rows] == [
        [str(each[name]) for name in ("session", "classes", "images")] + [figure(each[name]) for name in fields]
        for each in data["sessions"]
    ]
    ahm = figure(data["average_harmonic"])
    assert summary.split() == ["AVG", figure(data["average"]), "AHM", ahm, "PD", figure(data["drop"])]
    assert [each["classes"] for each in data["sessions"]] == [4, 6, 7]
    overall = [each["overall"] for each in data["sessions"]]
    assert data["average"] == pytest.approx(sum(overall) / 3)
    assert data["drop"] == pytest.approx(overall[0] - overall[-1])
    assert data["sessions"][0]["novel"] is None


def test_data_shows_the_decoded_images_and_clears_them(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "decoded"
    monkeypatch.setenv("M2SD_CACHE", str(place))
    assert m2sd("data").out.splitlines()[-1] == f"decoded images: 0 B in {place} (entries: 0)"
    data = open_data(str(stripes.folder), image_size=16)
    data.train.for_training(data.augmentation)
    files = [path for path in place.rglob("*") if path.is_file()]
    taken = sum(path.stat().st_size for path in files)
    images = len(data.train)
    assert one_document(m2sd("data", "--json"))["cache"] == {
        "place": str(place),
        "bytes": taken,
        "entries": [{"use": "training", "images": images, "side": data.augmentation.store, "bytes": taken}],
    }
    assert m2sd("data").out.splitlines()[-1] == f"decoded images: {as_size(taken)} in {place} (entries: 1)"
    cleared = m2sd("data", "clear")
    assert (cleared.code, cleared.out) == (0, "")
    assert cleared.err == f"decoded images: {as_size(taken)} freed in {place} (entries removed: 1)\n"
    assert one_document(m2sd("data", "--json"))["cache"] == {"place": str(place), "bytes": 0, "entries": []}
    assert m2sd("data", "clear", "-q").err == ""


def test_evaluate_names_what_it_leaves_out(m2sd: Cli, trained: Path, stripes: Stripes) -> None:
    command = ["evaluate", "--test", stripes.labelled, "--run", trained, *CPU]
    shown = m2sd(*command)
    assert "without test images, left out: white; none of them in --test DIR\n" in shown.err
    assert "test images of classes not taught, left out: orange\n" in shown.err
    data = one_document(m2sd(*command, "--json"))
    assert (data["untested_classes"], data["unknown_classes"]) == (["white"], ["orange"])
    assert data["sessions"][-1]["images"] == 12  # six classes of two
    assert m2sd(*command, "-q").err == ""


def test_evaluate_takes_the_test_images_of_the_folder(m2sd: Cli, trained: Path, stripes: Stripes) -> None:
    done = m2sd("evaluate", "--data", stripes.folder, "--run", trained, *CPU)
    assert done.code == 0
    assert done.out.splitlines()[1].split()[:3] == ["0", "4", "12"]
    assert "left out: purple, white, grey" in done.err


def test_one_session_is_one_row(m2sd: Cli, trained: Path, stripes: Stripes) -> None:
    command = ["evaluate", "--test", stripes.labelled, "--run", trained, *CPU]
    whole = m2sd(*command).out.splitlines()
    alone = m2sd(*command, "--session", 1).out.splitlines()  # whose columns may be narrower
    assert [line.split() for line in alone] == [whole[0].split(), whole[2].split()]
    data = one_document(m2sd(*command, "--session", 1, "--json"))
    assert [each["session"] for each in data["sessions"]] == [1]
    assert m2sd(*command, "--session", "all").out.splitlines() == whole


def test_the_confusion_matrix_counts_every_known_image(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path
) -> None:
    path = tmp_path / "confusion.csv"
    done = m2sd("evaluate", "--test", stripes.labelled, "--run", trained, "--confusion", path, *CPU)
    assert done.code == 0
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    names = ["blue", "green", "red", "yellow", "purple", "white", "grey"]
    assert header[1:] == names
    assert [row[0] for row in rows] == names
    counts = [[int(cell) for cell in row[1:]] for row in rows]
    assert [sum(row) for row in counts] == [2, 2, 2, 2, 2, 0, 2]
    right = sum(counts[number][number] for number in range(7))
    assert float(done.out.splitlines()[3].split()[3]) == pytest.approx(100 * right / 12, abs=0.01)


def test_predict_prints_a_line_an_image(m2sd: Cli, trained: Path, stripes: Stripes) -> None:
    command = ["predict", stripes.second_shots, "--run", trained, *CPU, "--top-k", 2]
    done = m2sd(*command)
    assert done.code == 0
    assert done.err.startswith("probabilities are not calibrated, no photo is called unknown: ")
    assert done.err.count("\n") == 1
    lines = done.out.splitlines()
    assert len(lines) == 4
    data = one_document(m2sd(*command, "--json"))["predictions"]
    for line, each in zip(lines, data, strict=True):
        assert len(each["classes"]) == 2
        guesses = ", ".join(f"{guess['name']} {100 * guess['probability']:.1f} %" for guess in each["classes"])
        assert line == f"{each['image']}: {guesses}"
        assert each["classes"][0].keys() == {"name", "probability", "similarity"}
        assert (each["unknown"], each["calibrated"]) == (False, False)
    base = one_document(m2sd(*command, "--json", "--session", 0))["predictions"]
    assert not {guess["name"] for each in base for guess in each["classes"]} & {"purple", "white", "grey"}


def test_sessions_are_listed_and_shown(m2sd: Cli, trained: Path) -> None:
    listed = m2sd("sessions", "--run", trained)
    assert listed.out == m2sd("sessions", "list", "--run", trained).out
    header, *rows = listed.out.splitlines()
    assert header.split()[:3] == ["session", "kind", "classes"]
    assert [row.split()[1:4] for row in rows] == [["base", "4", "32"], ["increment", "2", "5"], ["increment", "1", "4"]]
    assert rows[1].endswith("purple, white")
    data = one_document(m2sd("sessions", "--run", trained, "--json"))["sessions"]
    assert [each["classes_so_far"] for each in data] == [4, 6, 7]
    assert [each["shots"] for each in data] == [32, 5, 4]
    for number in range(3):
        manifest = one_document(m2sd("sessions", "show", number, "--run", trained))
        assert manifest == json.loads((trained / f"session-00{number}.json").read_text())
    schema = one_document(m2sd("sessions", "schema"))
    assert schema["title"] == "Manifest"


def test_sessions_verify_names_what_is_damaged(m2sd: Cli, run: Path) -> None:
    sound = m2sd("sessions", "verify", "--run", run)
    assert (sound.code, sound.out) == (0, f"{run}: every file is what it was when it was written\n")
    assert one_document(m2sd("sessions", "verify", "--run", run, "--json")) == {"sound": True, "problems": []}
    damaged = [run / "session-000.safetensors", run / "session-001.safetensors"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    done = m2sd("sessions", "verify", "--run", run)
    assert (done.code, done.out) == (4, "")
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert all(f"{path}: damaged" in line for path, line in zip(damaged, lines, strict=True))
    report = m2sd("sessions", "verify", "--run", run, "--json")
    assert report.code == 4
    assert json.loads(report.out)["sound"] is False
    assert len(json.loads(report.out)["problems"]) == 2


def test_undo_asks_before_it_removes(m2sd: Cli, run: Path) -> None:
    before = tree(run)
    for answer, code in (("n\n", 0), ("\n", 0), ("", 4)):
        done = m2sd("sessions", "undo", "--run", run, stdin=answer)
        assert (done.code, done.out.strip()) == (code, "")
        assert f"Remove session 2 of {run} for good?" in done.err
        assert ("nobody answered the question; --yes agrees" in done.err) == (not answer)
        assert tree(run) == before
    assert m2sd("sessions", "undo", "--run", run, stdin="y\n").code == 0
    assert RunFolder(run).sessions() == [0, 1]
    done = m2sd("sessions", "undo", "--run", run, "-y")
    assert (done.code, done.out, done.err) == (0, "", "removed session 1\n")
    gone = ("session-001", "session-002", "head.json")
    after = {name: content for name, content in tree(run).items() if name != "head.json"}
    assert after == {name: content for name, content in before.items() if not name.startswith(gone)}
    assert RunFolder(run).verify() == []


def test_undo_and_teach_again(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    before = (run / "session-002.safetensors").read_bytes()
    m2sd("sessions", "undo", "--yes", "--run", run)
    again = m2sd("increment", "--session", 2, "--shots", stripes.second_shots, "--run", run, *CPU)
    assert again.code == 0
    assert (run / "session-002.safetensors").read_bytes() == before


@pytest.mark.parametrize("command", ["sessions --run RUN undo --yes", "sessions --run RUN list", "data --json list"])
def test_an_option_before_the_subcommand_is_not_silently_dropped(
    m2sd: Cli, run: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    monkeypatch.setenv("M2SD_RUN", str(other))
    done = m2sd(*fill(places, command))
    check_refusal(done, 2, "after")
    assert tree(other) == tree(run)


def test_names_from_outside_cannot_steer_the_terminal(m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path) -> None:
    name = "evil\x1b[31m\u202e"
    shots = tmp_path / "shots"
    shutil.copytree(stripes.first_shots / "white", shots / name)
    taught = m2sd("increment", "--session", 3, "--shots", shots, "--run", run, *CPU)
    assert taught.code == 0
    said = [taught, m2sd("sessions", "--run", run), m2sd("predict", shots, "--run", run, *CPU, "--top-k", 9)]
    said.append(m2sd("evaluate", "--test", stripes.labelled, "--run", run, *CPU))
    said.append(m2sd("increment", "--session", 4, "--shots", shots, "--run", run, *CPU))
    assert any("evil" in each.out for each in said)
    assert any("evil" in each.err for each in said)
    for each in said:
        assert "\x1b" not in each.out + each.err
        assert "\u202e" not in each.out + each.err


def test_small_words() -> None:
    assert [seconds("--stop-after", each) for each in ("90s", "9m", "2h", "1.5h", "0s")] == [90, 540, 7200, 5400, 0]
    for wrong in ("", "9", "m", "-1s", "1d", "9 m", "1e3s", "nans"):
        with pytest.raises(UsageError, match=f"^--save-every {wrong}: write 90s, 9m or 2h$"):
            seconds("--save-every", wrong)
    assert [duration(each) for each in (0.4, 59.4, 60, 3599, 3600, 7380)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 00 min",
        "1 h 00 min",
        "2 h 03 min",
    ]
    assert printable("naïve 漢\n\x1b[0m") == "naïve 漢\\x0a\\x1b[0m"


# ---- the built-in demo


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs on a tenth of the base images."""
    train_on_less(monkeypatch, 10)
    monkeypatch.setitem(DATA_SETS["demo"].defaults, "total_epochs", 2)


@pytest.mark.usefixtures("short_demo")
def test_the_demo_tells_the_whole_story(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = m2sd("demo", *CPU)
    assert done.code == 0, done.err
    run = tmp_path / "m2sd-demo"
    header, *rows, summary = done.out.splitlines()
    assert header.split()[0] == "session"
    assert [row.split()[:2] for row in rows] == [["0", "6"], ["1", "8"], ["2", "10"]]
    assert summary.startswith("AVG ")
    position = -1
    story = [
        "1/5 pretrain: ",
        "2/5 distill: ",
        "3/5 increment: session 1",
        "3/5 increment: session 2",
        "4/5 evaluate: ",
    ]
    for words in (*story, "5/5 export: m2sd-demo/demo.safetensors", "\nnext: m2sd sessions --run m2sd-demo\n"):
        assert done.err.index(words) > position
        position = done.err.index(words)
    data = open_demo()
    for number in (1, 2):
        assert " and ".join(f"{name} (5 images)" for name in data.session(number).classes) in done.err
    for words in ("m2sd predict", "m2sd increment", "m2sd learn ./photos"):
        assert words in done.err[position:]
    assert RunFolder(run).verify() == []
    assert RunFolder(run).sessions() == [0, 1, 2]
    assert (run / "demo.safetensors").is_file()
    # What it says to type next works.
    Image.new("L", (40, 30)).save(tmp_path / "image.png")
    assert m2sd("sessions", "--run", "m2sd-demo").code == 0
    assert m2sd("predict", "image.png", "--run", "m2sd-demo", *CPU).code == 0
    check_refusal(m2sd("demo", *CPU), 2, "m2sd-demo: it exists already; remove it")


@pytest.mark.usefixtures("short_demo")
def test_the_demo_data_work_in_every_command(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert m2sd("pretrain", "--data", "demo", *CPU, "-q").code == 0
    assert m2sd("distill", "--epochs", 0, *CPU, "-q").code == 0
    for number in (1, 2):
        assert m2sd("increment", "--session", number, *CPU, "-q").code == 0
    check_refusal(m2sd("increment", "--session", 3, *CPU), 4, "demo has no session 3 of its own, its last is 2")
    check_refusal(m2sd("evaluate", "--data", "cifar100"), 2, "this run is of demo; leave --data out")
    figures = one_document(m2sd("evaluate", *CPU, "--json"))
    assert [each["classes"] for each in figures["sessions"]] == [6, 8, 10]
    assert figures["untested_classes"] == []
    base = RunFolder(tmp_path / "m2sd-run").chain()[1].manifest
    assert (base.data.name, base.data.kind, base.data.split) == ("demo", "built-in", "official")
    assert one_document(m2sd("data", "verify", "demo", "--json"))["sessions"] == 2
    assert os.listdir(tmp_path) == ["m2sd-run"]
