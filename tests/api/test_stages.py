"""The training stages on a run folder: repeated, stopped, resumed, failing, replaced."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import m2sd_cli
from m2sd_cli.data import mapped
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.sources import FileImages, TrainingImages
from m2sd_cli.errors import DataError, InterruptedTrainingError, RunError, UsageError
from m2sd_cli.progress import Reporter, Snapshot, report_to
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import EpochRecord
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training import recomputation
from m2sd_cli.training.stopping import SIGNALS
from tests.helpers import QUICK, QUICK_DISTILL, Stripes, finished, sha256, tree


def history(run: Path, name: str) -> list[EpochRecord]:
    return RunFolder(run).read(name).manifest.history


class Watcher(Reporter):
    """Does something after one of the steps."""

    interval = 0.0

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action
        self.seen: list[Snapshot] = []

    def show(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)
        if snapshot.step == self.step:
            self.action()


@pytest.fixture(scope="module")
def folder(stripes: Stripes) -> str:
    return str(stripes.folder)


@pytest.fixture(scope="module")
def whole(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of both stages, never interrupted: eight steps each."""
    run = tmp_path_factory.mktemp("whole") / "run"
    m2sd_cli.pretrain(folder, run=run, **QUICK | {"epochs": 2})
    m2sd_cli.distill(folder, run=run, **QUICK_DISTILL | {"epochs": 2})
    return run


@pytest.fixture
def to_distill(whole: Path, tmp_path: Path) -> Path:
    """The same run after stage 1."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    RunFolder(run).remove_sessions(first=0)
    return run


@pytest.fixture(autouse=True)
def _handlers_are_restored(signals_as_at_a_terminal: None) -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_one_seed_gives_one_result(whole: Path, folder: str, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what happened before in this process does not matter
    m2sd_cli.pretrain(folder, run=tmp_path / "run", **QUICK | {"epochs": 2})
    torch.rand(5)
    m2sd_cli.distill(folder, run=tmp_path / "run", **QUICK_DISTILL | {"epochs": 2})
    for name in ("pretrain", "session-000"):
        assert sha256(tmp_path / "run" / f"{name}.safetensors") == sha256(whole / f"{name}.safetensors")
        assert history(tmp_path / "run", name) == history(whole, name)


@pytest.mark.parametrize("resident", [0, mapped.RESIDENT], ids=["large", "small"])
def test_images_of_a_file_give_what_images_in_memory_give(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: int
) -> None:
    def both_stages(run: Path) -> list[str]:
        m2sd_cli.pretrain(folder, run=run, **QUICK | {"epochs": 2})
        m2sd_cli.distill(folder, run=run, **QUICK_DISTILL)
        return [sha256(path) for path in sorted(run.glob("*.safetensors"))]

    used: list[TrainingImages] = []
    from_file = FileImages.for_training

    def in_memory(source: FileImages, augmentation: Augmentation) -> TrainingImages:
        assert augmentation.store is not None
        size = (augmentation.store, augmentation.store)
        originals = [open_rgb(path) for path in source.paths]
        images = [np.asarray(each.resize(size, Image.Resampling.BILINEAR)) for each in originals]
        aspects = torch.tensor([each.width / each.height for each in originals])
        return TrainingImages(torch.from_numpy(np.stack(images)), aspects, source.labels)

    def watched(source: FileImages, augmentation: Augmentation) -> TrainingImages:
        used.append(from_file(source, augmentation))
        return used[-1]

    monkeypatch.setattr(FileImages, "for_training", in_memory)
    expected = both_stages(tmp_path / "memory")
    monkeypatch.setattr(FileImages, "for_training", watched)
    monkeypatch.setattr(mapped, "RESIDENT", resident)
    assert both_stages(tmp_path / "file") == expected
    assert len(expected) == len(used) == 2
    assert all(each.mapped is not None for each in used)


def test_another_seed_gives_another_result(to_distill: Path, whole: Path, folder: str, tmp_path: Path) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "other", seed=1, **QUICK | {"epochs": 2})
    assert sha256(tmp_path / "other" / "pretrain.safetensors") != sha256(whole / "pretrain.safetensors")
    m2sd_cli.distill(folder, run=to_distill, seed=1, **QUICK_DISTILL | {"epochs": 2})
    assert sha256(to_distill / "session-000.safetensors") != sha256(whole / "session-000.safetensors")


def test_a_pretrain_stopped_after_every_step_ends_as_one_that_was_not(whole: Path, folder: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"run": run, "stop_after": 0, **QUICK, "epochs": 2}
    assert m2sd_cli.pretrain(folder, **options) is None
    stops = 1
    while m2sd_cli.pretrain(folder, resume=True, **options) is None:
        assert not RunFolder(run).has_pretrain()
        stops += 1
    assert stops == 7
    assert sha256(run / "pretrain.safetensors") == sha256(whole / "pretrain.safetensors")
    assert history(run, "pretrain") == history(whole, "pretrain")
    assert not (run / "training").exists()


def test_a_distill_stopped_after_every_step_ends_as_one_that_was_not(
    whole: Path, to_distill: Path, folder: str
) -> None:
    options: dict[str, Any] = {"run": to_distill, "stop_after": 0, **QUICK_DISTILL, "epochs": 2}
    assert m2sd_cli.distill(folder, **options) is None
    stops = 1
    while m2sd_cli.distill(folder, resume=True, **options) is None:
        assert RunFolder(to_distill).sessions() == []
        stops += 1
    assert stops == 7
    assert sha256(to_distill / "session-000.safetensors") == sha256(whole / "session-000.safetensors")
    assert history(to_distill, "session-000") == history(whole, "session-000")
    assert not (to_distill / "training").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_an_epoch_saves(
    whole: Path, folder: str, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    watcher = Watcher(6, lambda: signal.raise_signal(number))
    with pytest.raises(InterruptedTrainingError, match="--resume") as raised, report_to(watcher):
        m2sd_cli.pretrain(folder, run=run, **QUICK | {"epochs": 2})
    assert raised.value.exit_code == 130
    assert watcher.seen[-1].step == 6
    assert (run / "training" / "step-000000006.safetensors").is_file()
    m2sd_cli.pretrain(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert sha256(run / "pretrain.safetensors") == sha256(whole / "pretrain.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(
    folder: str, tmp_path: Path, request: pytest.FixtureRequest, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    request.addfinalizer(lambda: signal.signal(number, before))
    watcher = Watcher(2, lambda: signal.raise_signal(number))
    with report_to(watcher):
        assert m2sd_cli.pretrain(folder, run=tmp_path / "run", **QUICK) is not None


def test_a_second_signal_ends_it_at_once(folder: str, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), report_to(Watcher(2, twice)):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", **QUICK)


def test_a_crash_loses_what_came_after_the_last_save(whole: Path, to_distill: Path, folder: str) -> None:
    def crash() -> None:
        raise MemoryError

    with pytest.raises(MemoryError), report_to(Watcher(4, crash)):
        m2sd_cli.distill(folder, run=to_distill, save_every=0, **QUICK_DISTILL | {"epochs": 2})
    assert (to_distill / "training" / "step-000000003.safetensors").is_file()
    m2sd_cli.distill(folder, run=to_distill, resume=True, device="cpu", precision="fp32")
    assert sha256(to_distill / "session-000.safetensors") == sha256(whole / "session-000.safetensors")


def test_a_process_that_is_told_to_end_saves_and_can_go_on(whole: Path, folder: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    watched = "from m2sd_cli.cli import progress; progress.Lines.interval = 0.0; from m2sd_cli.cli.app import main; "
    options = ["--backbone", "resnet20", "--image-size", 16, "--batch-size", 8, "--epochs", 2]
    place = ["--data", folder, "--run", run, "--device", "cpu", "--precision", "fp32"]
    command = [sys.executable, "-c", f"{watched} main()", "pretrain", *map(str, [*place, *options])]
    slowly = "import time; from m2sd_cli.training import loop; rate = loop.learning_rate; "
    slowly += "loop.learning_rate = lambda *a: time.sleep(0.2) or rate(*a); "
    command[2] = slowly + command[2]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("pretrain: epoch 1/2, loss ")
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().splitlines()
        assert process.stdout.read() == ""
    assert process.returncode == 130
    assert said[-1].startswith("m2sd: interrupted and saved; go on with")
    assert not RunFolder(run).has_pretrain()
    assert (run / "training" / "state.json").is_file()
    m2sd_cli.pretrain(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert sha256(run / "pretrain.safetensors") == sha256(whole / "pretrain.safetensors")


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 3), ("batch_size", 4), ("learning_rate", 0.2), ("seed", 1), ("scale", 8.0)]
)
def test_an_option_that_differs_from_the_beginning_is_refused(
    folder: str, tmp_path: Path, option: str, value: float
) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "run", stop_after=0, **QUICK)
    before = tree(tmp_path)
    changed: Any = {option: value}
    with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')} {value}: the training began with"):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", resume=True, device="cpu", precision="fp32", **changed)
    assert tree(tmp_path) == before


def test_a_loss_weight_that_differs_from_the_beginning_is_refused(to_distill: Path, folder: str) -> None:
    m2sd_cli.distill(folder, run=to_distill, stop_after=0, **QUICK_DISTILL)
    with pytest.raises(UsageError, match=r"^--kl-weight 2\.0: the training began with 1\.0"):
        m2sd_cli.distill(folder, run=to_distill, resume=True, kl_weight=2.0)


def test_there_must_be_something_to_resume(to_distill: Path, folder: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no interrupted training in it"):
        m2sd_cli.pretrain(folder, run=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(RunError, match="no interrupted training in it"):
        m2sd_cli.distill(folder, run=to_distill, resume=True)


def test_a_stage_does_not_resume_the_others_training(to_distill: Path, folder: str) -> None:
    m2sd_cli.distill(folder, run=to_distill, stop_after=0, **QUICK_DISTILL)
    with pytest.raises(RunError, match="the interrupted training is distill's"):
        m2sd_cli.pretrain(folder, run=to_distill, resume=True)
    with pytest.raises(RunError, match="a finished pretrain is in it"):
        m2sd_cli.pretrain(folder, run=to_distill, **QUICK)


def test_resuming_what_has_finished_returns_it(whole: Path, folder: str) -> None:
    pretrain = m2sd_cli.pretrain(folder, run=whole, resume=True)
    base = m2sd_cli.distill(folder, run=whole, resume=True)
    assert pretrain is not None
    assert base is not None
    assert (pretrain.name, base.name) == ("pretrain", "session-000")


def test_other_images_cannot_be_resumed_on(folder: str, to_distill: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "colours"))
    image = next((other / "train" / "red").iterdir())
    shutil.copy(next((other / "train" / "blue").iterdir()), image)
    m2sd_cli.pretrain(folder, run=tmp_path / "begun", stop_after=0, **QUICK)
    with pytest.raises(RunError, match="began on other images"):
        m2sd_cli.pretrain(str(other), run=tmp_path / "begun", resume=True, device="cpu")
    with pytest.raises(RunError, match="pretrained on other images than those of colours; give the same --data"):
        m2sd_cli.distill(str(other), run=to_distill, **QUICK_DISTILL)


def test_a_distill_goes_on_from_its_own_pretrain_only(to_distill: Path, folder: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    m2sd_cli.pretrain(folder, run=other, seed=1, **QUICK)
    m2sd_cli.distill(folder, run=other, seed=0, stop_after=0, **QUICK_DISTILL)
    shutil.copytree(other / "training", to_distill / "training")
    with pytest.raises(RunError, match=r"pretrain\.json was written after this training began"):
        m2sd_cli.distill(folder, run=to_distill, resume=True)
    run = RunFolder(to_distill)
    newest, state = run.newest(), StateStore(run).load()
    assert newest is not None
    forged = state.model_copy(update={"head": newest.sha256})
    (to_distill / "training" / "state.json").write_bytes(forged.encoded())
    with pytest.raises(RunError, match=r"began from another pretrain; start over with --force if it may be lost$"):
        m2sd_cli.distill(folder, run=to_distill, resume=True, device="cpu")


def test_a_begun_training_is_not_silently_replaced(folder: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(folder, run=run, stop_after=0, **QUICK)
    before = tree(run)
    with pytest.raises(
        RunError, match="an interrupted pretrain is in it; go on with 'm2sd pretrain --resume', or start"
    ):
        m2sd_cli.pretrain(folder, run=run, **QUICK)
    assert tree(run) == before
    finished(m2sd_cli.pretrain(folder, run=run, force=True, **QUICK))
    assert not (run / "training").exists()


def test_a_finished_training_is_not_silently_replaced(run: Path, folder: str) -> None:
    before = tree(run)
    with pytest.raises(RunError, match="a finished pretrain is in it; --force replaces it") as raised:
        m2sd_cli.pretrain(folder, run=run, **QUICK)
    assert raised.value.exit_code == 4
    with pytest.raises(
        RunError, match=r"session 2 is in it; --force .* removes 2 taught sessions of 3 classes and 9 shots$"
    ):
        m2sd_cli.distill(folder, run=run, **QUICK_DISTILL)
    assert tree(run) == before


def without_training(files: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: content for name, content in files.items() if not name.startswith("training")}


def test_force_replaces_at_the_end_only(run: Path, folder: str) -> None:
    before = tree(run)
    assert m2sd_cli.distill(folder, run=run, force=True, seed=1, stop_after=0, **QUICK_DISTILL) is None
    assert without_training(tree(run)) == before
    m2sd_cli.distill(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert RunFolder(run).sessions() == [0]
    after = tree(run)
    assert after["session-000.safetensors"] != before["session-000.safetensors"]
    assert after["pretrain.json"] == before["pretrain.json"]
    assert RunFolder(run).verify() == []

    assert m2sd_cli.pretrain(folder, run=run, force=True, seed=1, stop_after=0, **QUICK) is None
    assert without_training(tree(run)) == after
    m2sd_cli.pretrain(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert RunFolder(run).sessions() == []
    assert tree(run)["pretrain.safetensors"] != before["pretrain.safetensors"]
    assert RunFolder(run).verify() == []


def test_a_single_image_left_over_joins_the_last_batch(folder: str, tmp_path: Path) -> None:
    for size in (31, 32):  # of 32 images
        m2sd_cli.pretrain(folder, run=tmp_path / str(size), **QUICK | {"batch_size": size})
    assert sha256(tmp_path / "31" / "pretrain.safetensors") == sha256(tmp_path / "32" / "pretrain.safetensors")


def test_two_classes_of_an_image_each_are_enough(stripes: Stripes, tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        (tmp_path / "few" / "train" / colour).mkdir(parents=True)
        shutil.copy(next((stripes.folder / "train" / colour).iterdir()), tmp_path / "few" / "train" / colour)
        if number == 0:
            with pytest.raises(DataError, match="few: 1 base class; at least two are needed, a folder each"):
                m2sd_cli.pretrain(str(tmp_path / "few"), run=tmp_path / "run", **QUICK)
            assert not (tmp_path / "run").exists()
    m2sd_cli.pretrain(str(tmp_path / "few"), run=tmp_path / "run", **QUICK)
    assert RunFolder(tmp_path / "run").verify() == []


def test_a_broken_image_is_named_and_nothing_is_left(folder: str, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "colours"))
    (broken / "train" / "red" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"red/broken\.png: not an image"):
        m2sd_cli.pretrain(str(broken), run=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_no_epochs_of_distill_take_the_network_of_pretrain(to_distill: Path, folder: str) -> None:
    stored = finished(m2sd_cli.distill(folder, run=to_distill, **QUICK_DISTILL | {"epochs": 0}))
    assert stored.manifest.history == []
    before, after = load_file(to_distill / "pretrain.safetensors"), load_file(to_distill / "session-000.safetensors")
    del before["classifier.weight"]
    others = after.keys() - before.keys()
    assert all(torch.isfinite(after[name]).all() for name in others)
    assert all(name == "class_means" or name.startswith("statistics.") for name in others)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_distill_trains_the_network(whole: Path) -> None:
    before, after = load_file(whole / "pretrain.safetensors"), load_file(whole / "session-000.safetensors")
    trained = [name for name in after if name in before and not torch.equal(before[name], after[name])]
    assert any(name.endswith("weight") for name in trained)
    terms = history(whole, "session-000")[-1].terms
    assert {"ce", "kl", "kd", "attention", "teacher"} <= terms.keys()
    assert all(value >= 0 for value in terms.values())


def test_without_any_loss_there_is_nothing_to_train(to_distill: Path, folder: str) -> None:
    names = ["ce_weight", "kl_weight", "kd_weight", "attention_weight", "teacher_weight", "clean_weight"]
    nothing: Any = dict.fromkeys(names, 0.0)
    with pytest.raises(UsageError, match="every loss weight is 0: nothing would be trained; --epochs 0"):
        m2sd_cli.distill(folder, run=to_distill, **QUICK_DISTILL, **nothing)
    assert RunFolder(to_distill).sessions() == []
    stored = finished(m2sd_cli.distill(folder, run=to_distill, **QUICK_DISTILL, **nothing | {"clean_weight": 1.0}))
    assert stored.manifest.history[0].terms.keys() == {"clean"}


def test_on_a_cpu_large_maps_are_made_twice_and_nothing_else_changes(
    folder: str, to_distill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = finished(m2sd_cli.distill(folder, run=to_distill, **QUICK_DISTILL))
    digests = [plain.manifest.checkpoint.sha256]
    again: list[str] = []

    def spy(function: Any, x: Tensor, **options: Any) -> Any:
        again.append(type(function.__self__).__name__)
        return checkpoint(function, x, **options)

    monkeypatch.setattr(recomputation, "LARGE", 0)
    monkeypatch.setattr(recomputation, "memory", lambda: (2**34, 0))
    monkeypatch.setattr(recomputation, "checkpoint", spy)
    spared = finished(m2sd_cli.distill(folder, run=to_distill, force=True, **QUICK_DISTILL))
    digests.append(spared.manifest.checkpoint.sha256)
    assert {"ResNet", "Sequential", "SelfAttention", "CoordinateAttention"} == set(again)
    assert digests[0] == digests[1]


def test_the_seed_of_distill_is_that_of_pretrain(folder: str, tmp_path: Path) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "run", seed=7, **QUICK)
    stored = finished(m2sd_cli.distill(folder, run=tmp_path / "run", **QUICK_DISTILL))
    assert stored.manifest.seed == 7


def test_half_precision_is_recorded(folder: str, tmp_path: Path) -> None:
    stored = finished(m2sd_cli.pretrain(folder, run=tmp_path / "run", **QUICK | {"precision": "bf16"}))
    assert stored.manifest.precision == "bf16"
    tensors = load_file(tmp_path / "run" / "pretrain.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}


def test_progress_counts_up_to_the_end(folder: str, tmp_path: Path) -> None:
    watcher = Watcher(0, lambda: None)
    with report_to(watcher):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", **QUICK | {"epochs": 2})
    assert [(each.epoch, each.step) for each in watcher.seen] == [(1 + step // 4, step + 1) for step in range(8)]
    last = watcher.seen[-1]
    assert (last.epochs, last.steps, last.seconds_left) == (2, 8, 0)
    ended = history(tmp_path / "run", "pretrain")[-1]
    assert last.loss == pytest.approx(ended.loss)
    assert last.accuracy == ended.accuracy
    assert watcher.seen[0].seconds_left > 0
    assert watcher.seen[0].images_per_second > 0
