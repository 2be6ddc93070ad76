"""A compiled training is the plain one but for rounding, and says so if there is no compiler."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.loop import Inputs, Training
from m2sd_cli.training.stopping import StopRequest
from tests.helpers import Cli, OneLayer, Stripes


def trained(compiled: bool) -> tuple[list[float], dict[str, Tensor]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    generator = torch.Generator().manual_seed(1)

    def objective(x: Tensor, labels: Tensor, _: torch.Generator, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        return F.cross_entropy(module(x[rows]), labels[rows]), {}

    training = Training(
        stage="any",
        module=module,
        objective=objective,
        inputs=Inputs(
            TrainingImages(
                torch.randint(0, 256, (10, 8, 8, 3), dtype=torch.uint8, generator=generator),
                torch.ones(10),
                torch.arange(10) % 3,
            ),
            Augmentation(size=8, padding=1),
            TestTransform(8, 8, (0.5,) * 3, (0.25,) * 3),
        ),
        config=PretrainConfig(epochs=2, batch_size=4, learning_rate=0.01),
        execution=Execution(torch.device("cpu"), "fp32", save_every=float("inf"), compile=compiled),
        save=lambda position, tensors: None,
    )
    assert training.run(StopRequest())
    return [each.loss for each in training.position.history], training.tensors()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compiled_equals_plain() -> None:
    plain, compiled = trained(False), trained(True)
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert compiled[1].keys() == plain[1].keys()
    for name, tensor in plain[1].items():
        torch.testing.assert_close(compiled[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.filterwarnings("default")
def test_without_a_compiler_one_line_says_so(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr("m2sd_cli.training.pretrain.build_backbone", lambda *_: OneLayer())
    words = ["pretrain", "--data", stripes.folder, "--run", tmp_path / "run", "--image-size", 16, "--epochs", 1]
    words += ["--backbone", "resnet20", "--batch-size", 8, "--device", "cpu", "--precision", "fp32", "--compile"]
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        done = m2sd(*words)
    assert done.code == 1, done.err
    assert "m2sd: --compile: the network could not be compiled" in done.err


@pytest.mark.usefixtures("signals_as_at_a_terminal")
def test_a_compiler_that_a_signal_has_ended_is_no_fault_of_the_network(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_arguments: object) -> None:
        from torch._dynamo.exc import TorchDynamoException

        signal.raise_signal(signal.SIGTERM)
        raise TorchDynamoException("the compiler was killed")

    monkeypatch.setattr(Training, "run", run)
    words = ["--data", stripes.folder, "--run", tmp_path / "run", "--image-size", 16, "--epochs", 1, "--device", "cpu"]
    done = m2sd("pretrain", *words, "--backbone", "resnet20", "--batch-size", 8, "--precision", "fp32")
    assert done.code == 130
    assert done.err.endswith("m2sd: interrupted while the network was compiled; nothing was saved\n")
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "pretrain.json").exists()
