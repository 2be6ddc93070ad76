"""The figures of the epochs: in the log, for TensorBoard, for a function of the caller."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.inference.features import embed
from m2sd_cli.method.network import Network
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.training_log import TrainingLog
from m2sd_cli.training import epochs
from m2sd_cli.training.epochs import EpochFigures, HeldOutAccuracy, check_tensorboard
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes

Figures = list[EpochFigures]
STAGES = ("pretrain", "distill")
ASKED: dict[str, Any] = {**QUICK, "epochs": 3, "held_out": 0.25}


@pytest.fixture(scope="module")
def told(stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    """Train both stages with everything that hears of epochs. Not to be changed."""
    home = tmp_path_factory.mktemp("told")
    figures: Figures = []
    hear: dict[str, Any] = {"run": home / "run", "on_epoch": figures.append, "tensorboard": home / "curves"}
    m2sd_cli.pretrain(stripes.folder, **ASKED, **hear)
    m2sd_cli.distill(stripes.folder, **QUICK_DISTILL, **hear)
    return home, figures


def lines(run: Path) -> list[dict[str, Any]]:
    return TrainingLog(run, STAGES).lines()


def numbers(run: Path) -> list[tuple[str, int]]:
    return [(line["stage"], line["epoch"]) for line in lines(run)]


def test_the_log_has_a_line_for_every_epoch(told: tuple[Path, Figures]) -> None:
    home, figures = told
    written = lines(home / "run")
    assert [(each.stage, each.epoch) for each in figures] == numbers(home / "run")
    assert numbers(home / "run") == [("pretrain", 1), ("pretrain", 2), ("pretrain", 3), ("distill", 1)]
    run = RunFolder(home / "run")
    history = [*run.pretrain().manifest.history, *run.session(0).manifest.history]
    for line, figure, record in zip(written, figures, history, strict=True):
        assert {**figure.as_line(), "time": line["time"]} == line
        assert record.model_dump() == {name: line[name] for name in record.model_dump()}
        assert line["images_per_second"] > 0
        assert line["peak_memory"] > 2**20
    seconds = [line["seconds"] for line in written]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert {"ce", "kl"} <= written[-1]["terms"].keys()


def test_the_network_is_that_of_the_stage(told: tuple[Path, Figures]) -> None:
    _, figures = told
    assert all(isinstance(each.network, Network) and each.network.training for each in figures)
    assert len({id(each.network) for each in figures}) == 2


def test_who_listens_changes_no_weight(told: tuple[Path, Figures], stripes: Stripes, tmp_path: Path) -> None:
    home, _ = told
    run = RunFolder(tmp_path)
    m2sd_cli.pretrain(stripes.folder, run=tmp_path, **ASKED)
    m2sd_cli.distill(stripes.folder, run=tmp_path, **QUICK_DISTILL)
    for name in ("pretrain", "session-000"):
        assert run.read(name).manifest.checkpoint == RunFolder(home / "run").read(name).manifest.checkpoint


def test_held_out_accuracy_is_that_of_w(stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "HELD_OUT_SHARE", 1e9)  # at every epoch, however long it takes
    found: list[float] = []
    heard: Figures = []

    def measure(accuracy: HeldOutAccuracy, network: Network, _seconds: float) -> float:
        [(pixels, labels)] = accuracy._source.batches(accuracy._transform, 99)
        network.eval()
        with torch.no_grad():
            logits = network.class_weights(embed(network.backbone, pixels, accuracy._transform))
        network.train()
        assert len(labels) == 8
        found.append(sum(row.argmax() == label for row, label in zip(logits, labels, strict=True)).item() / 8)
        return actual(accuracy, network, _seconds) or -1

    actual = HeldOutAccuracy.measure
    monkeypatch.setattr(HeldOutAccuracy, "measure", measure)
    m2sd_cli.pretrain(stripes.folder, run=tmp_path, on_epoch=heard.append, **ASKED)
    assert [each.held_out_accuracy for each in heard] == [each or -1 for each in found]
    assert [each.held_out_every for each in heard] == [1, 1, 1]


@pytest.mark.parametrize("cost", [0.001, 0.1, 1.0, 3.7])
def test_held_out_images_take_no_more_than_their_share_of_the_time(
    cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ArrayImages(torch.zeros(100, 4, 4, 3, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64))
    accuracy = HeldOutAccuracy(images, TestTransform(4, 4, (0.5,) * 3, (0.5,) * 3), "fp32")
    measured: list[int] = []

    def count(_self: object, _network: object, shard: slice) -> tuple[int, float]:
        measured.append(shard.stop)
        return shard.stop // 2, cost * shard.stop / 100

    monkeypatch.setattr(HeldOutAccuracy, "_right", count)
    network: Any = None
    for epoch in range(1, 501):
        assert accuracy.measure(network, 10.0) in (None, 0.5)
        assert accuracy.every is not None
        assert accuracy.every == max(1, -(-cost // 0.2))
        assert cost * measured.count(100) <= 0.02 * 10.0 * epoch
    assert measured.count(100) == 500 // (accuracy.every or 1)
    assert measured.count(32) == 1


def test_no_held_out_image_no_accuracy(trained: Path) -> None:
    assert {(each["held_out_accuracy"], each["held_out_every"]) for each in lines(trained)} == {(None, None)}


@pytest.mark.parametrize("torn", [False, True])
def test_a_resumed_training_goes_on_with_the_log(
    told: tuple[Path, Figures], stripes: Stripes, tmp_path: Path, torn: bool
) -> None:
    run, curves = tmp_path / "run", tmp_path / "curves"
    stopped: Figures = []

    def stop(figures: EpochFigures) -> None:
        stopped.append(figures)
        if figures.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # after it was saved in the first epoch for the last time
        m2sd_cli.pretrain(stripes.folder, run=run, tensorboard=curves, on_epoch=stop, save_every=0.0, **ASKED)
    assert numbers(run) == [("pretrain", 1), ("pretrain", 2)]
    if torn:
        log = run / "log.jsonl"
        log.write_bytes(log.read_bytes()[:-20])
    m2sd_cli.pretrain(stripes.folder, run=run, resume=True, tensorboard=curves, device="cpu")
    assert numbers(run) == [("pretrain", 1), ("pretrain", 2), ("pretrain", 3)]
    before = [line["loss"] for line in lines(told[0] / "run")][:3]
    assert [line["loss"] for line in lines(run)] == before
    assert scalars(curves / "pretrain", "loss") == [(1, before[0]), (2, before[1]), (3, before[2])]


def test_a_new_stage_begins_its_part_of_the_log(told: tuple[Path, Figures], stripes: Stripes, tmp_path: Path) -> None:
    run = Path(shutil.copytree(told[0] / "run", tmp_path / "run"))
    m2sd_cli.distill(stripes.folder, run=run, force=True, **QUICK_DISTILL)
    assert numbers(run) == numbers(told[0] / "run")
    assert lines(run)[3] != lines(told[0] / "run")[3]
    m2sd_cli.distill(stripes.folder, run=run, force=True, epochs=0, device="cpu")
    assert numbers(run) == [("pretrain", 1), ("pretrain", 2), ("pretrain", 3)]
    m2sd_cli.pretrain(stripes.folder, run=run, force=True, **QUICK)
    assert numbers(run) == [("pretrain", 1)]


def test_a_log_that_cannot_be_written_ends_no_training(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "log.jsonl").mkdir(parents=True)
    words = ["--epochs", 2, "--batch-size", 8, "--image-size", 16, "--backbone", "resnet20", "--device", "cpu"]
    done = m2sd("pretrain", "--data", stripes.folder, "--run", run, *words)
    assert (done.code, done.out) == (0, "")
    assert done.err.count("cannot be written") == 1
    assert f"{run / 'log.jsonl'}: cannot be written (not a regular file); the training goes on" in done.err
    assert m2sd("sessions", "verify", "--run", run).code == 0


def test_the_chain_does_not_cover_the_log(m2sd: Cli, told: tuple[Path, Figures], tmp_path: Path) -> None:
    run = Path(shutil.copytree(told[0] / "run", tmp_path / "run"))
    before = m2sd("sessions", "verify", "--run", run)
    (run / "log.jsonl").write_bytes(b"anything")
    assert m2sd("sessions", "verify", "--run", run) == before
    (run / "log.jsonl").unlink()
    assert m2sd("sessions", "verify", "--run", run) == before


def test_the_example_of_a_function_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    text = (Path(epochs.__file__).parents[1] / "runs" / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert '"demo", run' in example
    pretrain = m2sd_cli.pretrain

    def smaller(data: str, **options: Any) -> object:
        return pretrain(data, batch_size=256, images_per_class=32, device="cpu", **options)

    monkeypatch.setattr(m2sd_cli, "pretrain", smaller)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.startswith("pretrain 1 ")
    assert all(f"`{name}`" in text for name in lines(tmp_path / "heard")[0])


# ---- TensorBoard


def scalars(folder: Path, name: str) -> list[tuple[int, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(each.step, pytest.approx(each.value)) for each in events.Scalars(name)]


def test_tensorboard_has_the_curves_of_each_stage(told: tuple[Path, Figures]) -> None:
    home, figures = told
    for stage, heard in (("pretrain", figures[:3]), ("distill", figures[3:])):
        folder = home / "curves" / stage
        for name in ("loss", "learning_rate", "images_per_second"):
            assert scalars(folder, name) == [(each.epoch, getattr(each, name)) for each in heard]
    assert scalars(home / "curves" / "distill", "terms/ce") == [(1, figures[3].terms["ce"])]
    assert scalars(home / "curves" / "pretrain", "accuracy") == [(each.epoch, each.accuracy) for each in figures[:3]]


def test_without_its_package_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(M2sdError, match=r"^--tensorboard: its package is not installed: pip install .*\[tensorboard\]"):
        check_tensorboard(tmp_path / "curves")
    assert not (tmp_path / "curves").exists()


def test_a_file_is_no_folder_for_tensorboard(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match=f"^--tensorboard {file}: not a folder; name another$"):
        check_tensorboard(file)
    with pytest.raises(M2sdError, match=f"^--tensorboard {file}/in: cannot be made"):
        check_tensorboard(file / "in")
