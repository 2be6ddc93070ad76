"""Running the table on few images: cut off and gone on with, refused, printed."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import m2sd_cli
import m2sd_cli.api.ablate as ablation_run
from m2sd_cli import recipes
from m2sd_cli.ablation.records import Result, RowRecord, Run, read_budget, read_results
from m2sd_cli.api.ablate import ablate
from m2sd_cli.api.ablation_plan import plan_ablation
from m2sd_cli.api.sweep import resolve_sweep
from m2sd_cli.cli import output
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.errors import (
    DamagedError,
    DataError,
    InterruptedTrainingError,
    RunError,
    SignalledTrainingError,
    UsageError,
)
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.progress import Reporter, Snapshot, report_to
from m2sd_cli.reports.metrics import require_figure
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import lock_folder
from tests.helpers import PATIENCE, Cli, check_refusal, tree

ROWS = ["plain", "mixup"]
BUDGET: dict[str, Any] = {"data": "demo", "pretrain_epochs": 1, "epochs": 1, "device": "cpu", "precision": "fp32"}
WORDS = ["--data", "demo", "--pretrain-epochs", 1, "--epochs", 1, "--device", "cpu", "--precision", "fp32"]


pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with two seeds, never cut off. Not to be changed."""
    out = tmp_path_factory.mktemp("ablation") / "whole"
    assert ablate(out, **BUDGET, seeds=2, rows=ROWS).finished
    return out


def timeless(results: Sequence[Result]) -> list[dict[str, object]]:
    return [each.model_dump(exclude={"seconds", "ms_per_step", "seal", "sha256"}) for each in results]


def weights(out: Path, seed: int, row: str) -> list[str]:
    run = RunFolder(out / f"seed-{seed}" / row)
    return [stored.manifest.checkpoint.sha256 for stored in (run.pretrain(), *run.chain())]


def test_every_run_is_a_whole_chain_that_begins_from_the_seeds_stage_1(whole: Path) -> None:
    for seed in (0, 1):
        first = RunFolder(whole / f"seed-{seed}" / "stage-1")
        for row in ROWS:
            run = RunFolder(whole / f"seed-{seed}" / row)
            assert run.verify() == []
            assert run.sessions() == [0, 1, 2]
            assert run.pretrain() == first.pretrain()
            assert run.session(0).manifest.seed == seed
            assert run.session(0).manifest.config["mixing"] == ("none" if row == "plain" else row)
    assert weights(whole, 0, "plain")[0] != weights(whole, 1, "plain")[0]
    assert weights(whole, 0, "plain")[1] != weights(whole, 0, "mixup")[1]


def test_results_stand_beside_their_runs_and_are_those_of_evaluate(whole: Path) -> None:
    found = read_results(whole)
    assert [(each.seed, each.row) for each in found] == [(0, "plain"), (0, "mixup"), (1, "plain"), (1, "mixup")]
    last = found[-1]
    run = whole / "seed-1" / "mixup"
    figures = m2sd_cli.evaluate(run=run, device="cpu").figures
    assert last.average == figures.average
    assert last.session_0 == figures.sessions[0].overall
    assert last.last == figures.sessions[-1].overall
    assert (last.base, last.novel, last.harmonic) == (
        figures.sessions[-1].base,
        figures.sessions[-1].novel,
        figures.sessions[-1].harmonic,
    )
    assert last.seconds == RunFolder(run).session(0).manifest.seconds
    assert last.ms_per_step == pytest.approx(1000 * last.seconds / 2)  # 60 images, 32 a step


def test_cut_off_after_every_step_it_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", 0
    while not ablate(out, **BUDGET, seeds=2, rows=ROWS, stop_after=0).finished:
        calls += 1
        assert calls < 20
    assert calls > 6  # two trainings of stage 1 and four of stage 2, each of two steps
    assert timeless(read_results(out)) == timeless(read_results(whole))
    for seed in (0, 1):
        for row in ROWS:
            assert weights(out, seed, row) == weights(whole, seed, row)


def test_what_has_finished_is_not_run_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(whole)
    for name in ("pretrain", "distill", "increment", "evaluate", "open_data"):
        monkeypatch.setattr(ablation_run, name, None)
    again = ablate(whole, **BUDGET, seeds=2, rows=ROWS)
    assert again.finished
    assert again.results == read_results(whole)
    assert tree(whole) == before


def test_seeds_and_rows_may_be_added(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    for seeds, rows in ((1, "mixup"), (1, "plain,mixup"), (2, "mixup,plain")):
        assert ablate(out, **BUDGET, seeds=seeds, rows=rows).finished
    assert timeless(read_results(out)) == timeless(read_results(whole))


def test_a_recipe_is_followed_and_named(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "brief.toml").write_text('data = "demo"\n[pretrain]\nepochs = 1\n[distill]\nepochs = 1\nbeta = 0.5\n')
    monkeypatch.setattr(recipes, "FOLDER", folder)
    out = tmp_path / "out"
    assert ablate(out, recipe="brief", seeds=1, rows=ROWS, device="cpu", precision="fp32").finished
    for row in ROWS:
        run = RunFolder(out / "seed-0" / row)
        assert [run.pretrain().manifest.recipe, run.session(0).manifest.recipe] == ["brief", "brief"]
        assert run.session(0).manifest.config["beta"] == 0.5
    assert weights(out, 0, "plain") == weights(whole, 0, "plain")
    assert weights(out, 0, "mixup") != weights(whole, 0, "mixup")
    file = tmp_path / "options.toml"
    file.write_text("data = 'cifar100'\n")
    with pytest.raises(UsageError, match="its table began with data demo, not cifar100"):
        ablate(out, config=file, recipe="brief", seeds=1, rows=ROWS)
    with pytest.raises(UsageError, match="its table began with recipe brief, not None"):
        ablate(out, **BUDGET, seeds=1, rows=ROWS)


def test_weights_to_begin_from_are_used_and_their_place_is_not_told(tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(3)
    save_file(build_backbone("resnet20").state_dict(), tmp_path / "weights.safetensors")
    file, out = tmp_path / "options.toml", tmp_path / "out"
    file.write_text(f"[pretrain]\nbackbone = 'resnet20'\ninit = '{tmp_path / 'weights.safetensors'}'\n")
    assert ablate(out, **BUDGET, config=file, seeds=1, rows="plain").finished
    assert RunFolder(out / "seed-0" / "plain").pretrain().manifest.config["init"] == "weights.safetensors"
    assert weights(out, 0, "plain") != weights(whole, 0, "plain")
    for written in out.rglob("*.json"):
        assert str(tmp_path) not in written.read_text()
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "weights.safetensors").rename(tmp_path / "moved" / "weights.safetensors")
    file.write_text(f"[pretrain]\nbackbone = 'resnet20'\ninit = '{moved}'\n")
    assert ablate(out, **BUDGET, config=file, seeds=1, rows="plain").finished
    save_file(build_backbone("resnet20").state_dict(), moved)
    with pytest.raises(UsageError, match="its table began with weights of SHA-256 "):
        ablate(out, **BUDGET, config=file, seeds=1, rows="plain")
    moved.unlink()
    with pytest.raises(DataError, match="No such file"):
        ablate(out, **BUDGET, config=file, seeds=1, rows="plain")


def test_one_stage_1_for_all_seeds(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    assert ablate(out, **BUDGET, seeds=2, rows="plain", shared_stage_1=True).finished
    firsts = [weights(out, seed, "plain")[0] for seed in (0, 1)]
    assert firsts == [weights(whole, 0, "plain")[0]] * 2
    assert weights(out, 0, "plain") == weights(whole, 0, "plain")
    assert weights(out, 0, "plain")[1] != weights(out, 1, "plain")[1]


@pytest.mark.parametrize("where", [(RunFolder, "copy_pretrain"), (ablation_run, "increment"), (Run, "end")])
def test_a_failure_between_two_trainings_loses_no_training(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[object, str]
) -> None:
    out = tmp_path / "out"

    def fail(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, fail)
        with pytest.raises(KeyboardInterrupt):
            ablate(out, **BUDGET, seeds=1, rows="plain")
    trained: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        function = getattr(ablation_run, name)

        def call(*arguments: object, **options: object) -> object:
            trained.append(name)
            return function(*arguments, **options)

        return call

    for name in ("pretrain", "distill"):
        monkeypatch.setattr(ablation_run, name, counted(name))
    assert ablate(out, **BUDGET, seeds=1, rows="plain").finished
    assert trained == (["distill"] if where[1] == "copy_pretrain" else [])
    assert timeless(read_results(out)) == timeless(read_results(whole)[:1])


class Interrupting(Reporter):
    """Sends a signal in the middle of a stage."""

    interval = 0.0

    def __init__(self, stage: str, number: signal.Signals) -> None:
        self.stage, self.number, self.under_way = stage, number, ""

    def begin_stage(self, stage: str) -> None:
        self.under_way = stage

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.step == 1 and self.under_way == self.stage:
            os.kill(os.getpid(), self.number)


class Teller(Reporter):
    """Hands every line on."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell = tell

    def say(self, text: str) -> None:
        self.tell(text)


@pytest.mark.parametrize(
    ("stage", "number", "error"),
    [
        ("pretrain", signal.SIGINT, InterruptedTrainingError),
        ("distill", signal.SIGUSR1, SignalledTrainingError),
    ],
)
def test_an_interrupted_one_says_how_to_go_on(
    whole: Path, tmp_path: Path, stage: str, number: signal.Signals, error: type[InterruptedTrainingError]
) -> None:
    out = tmp_path / "out"

    message = r"^interrupted; go on with the same command$"
    with pytest.raises(error, match=message) as raised, report_to(Interrupting(stage, number)):
        ablate(out, **BUDGET, seeds=1, rows="plain")
    assert raised.type is error
    assert ablate(out, **BUDGET, seeds=1, rows="plain").finished
    assert weights(out, 0, "plain") == weights(whole, 0, "plain")


# ---- refusals


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epochs": 2}, "distill epochs 1, not 2"),
        ({"pretrain_epochs": 2}, "pretrain epochs 1, not 2"),
        ({"precision": "bf16"}, "precision fp32, not bf16"),
        ({"shared_stage_1": True}, "shared stage 1 False, not True"),
        ({"compile": True}, "--compile False, not True"),
        ({"deterministic": True}, "--deterministic False, not True"),
        ({"data": "cifar100"}, "data demo, not cifar100"),
    ],
)
def test_another_budget_is_refused(whole: Path, given: dict[str, Any], says: str) -> None:
    before = tree(whole)
    with pytest.raises(UsageError) as caught:
        ablate(whole, **{**BUDGET, **given}, seeds=2, rows=ROWS)
    assert str(caught.value) == (
        f"--out {whole}: its table began with {says}; give the same options, or name another folder"
    )
    assert tree(whole) == before


def test_a_precision_that_is_not_given_is_that_of_the_table(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_another_chip(name: str, _device: torch.device) -> str:
        return "bf16" if name == "auto" else name

    monkeypatch.setattr("m2sd_cli.api.sweep.training_precision", on_another_chip)
    given = {name: value for name, value in BUDGET.items() if name != "precision"}
    done = ablate(whole, **given, seeds=2, rows=ROWS)
    assert (done.finished, done.budget.precision) == (True, "fp32")
    assert resolve_sweep(tmp_path / "new", given).budget.precision == "bf16"


def test_flags_of_training_reach_both_stages_and_the_table_tells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, m2sd: Cli
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr("m2sd_cli.training.loop.compile_forward", lambda module, _device: compiled.append(module))
    out = tmp_path / "out"
    m2sd("ablation", *WORDS, "--out", out, "--seeds", 1, "--rows", "plain", "--compile", "--deterministic")
    run = RunFolder(out / "seed-0" / "plain")
    for manifest in (run.pretrain().manifest, run.session(0).manifest):
        assert (manifest.compiled, manifest.deterministic) == (True, True)
    assert len(compiled) == 2
    shown = m2sd("ablation", "--table", "--out", out).out
    assert "; cpu fp32 compiled deterministic\n" in shown
    with pytest.raises(UsageError, match=r"--compile True, not False; give the same options"):
        ablate(out, **BUDGET, seeds=1, rows="plain", deterministic=True)
    assert len(plan_ablation(tmp_path / "other", **BUDGET, seeds=1, rows="plain", compile=True).rows) == 1
    assert len(compiled) == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"precision": "half"}, "half"),
        ({"device": "bogus"}, "bogus"),
        ({"pretrain_epochs": 0}, "--pretrain-epochs 0: at least 1"),
        ({"epochs": None, "text": "[distill]\nepochs = 0\n"}, "--epochs 0: every row would be the same network"),
        ({"text": "[pretrain]\nseed = 3\n"}, "a seed is set in the file of options"),
    ],
)
def test_what_fails_at_once_pins_no_budget(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    out, file = tmp_path / "out", tmp_path / "options.toml"
    file.write_text(given.pop("text", ""))
    with pytest.raises(UsageError, match=says):
        ablate(out, config=file, **{**BUDGET, **given})
    assert not out.exists()


def test_a_table_whose_images_are_missing_has_not_begun(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        ablate(tmp_path / "out", **{**BUDGET, "data": "cub200"}, data_root=tmp_path / "nowhere")
    assert not (tmp_path / "out" / "ablation.json").exists()


def test_a_table_that_began_before_an_option_was_there_is_gone_on_with(whole: Path, tmp_path: Path, m2sd: Cli) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    budget = read_budget(out)
    first = {name: value for name, value in budget.pretrain.items() if name not in ("closeness_weight", "colour")}
    second = {name: value for name, value in budget.distill.items() if name not in ("levels", "colour", "views")}
    old = budget.model_copy(update={"pretrain": first, "distill": second})
    (out / "ablation.json").write_bytes(old.encoded())
    done = m2sd("ablation", *WORDS, "--out", out, "--seeds", 2, "--rows", "plain,mixup")
    assert (done.code, done.err) == (0, "")
    assert m2sd("ablation", "--table", "--out", out).out == done.out == m2sd("ablation", "--table", "--out", whole).out
    file = tmp_path / "options.toml"
    file.write_text("[pretrain]\ncloseness_weight = 0.5\n")
    with pytest.raises(UsageError, match=r"its table began with pretrain closeness_weight 0\.0, not 0\.5; "):
        ablate(out, **BUDGET, config=file, seeds=2, rows=ROWS)


def test_damaged_results_say_that_they_can_be_made_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    result = out / "seed-1" / "plain" / "result.json"
    result.write_text("{}")
    with pytest.raises(DamagedError, match="remove it, and the same 'm2sd ablation' evaluates the run again"):
        read_results(out)
    result.unlink()
    assert ablate(out, **BUDGET, seeds=2, rows=ROWS).results == read_results(whole)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--rows", "plain,all"], 2, "--rows all: no such row; choose plain, "),
        (["--seeds", 0], 2, "--seeds 0: a single number is how many seeds, 1 to 1000; seed 0 alone is 0..0"),
        (["--epochs", 0], 2, "--epochs 0: every row would be the same network"),
        (["--data", "."], 2, "--data .: a folder has no sessions of its own; divide it by a list with --split"),
        (["--data", "nothing"], 2, "--data nothing: no data set of that name"),
        (["--stop-after", "9"], 2, "--stop-after 9: write 90s, 9m or 2h"),
        (["--table"], 4, "out: no ablation in it; begin one with 'm2sd ablation --out DIR'"),
    ],
)
def test_usage_errors_leave_nothing(
    m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = m2sd("ablation", *WORDS, "--out", "out", *words)
    check_refusal(done, code)
    assert done.err.startswith(f"m2sd: {says}")
    assert list(tmp_path.iterdir()) == []


def test_what_is_damaged_or_something_else_is_left_alone(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    before = tree(other)
    with pytest.raises(RunError, match=r"'notes\.txt' is in it, and no ablation; name another folder with --out"):
        ablate(other, **BUDGET)
    assert tree(other) == before
    damaged = tmp_path / "damaged"
    shutil.copytree(whole, damaged)
    for file in (damaged / "seed-0" / "mixup" / "result.json", damaged / "ablation.json"):
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
        with pytest.raises(DamagedError, match=file.name):
            ablate(damaged, **BUDGET, seeds=2, rows=ROWS)


def test_another_table_that_begins_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.ablation.records.PATIENCE", 0.1)
    with lock_folder(tmp_path, "ablation"), pytest.raises(RunError, match="is writing to it; wait until that"):
        ablate(tmp_path, **BUDGET, seeds=2, rows=ROWS)


# ---- several processes

TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import conftest, pytest, test_run
from m2sd_cli.api.ablate import ablate
from m2sd_cli.progress import report_to
from tests.helpers import train_on_less
train_on_less(pytest.MonkeyPatch(), *conftest.LITTLE)
with report_to(test_run.Teller(lambda text: print(text, flush=True))):
    done = ablate(sys.argv[1], **test_run.BUDGET, seeds=2, rows=test_run.ROWS)
print("finished" if done.finished else "busy: " + " ".join(done.busy))
"""


def test_two_processes_share_the_runs(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", TOGETHER, str(out), str(Path(__file__).parent)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [line for process in both for line in process.communicate(timeout=PATIENCE)[0].splitlines()]
    assert [process.returncode for process in both] == [0, 0]
    assert "finished" in told  # the last one sees all
    began = sorted(line for line in told if line.startswith(("run ", "stage 1 ")))
    assert began == [
        "run 1 of 4: seed 0, plain (stage 2 with cross-entropy alone)",
        "run 2 of 4: seed 0, mixup (mixup alone)",
        "run 3 of 4: seed 1, plain (stage 2 with cross-entropy alone)",
        "run 4 of 4: seed 1, mixup (mixup alone)",
        "stage 1 of seed 0",
        "stage 1 of seed 1",
    ]
    assert timeless(read_results(out)) == timeless(read_results(whole))
    for seed in (0, 1):
        for row in ROWS:
            assert weights(out, seed, row) == weights(whole, seed, row)


def test_a_run_of_another_process_is_passed_over_and_named(whole: Path, tmp_path: Path, m2sd: Cli) -> None:
    out = tmp_path / "out"
    with lock_folder(out / ".seed-0-plain", "ablation"):
        done = m2sd("ablation", *WORDS, "--out", out, "--seeds", 1, "--rows", "plain,mixup", "--json")
    assert done.code == 0
    words = ("stage 1", "run", "seed", "other")
    assert [line.split(":")[0] for line in done.err.splitlines() if line.startswith(words)] == [
        "stage 1 of seed 0",
        "run 2 of 2",
        "seed 0, mixup",
        "other processes are at seed-0/plain; the same command goes on with what they leave",
    ]
    assert json.loads(done.out)["finished"] is False
    assert timeless(read_results(out)) == timeless(read_results(whole)[1:2])
    assert not (out / "seed-0" / "plain").exists()
    assert ablate(out, **BUDGET, seeds=1, rows=ROWS).finished


def test_the_table_fits_a_narrow_terminal(whole: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "room", lambda: 60)
    done = m2sd("ablation", "--out", whole, "--table")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 60
    assert all(heading in done.out for heading in ("session 0", "HM", "ms/step", "what"))


def test_a_stage_1_of_another_process_is_waited_for_when_nothing_else_is_left(whole: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", list[str]()
    lock = lock_folder(out / ".seed-0-stage-1", "ablation")

    def end(text: str) -> None:
        """The stage 1 that is waited for comes."""
        told.append(text)
        if text.startswith("waiting"):
            shutil.copytree(whole / "seed-0" / "stage-1", out / "seed-0" / "stage-1")
            lock.__exit__(None, None, None)

    lock.__enter__()
    with report_to(Teller(end)):
        assert ablate(out, **BUDGET, seeds=2, rows="plain").finished
    assert [text.split(":")[0] for text in told] == [
        "stage 1 of seed 1",
        "run 2 of 2",
        "seed 1, plain",
        "waiting for stage 1 of seed 0",
        "run 1 of 2",
        "seed 0, plain",
    ]
    assert weights(out, 0, "plain") == weights(whole, 0, "plain")


def test_it_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with lock_folder(out / ".seed-0-stage-1", "ablation"), lock_folder(out / ".seed-1-plain", "ablation"):
        done = ablate(out, **BUDGET, seeds=2, rows="plain", stop_after=0.2)
    assert (done.finished, done.results, done.busy) == (False, [], [])  # time is up, as the command says by its code


def test_processes_of_torchrun_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(UsageError, match="begin it without torchrun"):
        ablate(tmp_path / "out", **BUDGET)
    assert not (tmp_path / "out").exists()


# ---- what is printed


def test_the_table(m2sd: Cli, whole: Path) -> None:
    done = m2sd("ablation", *WORDS, "--out", whole, "--seeds", 2, "--rows", "plain,mixup")
    assert (done.code, done.err) == (0, "")
    plain, mixup = ([each for each in read_results(whole) if each.row == row] for row in ROWS)
    first, blank, *lines = done.out.splitlines()
    assert first == (
        "demo; no recipe; all images of each base class, held out 0.1; resnet20 from random weights; "
        "stage 1 1 epoch, one for each seed; stage 2 1 epoch in batches of 32; "
        "views 1; classifier by default; cpu fp32"
    )
    assert not blank
    assert lines[0].split() == (
        ["row", "AVG", "last", "base", "novel", "HM", "session", "0", "seconds", "ms/step", "seeds", "what"]
    )
    for line, own in zip(lines[1:3], (plain, mixup), strict=True):
        averages = [require_figure(each.average) for each in own]
        shown = f"{own[0].row}  {statistics.fmean(averages):.2f} +- {statistics.stdev(averages):.2f}"
        assert line.split()[:4] == shown.split()
    assert lines[4] == "accuracy after each session"
    assert lines[5].split() == ["row", "0", "1", "2"]
    for line, own in zip(lines[6:8], (plain, mixup), strict=True):
        middle = [require_figure(each.sessions[1].overall) for each in own]
        expected = f"{statistics.fmean(middle):.2f} +- {statistics.stdev(middle):.2f}"
        assert line.split()[4:7] == expected.split()
    assert lines[9] == "above plain, seed by seed"
    differences = [require_figure(a.average) - require_figure(b.average) for a, b in zip(mixup, plain, strict=True)]
    assert lines[10].split()[-1] == "seeds"
    assert lines[11].split()[-1] == "2"
    assert lines[11].split()[:4] == [
        "mixup",
        f"{statistics.fmean(differences):+.2f}",
        "+-",
        f"{statistics.stdev(differences):.2f}",
    ]
    assert m2sd("ablation", "--table", "--out", whole).out == done.out


def test_a_copy_of_a_run_is_no_other_seed(m2sd: Cli, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.copytree(out / "seed-0", out / "seed-0.bak")
    shutil.copytree(out / "seed-1" / "plain", out / "seed-1" / "plain.bak")
    done = m2sd("ablation", "--table", "--out", out)
    assert done.out == m2sd("ablation", "--table", "--out", whole).out
    for copy, told in (
        ("seed-0.bak/mixup", "seed 0, mixup"),
        ("seed-0.bak/plain", "seed 0, plain"),
        ("seed-1/plain.bak", "seed 1, plain"),
    ):
        assert f"{out / copy / 'result.json'}: a copy of the result of {told}; it is left out" in done.err
    assert "a copy of the result" in m2sd("study", out).err
    shutil.copytree(out / "seed-0" / "plain", out / "seed-2" / "plain")
    refused = m2sd("ablation", *WORDS, "--out", out, "--seeds", 3, "--rows", "plain")
    check_refusal(refused, 4, f"remove {out / 'seed-2' / 'plain'}, and the same 'm2sd ablation' trains that run")


def test_the_table_of_some_seeds(m2sd: Cli, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole / "seed-1", out / "seed-1")
    shutil.copyfile(whole / "ablation.json", out / "ablation.json")
    some = m2sd("ablation", "--table", "--out", whole, "--seeds", "1..1")
    assert some.code == 0
    assert some.out == m2sd("ablation", "--table", "--out", out).out
    none = m2sd("ablation", "--table", "--out", whole, "--seeds", "7..7")
    check_refusal(none, 2, "--seeds 7..7: the table has seeds 0, 1; name some of them")


def test_json_has_the_rows_and_the_runs(m2sd: Cli, whole: Path) -> None:
    done = m2sd("ablation", "--table", "--out", whole, "--json")
    content = json.loads(done.out)
    assert set(content) == {"out", "budget", "baseline", "rows", "runs"}
    assert (content["budget"]["data"], content["budget"]["pretrain"]["epochs"]) == ("demo", 1)
    assert "seal" not in content["budget"]
    assert content["runs"] == [each.as_data() for each in read_results(whole)]
    assert [row["row"] for row in content["rows"]] == ROWS
    assert content["rows"][1]["above"]["novel"]["mean"] == pytest.approx(
        statistics.fmean(run["novel"] * (1 if run["row"] == "mixup" else -1) for run in content["runs"]) * 2
    )


def test_time_that_is_up_is_said(m2sd: Cli, tmp_path: Path) -> None:
    words = ["ablation", *WORDS, "--out", tmp_path / "out", "--stop-after", "0s", "--seeds", 1, "--rows", "plain"]
    done = m2sd(*words)
    message = "m2sd: ablation: time is up; saved. Go on with the same command"
    assert (done.code, done.out) == (5, "no run has ended yet\n")
    assert done.err.splitlines()[0] == "stage 1 of seed 0"
    assert done.err.splitlines()[-1] == message
    quiet = m2sd(*words, "--quiet", "--json")
    assert (quiet.code, quiet.err) == (5, f"{message}\n")
    content = json.loads(quiet.out)
    assert content.pop("budget")["data"] == "demo"
    assert content == {"out": str(tmp_path / "out"), "finished": False, "baseline": None, "rows": [], "runs": []}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InterruptedTrainingError, 130, "m2sd: saved\n"),
        (SignalledTrainingError, 5, "m2sd: ablation: stopped by a signal; the same command goes on\n"),
    ],
)
def test_the_signal_of_a_cluster_has_the_code_of_time_that_is_up(
    m2sd: Cli, monkeypatch: pytest.MonkeyPatch, error: type[InterruptedTrainingError], code: int, message: str
) -> None:
    def end(*_: object, **__: object) -> NoReturn:
        raise error("saved")

    monkeypatch.setattr(ablation_run, "ablate", end)
    done = m2sd("ablation", *WORDS)
    assert (done.code, done.out, done.err) == (code, "", message)


@pytest.mark.parametrize(
    ("held_out", "own", "taken"), [(0.02, 0.3, 0.3), (0.0, 0.3, None), (0.0, 0.7, 0.7)], ids=["held out", "none", "own"]
)
def test_the_cost_of_a_recipe_is_for_the_images_that_it_holds_out(
    tmp_path: Path, held_out: float, own: float, taken: float | None
) -> None:
    row: Any = SimpleNamespace(
        pretrain=SimpleNamespace(held_out=held_out),
        distill=DistillConfig(epochs=1, base_cost=own),
        record=RowRecord(),
    )
    study: Any = SimpleNamespace(
        budget=SimpleNamespace(recipe="cifar100-resnet20-long", rows={"plain": RowRecord()}, shared_stage_1=False),
        folder=tmp_path,
        image_folder=None,
        train=lambda _name, _stage, _folder, **options: options,
    )
    given: Any = ablation_run._stage_2(study, Run(tmp_path, 0, "plain"), row, wait=False)
    assert given["base_cost"] == taken
