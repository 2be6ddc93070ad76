"""A chain run once more from its manifests: the same, or a message names the stage that differs, and why."""

import json
import shlex
import shutil
import signal
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

import m2sd_cli
import m2sd_cli.api.reproduce as reproduction
from m2sd_cli.api.recorded_commands import recorded_command
from m2sd_cli.api.reproduce import largest_difference
from m2sd_cli.errors import TrainingError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import PRETRAIN
from tests.helpers import (
    QUICK,
    QUICK_DISTILL,
    Cli,
    Stripes,
    backbone_weights,
    check_refusal,
    copy_base_session,
    sha256,
    train_on_less,
    tree,
)

COMMAND = ("sessions", "reproduce")


@pytest.fixture
def data(stripes: Stripes) -> list[object]:
    """List the options that name the data of the trained run."""
    shots = ["--shots", f"1={stripes.first_shots}", "--shots", f"2={stripes.second_shots}"]
    return ["--data", stripes.folder, *shots]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any training fail the test."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something was trained")

    for name in ("fit_pretrain", "fit_distill", "teach"):
        monkeypatch.setattr(reproduction, name, refuse)


def only_stage_1(run: Path) -> RunFolder:
    folder = RunFolder(run)
    folder.remove_sessions(first=0)
    return folder


def rewrite(folder: RunFolder, **changes: object) -> None:
    """Another manifest of stage 1, with hashes that fit."""
    manifest = folder.pretrain().manifest
    with folder.locked("test"):
        tensors = load_file(folder.path / "pretrain.safetensors")
        record = folder.write_checkpoint(PRETRAIN, tensors)
        folder.write_manifest(PRETRAIN, manifest.model_copy(update={"checkpoint": record, **changes}))


def test_the_same_chain_comes_out_and_the_run_is_only_read(
    m2sd: Cli, run: Path, data: list[object], tmp_path: Path
) -> None:
    before = tree(run)
    keep = tmp_path / "again"
    done = m2sd(*COMMAND, "--run", run, *data, "--keep", keep)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["stage", "recorded", "reproduced", "weights", "statistics"]
    assert [line[0] for line in lines[1:]] == ["pretrain", "session-000", "session-001", "session-002"]
    for stage, recorded, reproduced, weights, statistics in lines[1:]:
        assert recorded == reproduced == RunFolder(run).read(stage).manifest.checkpoint.sha256[:12]
        assert weights == statistics == "same"
    assert "pretrain: epoch 1/1, loss " in done.err
    assert "distill: epoch 1/1, loss " in done.err
    assert tree(run) == before
    assert RunFolder(keep).verify() == []
    again = tree(keep)
    assert again.keys() == before.keys() - {"places.json"}
    assert all(again[name] == before[name] for name in before if name.endswith(".safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "run"]


def test_up_to_a_session_only_its_data_are_needed(run: Path, stripes: Stripes) -> None:
    before = tree(run)
    done = m2sd_cli.reproduce(run=run, session=1, data=str(stripes.folder), shots={1: stripes.first_shots})
    assert done.same
    assert [each.name for each in done.stages] == ["pretrain", "session-000", "session-001"]
    only = m2sd_cli.reproduce(run=only_stage_1(run).path, data=str(stripes.folder))
    assert [each.name for each in only.stages] == ["pretrain"]
    assert only.same
    assert before.items() >= {name: each for name, each in tree(run).items() if name != "head.json"}.items()


@pytest.fixture
def other_seed(stripes: Stripes, tmp_path: Path) -> Path:
    """A run that says that its seed was 0; it was 1."""
    run = tmp_path / "other"
    m2sd_cli.pretrain(str(stripes.folder), run=run, seed=1, **QUICK)
    folder = RunFolder(run)
    rewrite(folder, config={**folder.pretrain().manifest.config, "seed": 0}, seed=0)
    m2sd_cli.distill(str(stripes.folder), run=run, **QUICK_DISTILL | {"epochs": 0})
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    assert folder.verify() == []
    return run


def test_weights_of_another_seed_are_found_out(m2sd: Cli, other_seed: Path, stripes: Stripes) -> None:
    before = tree(other_seed)
    words = ["--run", other_seed, "--data", stripes.folder, "--shots", f"1={stripes.first_shots}"]
    done = m2sd(*COMMAND, *words, "--quiet")
    assert done.code == 1
    assert done.err == "m2sd: 3 of 3 differ; versions, device, CPU and threads are the recorded ones\n"
    rows = [line.split() for line in done.out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["pretrain", "session-000", "session-001"]
    assert all(row[1] != row[2] and row[3:5] == ["differs", "by"] and float(row[5]) > 0.01 for row in rows)
    assert tree(other_seed) == before
    found = m2sd(*COMMAND, *words, "--quiet", "--json")
    assert (found.code, found.err) == (1, "")
    document = json.loads(found.out)
    assert document["same"] is False
    assert [each["same"] for each in document["stages"]] == [False] * 3
    assert all(each["largest_difference"] > 0.01 for each in document["stages"])
    assert document["circumstances"] == []


def test_what_was_otherwise_is_named(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    folder = only_stage_1(run)
    manifest = folder.pretrain().manifest
    versions = {**manifest.versions, "torch": "0.1\x1b[0m", "cuda": "3.2"}
    del versions["python"]
    rewrite(
        folder,
        config={**manifest.config, "seed": 1},
        versions=versions,
        device="GeForce 256",
        threads=None,
        machines=[],
        plugins={"sgd": "toyplug 1.0"},
    )
    done = m2sd(*COMMAND, "--run", run, "--data", stripes.folder, "--device", "cpu", "-q")
    assert done.code == 1
    assert "; sgd of toyplug 1.0, here of m2sd" in done.err
    here = folder.pretrain().manifest
    assert here.versions["torch"].startswith("0.1")
    assert f"torch 0.1\\x1b[0m, here {torch.__version__}; cuda 3.2, here none; " in done.err
    assert "; python unknown, here " in done.err
    assert f"device GeForce 256, here cpu; threads unknown, here {torch.get_num_threads()}; " in done.err


@pytest.mark.parametrize("recorded", [True, False])
def test_it_is_deterministic_if_it_was(
    run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    rewrite(only_stage_1(run), deterministic=recorded)
    seen: list[bool] = []

    def looking(*_: object) -> NoReturn:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise TrainingError("enough")

    monkeypatch.setattr("m2sd_cli.api.pretrain.fit", looking)
    with pytest.raises(TrainingError, match="enough"):
        m2sd_cli.reproduce(run=run, data=str(stripes.folder))
    assert seen == [recorded]


@pytest.mark.parametrize(("recorded", "wanted"), [(2, 2), (3, 3), (None, 1), (1025, 1)])
def test_as_many_threads_compute_as_did_then(
    run: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, recorded: int | None, wanted: int
) -> None:
    rewrite(only_stage_1(run), threads=recorded)
    before = torch.get_num_threads()
    seen: list[int] = []

    def looking(*_: object) -> NoReturn:
        seen.append(torch.get_num_threads())
        raise TrainingError("enough")

    monkeypatch.setattr("m2sd_cli.api.pretrain.fit", looking)
    try:
        torch.set_num_threads(1)
        with pytest.raises(TrainingError, match="enough"):
            m2sd_cli.reproduce(run=run, data=str(stripes.folder))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert seen == [wanted]


def test_settings_other_than_the_defaults_are_kept(stripes: Stripes, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", str(stripes.folder)
    own = {"similarity": "linear", "seed": 5, "momentum": 0.5, "precision": "bf16", "deterministic": True}
    m2sd_cli.pretrain(folder, run=run, **QUICK | own)
    m2sd_cli.distill(
        folder,
        run=run,
        **QUICK_DISTILL
        | {"seed": 6, "kd_weight": 0.0, "clean_weight": 1.0, "mixing": "cutmix", "enhancement": "no-pyramid"},
    )
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu", precision="bf16")
    keep = tmp_path / "again"
    done = m2sd_cli.reproduce(run=run, data=folder, shots={1: stripes.first_shots}, keep=keep)
    assert done.same
    for name in ("pretrain", "session-000", "session-001"):
        then, now = (RunFolder(each).read(name).manifest for each in (run, keep))
        for field in ("config", "seed", "precision", "deterministic", "threads", "classes", "data", "device"):
            assert getattr(then, field) == getattr(now, field)


def test_official_sessions_need_no_folders(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on_less(monkeypatch, 20)
    run = tmp_path / "run"
    m2sd_cli.pretrain("demo", run=run, epochs=1, device="cpu")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    m2sd_cli.increment(1, run=run, device="cpu")
    done = m2sd(*COMMAND, "--run", run, "-q")
    assert (done.code, done.err) == (0, "")
    assert done.out.count(" same\n") == 3
    refused = m2sd(*COMMAND, "--run", run, "--data", "cifar100")
    assert (refused.code, refused.err) == (2, "m2sd: --data cifar100: this run is of demo; leave --data out\n")
    refused = m2sd(*COMMAND, "--run", run, "--shots", f"1={tmp_path}")
    assert refused.code == 2
    assert "--shots 1: no folder taught a session 1" in refused.err


def test_what_was_left_out_is_left_out_again(stripes: Stripes, tmp_path: Path) -> None:
    data, shots, run = tmp_path / "colours", tmp_path / "first", tmp_path / "run"
    shutil.copytree(stripes.folder, data)
    shutil.copytree(stripes.first_shots, shots)
    for folder in (data / "train" / "red", shots / "white"):
        (folder / "bad.png").write_bytes(b"no image")
    m2sd_cli.pretrain(str(data), run=run, skip_bad=True, **QUICK)
    m2sd_cli.distill(str(data), run=run, **QUICK_DISTILL | {"epochs": 0})
    m2sd_cli.increment(1, shots, run=run, device="cpu", skip_bad=True)
    assert all(RunFolder(run).read(name).manifest.skipped for name in ("pretrain", "session-001"))
    assert m2sd_cli.reproduce(run=run, data=str(data), shots={1: shots}).same
    (shots / "white" / "bad.png").unlink()
    assert m2sd_cli.reproduce(run=run, data=str(data), shots={1: shots}).same


def test_images_that_were_named_one_by_one_are_found_again(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    RunFolder(run).remove_sessions(first=1)
    for folder in ("one", "two"):
        shutil.copytree(stripes.first_shots / "white", tmp_path / folder / "mixed")
    first, second = ([*sorted((tmp_path / folder / "mixed").iterdir())] for folder in ("one", "two"))
    first[0].unlink()
    second[1].unlink()
    shots = {"snow": [first[1], second[0]]}  # in another order than that of their names
    stored = m2sd_cli.increment(shots=shots, run=run, device="cpu")
    command = shlex.split(recorded_command(stored.manifest))
    assert command[:7] == ["m2sd", "increment", "--session", "1", "--class", "snow", f"./{tmp_path.name}/..."]
    (tmp_path / "one" / "mixed").rename(tmp_path / "one" / "renamed")
    page = m2sd_cli.report(run=run, data=stripes.folder, shots={1: tmp_path}, device="cpu")
    assert page.count('loading="lazy"') == 4 + 2
    assert m2sd_cli.reproduce(run=run, data=str(stripes.folder), shots={1: tmp_path}, device="cpu").same
    (tmp_path / "one" / "renamed").rename(tmp_path / "one" / "mixed")
    assert m2sd_cli.reproduce(run=run, data=str(stripes.folder), device="cpu").same


@pytest.mark.parametrize("beside", [False, True])
def test_a_class_may_be_a_link_to_a_folder(run: Path, stripes: Stripes, tmp_path: Path, beside: bool) -> None:
    RunFolder(run).remove_sessions(first=1)
    shots = tmp_path / "shots"
    shots.mkdir()
    shutil.copytree(stripes.first_shots / "white", tmp_path / "elsewhere")
    (shots / "white").symlink_to(tmp_path / "elsewhere")
    if beside:
        shutil.copytree(stripes.first_shots / "purple", shots / "purple")
    m2sd_cli.increment(1, shots, run=run, device="cpu")
    (tmp_path / "empty").mkdir()
    (shots / "nowhere").symlink_to(tmp_path / "empty")  # a folder without images, since then
    page = m2sd_cli.report(run=run, data=stripes.folder, device="cpu")
    assert page.count('loading="lazy"') == 4 + 2 + 3 * beside
    assert m2sd_cli.reproduce(run=run, data=str(stripes.folder), device="cpu").same
    fresh = copy_base_session(run, tmp_path / "fresh")
    assert len(m2sd_cli.replay(run, run=fresh, shots=[shots], device="cpu")) == 1


def test_weights_that_stage_1_began_from(m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    weights = backbone_weights(trained)
    file, run = tmp_path / "weights.safetensors", tmp_path / "run"
    save_file(weights, file)
    m2sd_cli.pretrain(str(stripes.folder), run=run, init=str(file), **QUICK)
    words = [*COMMAND, "--run", run, "--data", stripes.folder, "-q"]
    refused = m2sd(*words)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == ("m2sd: name what the run was made of: --init FILE, the weights 'weights.safetensors'\n")
    absent = m2sd(*words, "--init", tmp_path / "absent")
    assert (absent.code, absent.err) == (3, f"m2sd: --init {tmp_path / 'absent'}: no such file\n")
    assert m2sd(*words, "--init", file).code == 0
    assert RunFolder(run).pretrain().manifest.init_sha256 == sha256(file)
    weights["conv1.weight"] += 1
    save_file(weights, file)
    check_refusal(m2sd(*words, "--init", file), 3, "not the weights that the run began from, their SHA-256 is another")
    needless = m2sd(*COMMAND, "--run", trained, "--session", 0, "--data", stripes.folder, "--init", file)
    assert (needless.code, needless.err) == (
        2,
        f"m2sd: --init {file}: the run began from random weights; leave it out\n",
    )


# ---- nothing is trained before all is there


@pytest.mark.usefixtures("untrained")
def test_all_that_is_missing_is_named_at_once(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    (run / "places.json").unlink()
    before = tree(run)
    done = m2sd(*COMMAND, "--run", run)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "m2sd: name what the run was made of: --data DIR, the folder 'colours'; --shots 1=DIR, the folder 'first'; "
        "--shots 2=DIR, the folder 'second'\n"
    )
    less = m2sd(*COMMAND, "--run", run, "--data", stripes.folder, "--shots", f"2={stripes.second_shots}")
    assert less.err == "m2sd: name what the run was made of: --shots 1=DIR, the folder 'first'\n"
    assert tree(run) == before


@pytest.mark.usefixtures("untrained")
def test_other_images_are_named(m2sd: Cli, run: Path, data: list[object], stripes: Stripes, tmp_path: Path) -> None:
    words = [*COMMAND, "--run", run, *data]
    base = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    shutil.copy(next((base / "train" / "blue").iterdir()), next((base / "train" / "red").iterdir()))
    shutil.rmtree(base / "train" / "green")
    other = m2sd(*words, "--data", base)
    assert (other.code, other.out) == (3, "")
    assert other.err == (
        f"m2sd: {base}: not the images that stage 1 was made of; these classes differ: 'green', 'red'\n"
    )
    shots = Path(shutil.copytree(stripes.first_shots, tmp_path / "first"))
    next((shots / "white").iterdir()).unlink()
    (shots / "white").rename(shots / "whiter")
    changed = m2sd(*COMMAND, "--run", run, "--data", stripes.folder, "--shots", f"1={shots}", *data[4:])
    assert (changed.code, changed.out) == (3, "")
    assert changed.err == (
        "m2sd: shots are missing, name where they are with --shots N=DIR: 1 of 2 of 'white' (session 1); "
        f"looked in {shots}\n"
    )
    absent = m2sd(*COMMAND, "--run", run, "--data", stripes.folder, "--shots", "1=/nowhere", *data[4:])
    assert (absent.code, absent.err) == (3, "m2sd: /nowhere: no such file or folder\n")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--shots 1", 2, "--shots 1: write N=DIR, the number of a session and the folder that taught it"),
        ("--shots x=y", 2, "--shots x=y: write N=DIR"),
        ("--shots 1=", 2, "--shots 1=: write N=DIR"),
        ("--shots 01=b", 2, "--shots 01=b: there is a folder for session 1 already"),
        ("--shots 3=a", 2, "--shots 3: no folder taught a session 3 of what is reproduced; leave it out"),
        ("--shots 0=a", 2, "--shots 0: no folder taught a session 0"),
        ("--session 3", 4, "no session 3 in it; the newest is session 2"),
        ("--device tpu", 2, "--device tpu: choose auto, cpu, cuda, cuda:N or mps"),
        ("--keep RUN", 2, "it exists already; name a folder that does not"),
        ("--keep RUN/inside", 2, "that is inside the run; name a folder elsewhere"),
        ("--keep RUN/../no/where", 2, "no such folder as"),
        ("--run NONE", 4, "no finished pretrain in it"),
    ],
)
def test_refusals(m2sd: Cli, run: Path, data: list[object], words: str, code: int, says: str) -> None:
    before = tree(run.parent)
    own = [word.replace("RUN", str(run)).replace("NONE", str(run.parent / "none")) for word in words.split()]
    done = m2sd(*COMMAND, "--run", run, *data, *own)
    check_refusal(done, code, says)
    assert tree(run.parent) == before


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("file", ["pretrain.safetensors", "session-001.safetensors", "session-000.json"])
def test_what_is_damaged_is_not_compared_with(m2sd: Cli, run: Path, data: list[object], file: str) -> None:
    content = bytearray((run / file).read_bytes())
    content[-20] ^= 1
    (run / file).write_bytes(content)
    done = m2sd(*COMMAND, "--run", run, *data)
    assert (done.code, done.out) == (4, "")
    assert f"{run / file}: damaged" in done.err


# ---- ends before its time


@pytest.mark.usefixtures("signals_as_at_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_nothing(
    m2sd: Cli, run: Path, data: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = tree(tmp_path)

    def rate(*_: object) -> float:
        signal.raise_signal(number)
        return 0.1

    monkeypatch.setattr("m2sd_cli.training.loop.learning_rate", rate)
    done = m2sd(*COMMAND, "--run", run, *data, "--keep", tmp_path / "again", "--quiet")
    assert (done.code, done.out, done.err) == (130, "", "m2sd: interrupted\n")
    assert tree(tmp_path) == before


def test_differences_of_tensors() -> None:
    ones = {"a": torch.ones(2, 3), "n": torch.tensor(5)}
    assert largest_difference(ones, ones) == 0
    assert largest_difference(ones, {"a": torch.ones(2, 3), "n": torch.tensor(3)}) == 2
    assert largest_difference(ones, {"a": ones["a"] - 0.25, "n": torch.tensor(5)}) == 0.25
    assert largest_difference(ones, {"a": torch.ones(3, 2), "n": torch.tensor(5)}) is None
    assert largest_difference(ones, {"a": torch.ones(2, 3)}) is None
    assert largest_difference(ones, {"a": ones["a"] * float("nan"), "n": torch.tensor(5)}) is None


def test_every_machine_of_a_training_is_recorded_and_named_where_it_differs(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, options = tmp_path / "run", {**QUICK, "epochs": 2}
    monkeypatch.setattr("m2sd_cli.training.records.cpu_model", lambda: "EPYC 1")
    assert m2sd_cli.pretrain(stripes.folder, run=run, stop_after=0, **options) is None
    assert m2sd_cli.pretrain(run=run, resume=True, stop_after=0, device="cpu") is None  # here again: no other entry
    monkeypatch.setattr("m2sd_cli.training.records.cpu_model", lambda: "EPYC 2")
    stored = m2sd_cli.pretrain(run=run, resume=True, device="cpu")
    assert stored is not None
    assert [(each.from_step, each.cpu) for each in stored.manifest.machines] == [(0, "EPYC 1"), (2, "EPYC 2")]
    assert stored.manifest.machines[0].versions == stored.manifest.versions
    tensors = load_file(run / "pretrain.safetensors")
    name = next(each for each in tensors if each.endswith("running_mean"))
    folder = RunFolder(run)
    with folder.locked("test"):
        record = folder.write_checkpoint(PRETRAIN, {**tensors, name: tensors[name] + 0.5})
        folder.write_manifest(PRETRAIN, stored.manifest.model_copy(update={"checkpoint": record}))
    done = m2sd(*COMMAND, "--run", run, "--data", stripes.folder)
    assert done.code == 1
    assert done.out.splitlines()[1].split()[-4:] == ["same", "differs", "by", "5.0e-01"]
    assert done.err.splitlines()[-1] == "m2sd: 1 of 1 differ; from step 0 on CPU EPYC 1, here EPYC 2"
    monkeypatch.setattr("m2sd_cli.training.records.cpu_model", lambda: "EPYC 3")
    found = json.loads(m2sd(*COMMAND, "--run", run, "--data", stripes.folder, "--json").out)
    assert found["circumstances"] == [
        "from step 0 on CPU EPYC 1, here EPYC 3",
        "from step 2 on CPU EPYC 2, here EPYC 3",
    ]
    (stage,) = found["stages"]
    assert stage["largest_difference_of_weights"] == 0
    assert stage["largest_difference_of_statistics"] == pytest.approx(0.5)
