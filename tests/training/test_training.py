"""The training stages on a run folder: repeated, stopped, resumed, failing, replaced."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import m2sd_cli
from m2sd_cli.config import DistillConfig, PretrainConfig, resolve
from m2sd_cli.data import mapped
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.sources import FileImages, TrainingImages
from m2sd_cli.errors import DataError, InterruptedTrainingError, M2sdError, RunError, UsageError
from m2sd_cli.progress import Reporter, Snapshot, report_to
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import EpochRecord
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training import recomputation
from m2sd_cli.training.distill import build_enhancement, distill_objective, loss_weights, saves_memory
from m2sd_cli.training.pretrain import build_network
from m2sd_cli.training.stopping import SIGNALS, StopRequest
from tests.helpers import Pictures, Tree, sha256


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
def folder(pictures: Pictures) -> str:
    return str(pictures.folder)


@pytest.fixture(scope="module")
def whole(
    folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two epochs of both stages, never interrupted: eight steps each."""
    run = tmp_path_factory.mktemp("whole") / "run"
    m2sd_cli.pretrain(folder, run=run, **quick | {"epochs": 2})
    m2sd_cli.distill(folder, run=run, **quick_distill | {"epochs": 2})
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


def test_one_seed_gives_one_result(
    whole: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(99)  # what happened before in this process does not matter
    m2sd_cli.pretrain(folder, run=tmp_path / "run", **quick | {"epochs": 2})
    torch.rand(5)
    m2sd_cli.distill(folder, run=tmp_path / "run", **quick_distill | {"epochs": 2})
    for name in ("pretrain", "session-000"):
        assert sha256(tmp_path / "run" / f"{name}.safetensors") == sha256(whole / f"{name}.safetensors")
        assert history(tmp_path / "run", name) == history(whole, name)


@pytest.mark.parametrize("resident", [0, mapped.RESIDENT], ids=["large", "small"])
def test_images_of_a_file_give_what_images_in_memory_give(
    folder: str,
    quick: dict[str, Any],
    quick_distill: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resident: int,
) -> None:
    def both_stages(run: Path) -> list[str]:
        m2sd_cli.pretrain(folder, run=run, **quick | {"epochs": 2})
        m2sd_cli.distill(folder, run=run, **quick_distill)
        return [sha256(path) for path in sorted(run.glob("*.safetensors"))]

    used: list[TrainingImages] = []
    from_file = FileImages.for_training

    def in_memory(source: FileImages, augmentation: Augmentation) -> TrainingImages:
        assert augmentation.store is not None
        size = (augmentation.store, augmentation.store)
        pictures = [open_rgb(path) for path in source.paths]
        images = [np.asarray(each.resize(size, Image.Resampling.BILINEAR)) for each in pictures]
        aspects = torch.tensor([each.width / each.height for each in pictures])
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


def test_another_seed_gives_another_result(
    to_distill: Path, whole: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tmp_path: Path
) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "other", seed=1, **quick | {"epochs": 2})
    assert sha256(tmp_path / "other" / "pretrain.safetensors") != sha256(whole / "pretrain.safetensors")
    m2sd_cli.distill(folder, run=to_distill, seed=1, **quick_distill | {"epochs": 2})
    assert sha256(to_distill / "session-000.safetensors") != sha256(whole / "session-000.safetensors")


def test_a_pretrain_stopped_after_every_step_ends_as_one_that_was_not(
    whole: Path, folder: str, quick: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"run": run, "stop_after": 0, **quick, "epochs": 2}
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
    whole: Path, to_distill: Path, folder: str, quick_distill: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"run": to_distill, "stop_after": 0, **quick_distill, "epochs": 2}
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
    whole: Path, folder: str, quick: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    watcher = Watcher(6, lambda: signal.raise_signal(number))
    with pytest.raises(InterruptedTrainingError, match="--resume") as raised, report_to(watcher):
        m2sd_cli.pretrain(folder, run=run, **quick | {"epochs": 2})
    assert raised.value.exit_code == 130
    assert watcher.seen[-1].step == 6
    assert (run / "training" / "step-000000006.safetensors").is_file()
    m2sd_cli.pretrain(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert sha256(run / "pretrain.safetensors") == sha256(whole / "pretrain.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(
    folder: str, quick: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    request.addfinalizer(lambda: signal.signal(number, before))
    watcher = Watcher(2, lambda: signal.raise_signal(number))
    with report_to(watcher):
        assert m2sd_cli.pretrain(folder, run=tmp_path / "run", **quick) is not None


def test_a_second_signal_ends_it_at_once(folder: str, quick: dict[str, Any], tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), report_to(Watcher(2, twice)):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", **quick)


def test_a_crash_loses_what_came_after_the_last_save(
    whole: Path, to_distill: Path, folder: str, quick_distill: dict[str, Any]
) -> None:
    def crash() -> None:
        raise MemoryError

    with pytest.raises(MemoryError), report_to(Watcher(4, crash)):
        m2sd_cli.distill(folder, run=to_distill, save_every=0, **quick_distill | {"epochs": 2})
    assert (to_distill / "training" / "step-000000003.safetensors").is_file()
    m2sd_cli.distill(folder, run=to_distill, resume=True, device="cpu", precision="fp32")
    assert sha256(to_distill / "session-000.safetensors") == sha256(whole / "session-000.safetensors")


def test_a_process_that_is_told_to_end_saves_and_can_go_on(
    whole: Path, folder: str, quick: dict[str, Any], tmp_path: Path
) -> None:
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


def test_signals_are_the_main_threads_business() -> None:
    request = StopRequest()

    def elsewhere() -> None:
        with request.on_signals():
            request.interrupted = True

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert request.wanted


def test_a_time_limit_is_counted_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    request, endless = StopRequest(after=30), StopRequest()
    now = 129.0
    assert not request.wanted
    now = 130.0
    assert request.wanted
    assert not endless.wanted


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 3), ("batch_size", 4), ("learning_rate", 0.2), ("seed", 1), ("scale", 8.0)]
)
def test_an_option_that_differs_from_the_beginning_is_refused(
    folder: str, quick: dict[str, Any], tmp_path: Path, tree: Tree, option: str, value: float
) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "run", stop_after=0, **quick)
    before = tree(tmp_path)
    changed: Any = {option: value}
    with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')} {value}: the training began with"):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", resume=True, device="cpu", precision="fp32", **changed)
    assert tree(tmp_path) == before


def test_a_loss_weight_that_differs_from_the_beginning_is_refused(
    to_distill: Path, folder: str, quick_distill: dict[str, Any]
) -> None:
    m2sd_cli.distill(folder, run=to_distill, stop_after=0, **quick_distill)
    with pytest.raises(UsageError, match=r"^--kl-weight 2\.0: the training began with 1\.0"):
        m2sd_cli.distill(folder, run=to_distill, resume=True, kl_weight=2.0)


def test_there_must_be_something_to_resume(
    to_distill: Path, folder: str, quick: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="no interrupted training in it"):
        m2sd_cli.pretrain(folder, run=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(RunError, match="no interrupted training in it"):
        m2sd_cli.distill(folder, run=to_distill, resume=True)


def test_a_stage_does_not_resume_the_others_training(
    to_distill: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any]
) -> None:
    m2sd_cli.distill(folder, run=to_distill, stop_after=0, **quick_distill)
    with pytest.raises(RunError, match="the interrupted training is distill's"):
        m2sd_cli.pretrain(folder, run=to_distill, resume=True)
    with pytest.raises(RunError, match="a finished pretrain is in it"):
        m2sd_cli.pretrain(folder, run=to_distill, **quick)


def test_resuming_what_has_finished_returns_it(whole: Path, folder: str) -> None:
    pretrain = m2sd_cli.pretrain(folder, run=whole, resume=True)
    base = m2sd_cli.distill(folder, run=whole, resume=True)
    assert pretrain is not None
    assert base is not None
    assert (pretrain.name, base.name) == ("pretrain", "session-000")


def test_other_images_cannot_be_resumed_on(
    folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], to_distill: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "colours"))
    picture = next((other / "train" / "red").iterdir())
    shutil.copy(next((other / "train" / "blue").iterdir()), picture)
    m2sd_cli.pretrain(folder, run=tmp_path / "begun", stop_after=0, **quick)
    with pytest.raises(RunError, match="began on other images"):
        m2sd_cli.pretrain(str(other), run=tmp_path / "begun", resume=True, device="cpu")
    with pytest.raises(RunError, match="pretrained on other images than those of colours; give distill the same"):
        m2sd_cli.distill(str(other), run=to_distill, **quick_distill)


def test_a_distill_goes_on_from_its_own_pretrain_only(
    to_distill: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    m2sd_cli.pretrain(folder, run=other, seed=1, **quick)
    m2sd_cli.distill(folder, run=other, seed=0, stop_after=0, **quick_distill)
    shutil.copytree(other / "training", to_distill / "training")
    with pytest.raises(RunError, match=r"pretrain\.json was written after this training began"):
        m2sd_cli.distill(folder, run=to_distill, resume=True)
    run = RunFolder(to_distill)
    newest, state = run.newest(), StateStore(run).load()
    assert newest is not None
    forged = state.model_copy(update={"head": newest.sha256})
    (to_distill / "training" / "state.json").write_bytes(forged.encoded())
    with pytest.raises(RunError, match="began from another pretrain"):
        m2sd_cli.distill(folder, run=to_distill, resume=True, device="cpu")


def test_a_begun_training_is_not_silently_replaced(
    folder: str, quick: dict[str, Any], tmp_path: Path, tree: Tree
) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(folder, run=run, stop_after=0, **quick)
    before = tree(run)
    with pytest.raises(RunError, match="an interrupted pretrain is in it; go on with --resume, or start over"):
        m2sd_cli.pretrain(folder, run=run, **quick)
    assert tree(run) == before
    stored = m2sd_cli.pretrain(folder, run=run, force=True, **quick)
    assert stored is not None
    assert not (run / "training").exists()


def test_a_finished_training_is_not_silently_replaced(
    run: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tree: Tree
) -> None:
    before = tree(run)
    with pytest.raises(RunError, match="a finished pretrain is in it; --force replaces it") as raised:
        m2sd_cli.pretrain(folder, run=run, **quick)
    assert raised.value.exit_code == 4
    with pytest.raises(RunError, match="session 2 is in it; --force replaces it"):
        m2sd_cli.distill(folder, run=run, **quick_distill)
    assert tree(run) == before


def without_training(files: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: content for name, content in files.items() if not name.startswith("training")}


def test_force_replaces_at_the_end_only(
    run: Path, folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tree: Tree
) -> None:
    before = tree(run)
    assert m2sd_cli.distill(folder, run=run, force=True, seed=1, stop_after=0, **quick_distill) is None
    assert without_training(tree(run)) == before
    m2sd_cli.distill(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert RunFolder(run).sessions() == [0]
    after = tree(run)
    assert after["session-000.safetensors"] != before["session-000.safetensors"]
    assert after["pretrain.json"] == before["pretrain.json"]
    assert RunFolder(run).verify() == []

    assert m2sd_cli.pretrain(folder, run=run, force=True, seed=1, stop_after=0, **quick) is None
    assert without_training(tree(run)) == after
    m2sd_cli.pretrain(folder, run=run, resume=True, device="cpu", precision="fp32")
    assert RunFolder(run).sessions() == []
    assert tree(run)["pretrain.safetensors"] != before["pretrain.safetensors"]
    assert RunFolder(run).verify() == []


def test_a_single_image_left_over_joins_the_last_batch(folder: str, quick: dict[str, Any], tmp_path: Path) -> None:
    for size in (31, 32):  # of 32 images
        m2sd_cli.pretrain(folder, run=tmp_path / str(size), **quick | {"batch_size": size})
    assert sha256(tmp_path / "31" / "pretrain.safetensors") == sha256(tmp_path / "32" / "pretrain.safetensors")


def test_two_classes_of_an_image_each_are_enough(pictures: Pictures, quick: dict[str, Any], tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        (tmp_path / "few" / "train" / colour).mkdir(parents=True)
        shutil.copy(next((pictures.folder / "train" / colour).iterdir()), tmp_path / "few" / "train" / colour)
        if number == 0:
            with pytest.raises(UsageError, match="few: 1 base class; pretrain needs at least two"):
                m2sd_cli.pretrain(str(tmp_path / "few"), run=tmp_path / "run", **quick)
            assert not (tmp_path / "run").exists()
    m2sd_cli.pretrain(str(tmp_path / "few"), run=tmp_path / "run", **quick)
    assert RunFolder(tmp_path / "run").verify() == []


def test_a_broken_picture_is_named_and_nothing_is_left(folder: str, quick: dict[str, Any], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "colours"))
    (broken / "train" / "red" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"red/broken\.png: not a picture"):
        m2sd_cli.pretrain(str(broken), run=tmp_path / "run", **quick)
    assert not (tmp_path / "run").exists()


def test_no_epochs_of_distill_take_the_network_of_pretrain(
    to_distill: Path, folder: str, quick_distill: dict[str, Any]
) -> None:
    stored = m2sd_cli.distill(folder, run=to_distill, **quick_distill | {"epochs": 0})
    assert stored is not None
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


def test_without_any_loss_there_is_nothing_to_train(
    to_distill: Path, folder: str, quick_distill: dict[str, Any]
) -> None:
    names = ["ce_weight", "kl_weight", "kd_weight", "attention_weight", "teacher_weight"]
    nothing: Any = dict.fromkeys(names, 0.0)
    with pytest.raises(UsageError, match="every loss weight is 0: nothing would be trained; --epochs 0"):
        m2sd_cli.distill(folder, run=to_distill, **quick_distill, **nothing)
    assert RunFolder(to_distill).sessions() == []
    stored = m2sd_cli.distill(folder, run=to_distill, clean_weight=1.0, **quick_distill, **nothing)
    assert stored is not None
    assert stored.manifest.history[0].terms.keys() == {"clean"}


@pytest.mark.parametrize("enhancement", ["full", "no-attention", "no-pyramid"])
@pytest.mark.parametrize(("mixing", "images"), [("both", 10), ("mixup", 5), ("cutmix", 5), ("none", 5)])
def test_branches_and_enhancement_are_those_of_the_configuration(mixing: str, images: int, enhancement: str) -> None:
    config = resolve(DistillConfig, {"epochs": 1}, None, {"mixing": mixing, "enhancement": enhancement})
    network = build_network(PretrainConfig(epochs=1, backbone="resnet20"), 3)
    weights = loss_weights(config)
    made = build_enhancement(network, config, weights)
    assert made is not None
    parts = {type(each).__name__ for each in made.modules()}
    assert ("SelfAttention" in parts, "BiFPN" in parts) == (enhancement != "no-attention", enhancement != "no-pyramid")
    seen: list[int] = []
    network.backbone.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    objective = distill_objective(network, made, config, weights)
    _, terms = objective(torch.randn(5, 3, 8, 8), torch.arange(5) % 3, torch.Generator(), slice(None))
    assert seen == [images]
    assert set(terms) == {"ce", "kd", "attention", "teacher", *(["kl"] if mixing == "both" else [])}


def test_on_a_cpu_large_maps_are_made_twice_and_nothing_else_changes(
    folder: str, to_distill: Path, quick_distill: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = m2sd_cli.distill(folder, run=to_distill, **quick_distill)
    assert plain is not None
    digests = [plain.manifest.checkpoint.sha256]
    again: list[str] = []

    def spy(function: Any, x: Tensor, **options: Any) -> Any:
        again.append(type(function.__self__).__name__)
        return checkpoint(function, x, **options)

    monkeypatch.setattr(recomputation, "LARGE", 0)
    monkeypatch.setattr(recomputation, "checkpoint", spy)
    spared = m2sd_cli.distill(folder, run=to_distill, force=True, **quick_distill)
    assert spared is not None
    digests.append(spared.manifest.checkpoint.sha256)
    assert {"ResNet", "Sequential", "SelfAttention", "CoordinateAttention"} == set(again)
    assert digests[0] == digests[1]


def test_the_seed_of_distill_is_that_of_pretrain(
    folder: str, quick: dict[str, Any], quick_distill: dict[str, Any], tmp_path: Path
) -> None:
    m2sd_cli.pretrain(folder, run=tmp_path / "run", seed=7, **quick)
    stored = m2sd_cli.distill(folder, run=tmp_path / "run", **quick_distill)
    assert stored is not None
    assert stored.manifest.seed == 7


def test_half_precision_is_recorded(folder: str, quick: dict[str, Any], tmp_path: Path) -> None:
    stored = m2sd_cli.pretrain(folder, run=tmp_path / "run", **quick | {"precision": "bf16"})
    assert stored is not None
    assert stored.manifest.precision == "bf16"
    tensors = load_file(tmp_path / "run" / "pretrain.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}


def test_progress_counts_up_to_the_end(folder: str, quick: dict[str, Any], tmp_path: Path) -> None:
    watcher = Watcher(0, lambda: None)
    with report_to(watcher):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", **quick | {"epochs": 2})
    assert [(each.epoch, each.step) for each in watcher.seen] == [(1 + step // 4, step + 1) for step in range(8)]
    last = watcher.seen[-1]
    assert (last.epochs, last.steps, last.seconds_left) == (2, 8, 0)
    ended = history(tmp_path / "run", "pretrain")[-1]
    assert last.loss == pytest.approx(ended.loss)
    assert last.accuracy == ended.accuracy
    assert watcher.seen[0].seconds_left > 0
    assert watcher.seen[0].images_per_second > 0


@pytest.mark.parametrize("end", ["safetensors", "pth"])
def test_weights_from_a_file(whole: Path, folder: str, quick: dict[str, Any], tmp_path: Path, end: str) -> None:
    weights = {
        name.removeprefix("backbone."): tensor
        for name, tensor in load_file(whole / "pretrain.safetensors").items()
        if name.startswith("backbone.")
    }
    file = tmp_path / f"weights.{end}"
    if end == "pth":
        torch.save(weights, file)
    else:
        save_file(weights, file)
    rate: Any = quick | {"learning_rate": 1e-30, "weight_decay": 0.0}
    stored = m2sd_cli.pretrain(folder, run=tmp_path / "run", init=str(file), **rate)
    assert stored is not None
    assert stored.manifest.config["init"] == f"weights.{end}"
    begun = load_file(tmp_path / "run" / "pretrain.safetensors")
    parameters = [name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert parameters
    assert all(torch.equal(begun[f"backbone.{name}"], weights[name]) for name in parameters)


def test_weights_named_in_a_file_of_options_leave_no_path(
    whole: Path, folder: str, quick: dict[str, Any], tmp_path: Path
) -> None:
    save_file(
        {
            name.removeprefix("backbone."): tensor
            for name, tensor in load_file(whole / "pretrain.safetensors").items()
            if name.startswith("backbone.")
        },
        tmp_path / "weights.safetensors",
    )
    config = tmp_path / "options.toml"
    config.write_text(f"[pretrain]\ninit = {str(tmp_path / 'weights.safetensors')!r}\n")
    stored = m2sd_cli.pretrain(folder, run=tmp_path / "run", config=config, **quick)
    assert stored is not None
    assert str(tmp_path) not in (tmp_path / "run" / "pretrain.json").read_text()


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return print, ("this must not run",)


def test_weights_that_cannot_be_used_are_refused(
    folder: str, quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(name: str) -> str:
        with pytest.raises(M2sdError) as raised:
            m2sd_cli.pretrain(folder, run=tmp_path / "run", init=str(tmp_path / name), **quick)
        assert isinstance(raised.value, DataError)
        assert not (tmp_path / "run").exists()
        return str(raised.value)

    assert "no such file" in refused("absent.pth")
    (tmp_path / "text.safetensors").write_text("weights")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps({"x": Harmful()}))
    torch.save({"x": Harmful()}, tmp_path / "harmful.zip.pth")
    torch.save({"x": 1}, tmp_path / "number.pth")
    torch.save({1: torch.ones(1)}, tmp_path / "numbered.pth")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    for name in (
        *("text.safetensors", "text.pth", "harmful.pth", "harmful.zip.pth", "number.pth", "numbered.pth"),
        *("folder.pth", "pipe.pth"),
    ):
        assert name in refused(name)
    assert "must not run" not in capsys.readouterr().out
    save_file({"conv.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    assert "not the weights of this backbone" in refused("other.safetensors")


def test_weights_that_are_too_large_are_refused_before_they_are_read(
    folder: str, quick: dict[str, Any], tmp_path: Path
) -> None:
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(2**40)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for number in range(5):
            bomb.writestr(f"data/{number}", bytes(2**20))
    content = bytearray((tmp_path / "bomb.pth").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(
        4, "little"
    )  # what it says that the first unpacks to
    (tmp_path / "bomb.pth").write_bytes(content)
    for name in ("large.pth", "bomb.pth"):
        with pytest.raises(DataError, match=f"{name}: larger than any weights"):
            m2sd_cli.pretrain(folder, run=tmp_path / "run", init=str(tmp_path / name), **quick)
    assert not (tmp_path / "run").exists()


def test_what_was_downloaded_is_opened_without_running_it(
    folder: str,
    quick: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    for content, complaint in ((Harmful(), "damaged .*; remove resnet18"), (1, "not a state dict of tensors")):
        torch.save(content, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
        with pytest.raises(DataError, match=f"--init imagenet: .*{complaint}"):
            m2sd_cli.pretrain(folder, run=tmp_path / "run", init="imagenet", **quick | {"backbone": "resnet18"})
    assert "must not run" not in capsys.readouterr().out


def test_weights_of_imagenet_that_cannot_be_fetched(
    folder: str, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.ResNet18_Weights.get_state_dict", offline)
    with pytest.raises(DataError, match=r"could not be downloaded \(no network\); name a local file with --init FILE"):
        m2sd_cli.pretrain(folder, run=tmp_path / "run", init="imagenet", **quick | {"backbone": "resnet18"})
    assert not (tmp_path / "run").exists()


def test_a_session_added_meanwhile_is_not_overwritten(
    run: Path, pictures: Pictures, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    import m2sd_cli.api.increment as increment

    RunFolder(run).remove_sessions(first=1)
    real: Any = vars(increment)["shot_features"]
    afterwards: dict[str, bytes | None] = {}

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(increment, "shot_features", real)
        m2sd_cli.increment(1, pictures.second_shots, run=run, device="cpu")
        afterwards.update(tree(run))
        return real(*arguments)

    monkeypatch.setattr(increment, "shot_features", slow)
    with pytest.raises(RunError, match="a session was added, removed or replaced meanwhile; try again"):
        m2sd_cli.increment(1, pictures.first_shots, run=run, device="cpu")
    assert tree(run) == afterwards


def test_maps_are_made_again_by_one_process_on_a_cpu_alone() -> None:
    """The parts of a batch may differ by an image: one of two processes would wait for the other's batch norms."""
    assert saves_memory(torch.device("cpu"))
    assert not saves_memory(torch.device("cpu"), processes=2)
    assert not saves_memory(torch.device("cuda"))
