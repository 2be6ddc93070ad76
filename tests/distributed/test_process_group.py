"""Processes of torchrun at one training: their result is that of one process."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import m2sd_cli
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.cli.evaluate import as_data
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.distributed.batch_norm import SharedBatchNorm
from m2sd_cli.distributed.process_group import SINGLE_PROCESS, ProcessGroup, process_group, stdout_spared
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.features import base_features, held_out_features
from m2sd_cli.inference.session import to_transform
from m2sd_cli.progress import Reporter, Snapshot, report_to
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.distill import build_enhancement, distill_module, distill_objective, loss_weights
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.loop import Inputs, Objective, Training
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.stopping import StopRequest
from tests.helpers import PATIENCE, QUICK, QUICK_DISTILL, Stripes, finished
from tests.survival.nursery import End

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
STEPS = 3


def torchrun(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run two processes by torchrun itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*TORCHRUN, *map(str, arguments)]
    # After the two dashes, or torchrun would take --run for one of its own options cut short.
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


Pair = Callable[..., End]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_image_belongs_to_one_process_and_shares_are_even(count: int, size: int) -> None:
    shares = [range(count)[ProcessGroup(rank, size).shard(count)] for rank in range(size)]
    assert [each for share in shares for each in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    images = TrainingImages(
        torch.zeros(9, 8, 8, 3, dtype=torch.uint8), torch.ones(9), torch.zeros(9, dtype=torch.int64)
    )
    with pytest.raises(UsageError, match="--batch-size 7: a batch of 2 images cannot be shared by 3 processes"):
        Training(
            stage="pretrain",
            module=nn.Linear(1, 1),
            objective=lambda x, labels, generator, rows: (x.sum(), {}),
            inputs=Inputs(images, Augmentation(size=8, padding=1), TestTransform(8, 8, (0.0,) * 3, (1.0,) * 3)),
            config=PretrainConfig(epochs=1, batch_size=7),
            execution=Execution(torch.device("cpu"), "fp32", group=ProcessGroup(0, 3)),
            save=lambda position, tensors: None,
        )


def normalise_a_part(group: ProcessGroup, folder: Path) -> None:
    """One of two processes: its rows of a batch through a shared batch norm, there and back, twice."""
    x, weights, norm = batch_norm_case()
    norm.__class__ = SharedBatchNorm
    rows = group.shard(len(x))
    part = x[rows].requires_grad_()
    for _ in range(2):
        y = norm(part)
    torch.autograd.backward((y * weights[rows]).sum())
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert part.grad is not None
    group.all_reduce(norm.weight.grad, norm.bias.grad)
    found = [y.detach(), part.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    torch.save(found, folder / f"{group.rank}.pt")
    assert group.any(not group.is_main)
    assert not group.any(False)


def batch_norm_case() -> tuple[Tensor, Tensor, nn.BatchNorm2d]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 4, 2, generator=generator) * 7 + 300  # far from zero, where rounding hurts
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    return x, torch.randn(5, 3, 4, 2, generator=generator), norm


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two processes of this module, and name the folder of their results."""
    folder = tmp_path_factory.mktemp("computed")
    done = torchrun("--", "tests.distributed.test_process_group", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_batch_norm_has_the_statistics_and_gradients_of_the_whole_batch(computed: Path) -> None:
    first, second = (torch.load(computed / f"{rank}.pt", weights_only=True) for rank in range(2))
    x, weights, norm = batch_norm_case()
    norm = norm.double()
    x = x.double().requires_grad_()
    for _ in range(2):
        y = norm(x)
    torch.autograd.backward((y * weights).sum())
    assert x.grad is not None
    for number, whole in enumerate((y, x.grad)):
        torch.testing.assert_close(torch.cat([first[number], second[number]]).double(), whole, rtol=1e-3, atol=2e-4)
    for number, expected in enumerate((norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var), start=2):
        torch.testing.assert_close(first[number].double(), expected, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(first[number], second[number], rtol=0, atol=0)


def steps_of_both_stages(group: ProcessGroup, count: int) -> list[dict[str, float]]:
    """Record loss and accuracy of the first steps of each stage, of batches that do not divide evenly."""
    data = TrainingImages(
        torch.randint(0, 256, (32, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.ones(32),
        torch.arange(32) % 4,
    )
    seen: list[dict[str, float]] = []

    class Recorder(Reporter):
        interval = 0.0

        def show(self, snapshot: Snapshot) -> None:
            seen.append({"loss": snapshot.loss, "accuracy": snapshot.accuracy or 0.0})

    class Enough(StopRequest):
        @property
        def wanted(self) -> bool:
            return len(seen) % count == 0

    pretrain = PretrainConfig(epochs=9, batch_size=13, learning_rate=0.001, backbone="resnet20")
    network = build_network(pretrain, 4)
    distill = DistillConfig(epochs=9, batch_size=13, learning_rate=0.001, clean_weight=0.5)
    weights = loss_weights(distill)
    enhancement = build_enhancement(network, distill, weights)
    stages: list[tuple[nn.Module, Objective, PretrainConfig | DistillConfig]] = [
        (network, pretrain_objective(network, pretrain), pretrain),
        (
            distill_module(network, enhancement),
            distill_objective(network, enhancement, distill, weights),
            distill,
        ),
    ]
    for module, objective, config in stages:
        training = Training(
            stage="any",
            module=module,
            objective=objective,
            inputs=Inputs(data, Augmentation(size=16, padding=2), TestTransform(16, 16, (0.5,) * 3, (0.25,) * 3)),
            config=config,
            execution=Execution(torch.device("cpu"), "fp32", save_every=float("inf"), group=group),
            save=lambda position, tensors: None,
        )
        with report_to(Recorder()):
            training.run(Enough())
    return seen


def test_each_step_is_that_of_one_process(computed: Path) -> None:
    found = [json.loads((computed / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1], "what is recorded is of both processes"
    expected = steps_of_both_stages(SINGLE_PROCESS, STEPS)
    assert len(expected) == 2 * STEPS
    for number, (theirs, ours) in enumerate(zip(found[0], expected, strict=True)):
        assert theirs == pytest.approx(ours, rel=1e-3), number


def test_two_processes_leave_the_run_folder_that_one_leaves(stripes: Stripes, tmp_path: Path, pair: Pair) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    folder = str(stripes.folder)
    settings = {"epochs": 2, "batch_size": 13, "learning_rate": 0.0005}
    m2sd_cli.pretrain(folder, run=alone, held_out=0.25, **QUICK | settings)
    m2sd_cli.distill(folder, run=alone, **QUICK_DISTILL | settings)
    common = ["--run", shared, "--data", folder, "--epochs", 2, "--batch-size", 13, "--device", "cpu"]
    common += ["--precision", "fp32", "--learning-rate", 0.0005]
    network = ["--image-size", 16, "--backbone", "resnet20", "--held-out", 0.25]
    first = torchrun("--", "m2sd_cli", "pretrain", *common, *network)
    assert first.returncode == 0, first.stderr
    assert len(re.findall(r"^pretrain: 4 base classes", first.stderr, re.MULTILINE)) == 1, "one process speaks"
    second = pair("distill", *common, "--enhancement", "full", "--json")
    assert second.code == 0, second.err
    assert second.out.count('"finished": true') == 1
    assert RunFolder(shared).verify() == []
    assert not (shared / "training").exists()
    for name in ("pretrain", "session-000"):
        ours, theirs = (RunFolder(run).read(name).manifest for run in (alone, shared))
        assert ours.config == theirs.config
        assert ours.classes == theirs.classes
        # Small batches of so plain images magnify rounding from step to step.
        assert [each.loss for each in theirs.history] == pytest.approx([each.loss for each in ours.history], rel=0.05)
    base = RunFolder(shared).session(0)
    checkpoint = BaseCheckpoint.read(RunFolder(shared), base)
    backbone, held_out = checkpoint.backbone, checkpoint.held_out
    data = choose_training(open_folder(stripes.folder, 16), 0.25, None)
    transform = to_transform(base.manifest.transform)
    wanted_means, wanted = base_features(backbone, data.train, 4, transform)
    torch.testing.assert_close(checkpoint.means, wanted_means, rtol=1e-5, atol=1e-6)
    for each, tensor in checkpoint.statistics.tensors().items():
        torch.testing.assert_close(tensor, wanted.tensors()[each], rtol=1e-4, atol=1e-6)
    assert held_out is not None
    assert data.held_out is not None
    features, labels = held_out_features(backbone, data.held_out, transform)
    assert torch.equal(held_out.labels, labels)
    torch.testing.assert_close(held_out.features, features, rtol=1e-5, atol=1e-6)
    confusion = tmp_path / "confusion.csv"
    third = pair("evaluate", "--run", shared, "--test", stripes.labelled, "--json", "--confusion", confusion)
    assert third.code == 0, third.err
    found = m2sd_cli.evaluate(run=shared, test=stripes.labelled, device="cpu")
    (theirs,), (ours,) = json.loads(third.out)["sessions"], json.loads(json.dumps(as_data(found, None)))["sessions"]
    assert ours["auroc"] is not None
    # A probability may differ by the rounding of batches that were cut elsewhere.
    assert theirs.pop("ece") == pytest.approx(ours.pop("ece"), abs=1e-4)
    assert theirs == ours
    assert sum(int(cell) for line in confusion.read_text().splitlines()[1:] for cell in line.split(",")[1:]) == 8


def test_one_line_says_why_processes_do_not_begin(tmp_path: Path, pair: Pair) -> None:
    run = tmp_path / "run"
    refused = pair("pretrain", "--data", tmp_path / "nowhere", "--run", run, "--device", "cpu")
    assert refused.code == 3
    assert refused.err.count("m2sd: ") == 1
    assert "no such folder" in refused.err
    assert not run.exists()
    compiled = pair("pretrain", "--data", "demo", "--run", run, "--compile")
    assert compiled.code == 2
    assert compiled.err.count("m2sd: --compile: for one process only") == 1
    single = pair("increment", "--session", 1, "--run", run)
    assert single.code == 2
    assert single.err.count("m2sd: m2sd increment: it runs as one process; begin it without torchrun") == 1


def test_a_loss_that_is_no_number_ends_all_processes_with_one_line(
    stripes: Stripes, tmp_path: Path, pair: Pair
) -> None:
    words = ["--data", stripes.folder, "--run", tmp_path / "run", "--image-size", 16, "--backbone", "resnet20"]
    words += ["--epochs", 1, "--batch-size", 8, "--learning-rate", 1e30, "--precision", "fp32", "--device", "cpu"]
    refused = pair("pretrain", *words)
    assert refused.code == 1
    assert refused.err.count("m2sd: pretrain: no finite value of loss at step 2 of 4; no state was saved") == 1
    assert "m2sd, process" not in refused.err
    assert "gloo" not in refused.err
    assert not (tmp_path / "run").exists()


def test_a_process_that_fails_alone_is_heard(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    labelled = Path(shutil.copytree(stripes.labelled, tmp_path / "labelled"))
    last = sorted((labelled / "yellow").iterdir())[-1]  # in the second process's share
    last.write_bytes(last.read_bytes()[:40])
    refused = torchrun("--", "m2sd_cli", "evaluate", "--run", trained, "--test", labelled, "--device", "cpu")
    assert refused.returncode != 0
    assert refused.stderr.count(f"m2sd, process 1: {last}: ") == 1
    assert "gloo" not in refused.stderr


def test_when_the_first_fails_alone_the_others_are_silent(
    trained: Path, stripes: Stripes, tmp_path: Path, pair: Pair
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with RunFolder(run).locked("test"):
        words = [
            "distill",
            "--run",
            run,
            "--data",
            stripes.folder,
            "--force",
            "--yes",
            "--epochs",
            1,
            "--device",
            "cpu",
        ]
        refused = pair(*words)
    assert refused.code == 4
    assert refused.err.count("is writing to it") == 1
    assert "gloo" not in refused.err
    assert "m2sd, process" not in refused.err


def test_processes_leave_out_the_same_bad_images_and_say_so_once(stripes: Stripes, tmp_path: Path, pair: Pair) -> None:
    photos = Path(shutil.copytree(stripes.folder, tmp_path / "colours"))
    bad = ["train/blue/blue-00.png", "train/yellow/yellow-07.png", "test/red/red-100.png"]
    for name in bad:
        (photos / name).write_bytes(b"no image")
    common = ["--data", photos, "--run", tmp_path / "shared", "--device", "cpu", "--epochs", 1, "--batch-size", 8]
    small = ["--image-size", 16, "--backbone", "resnet20", "--precision", "fp32"]
    done = pair("pretrain", *common, *small, "--skip-bad")
    assert done.code == 0, done.err
    assert done.err.count("3 images cannot be read and are left out: train/blue/blue-00.png (not an image") == 1
    alone = finished(m2sd_cli.pretrain(str(photos), run=tmp_path / "alone", skip_bad=True, **QUICK))
    shared = RunFolder(tmp_path / "shared").pretrain().manifest
    assert [each.file for each in shared.skipped] == bad
    assert shared.skipped == alone.manifest.skipped
    assert shared.classes == alone.manifest.classes


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with process_group(torch.device("cpu")) as (everybody, _):
        normalise_a_part(everybody, folder)
        (folder / f"{everybody.rank}.json").write_text(json.dumps(steps_of_both_stages(everybody, STEPS)))


def test_what_gloo_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"{\n")
    with stdout_spared():
        os.write(1, b"[Gloo] Rank 0 is connected to 1 peer ranks\n")
    os.write(1, b"}\n")
    assert capfd.readouterr() == ("{\n}\n", "[Gloo] Rank 0 is connected to 1 peer ranks\n")


def test_processes_meet_without_a_word_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def meet(*_arguments: object, **_options: object) -> None:
        os.write(1, b"[Gloo] Rank 0\n")
        raise RuntimeError("met")

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    with pytest.raises(RuntimeError, match="met"), process_group(torch.device("cpu")):
        pass
    assert capfd.readouterr() == ("", "[Gloo] Rank 0\n")


@pytest.mark.parametrize(("asked", "taken"), [("cuda", "cuda:0"), ("cuda:3", "cuda:3")])
def test_one_process_of_a_machine_has_the_device_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: str, taken: str
) -> None:
    def meet(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("met")

    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    with pytest.raises(RuntimeError, match="met"), process_group(torch.device(asked)):
        pass
    assert chosen == [torch.device(taken)]
