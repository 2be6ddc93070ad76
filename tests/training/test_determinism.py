"""--deterministic: torch is told so while a stage is at work, and as it was afterwards."""

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.errors import TrainingError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.determinism import WORKSPACE, deterministic, is_not_deterministic
from m2sd_cli.training.distill import distill_objective
from m2sd_cli.training.pretrain import pretrain_objective
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes

PACKAGE = Path(m2sd_cli.__file__).parent
# Of these torch has no gradient, or no result, that repeats on CUDA.
UNREPEATABLE = {
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "bincount",
    "cumsum",
    "ctc_loss",
    "embedding_bag",
    "histc",
    "index_add",
    "index_add_",
    "kthvalue",
    "median",
    "put_",
    "scatter_add",
    "scatter_add_",
    "scatter_reduce",
}


def settings() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("workspace", [None, ":4096:8", ":16:8", ":4096:2:16:8"])
def test_everything_is_set_and_restored(monkeypatch: pytest.MonkeyPatch, workspace: str | None) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    inside: list[object] = []

    def fail() -> NoReturn:
        inside.extend(settings())
        raise KeyError

    with pytest.raises(KeyError), deterministic(True):
        fail()
    assert inside == [True, False, True, False, ":16:8" if workspace == ":16:8" else ":4096:8"]
    assert settings() == before
    with deterministic(False):
        assert settings() == before


def test_it_is_left_on_for_whoever_had_it_on() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_both_stages_run_so_and_come_to_what_a_cpu_always_comes_to(
    trained: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}
    run, folder = tmp_path / "run", str(stripes.folder)
    forward: Any = {"pretrain": pretrain_objective, "distill": distill_objective}

    def watched(stage: str) -> Callable[..., Any]:
        def objective(*arguments: Any) -> Callable[..., Any]:
            inner = forward[stage](*arguments)

            def looking(*given: Any) -> Any:
                seen[stage] = torch.are_deterministic_algorithms_enabled()
                return inner(*given)

            return looking

        return objective

    monkeypatch.setattr("m2sd_cli.api.pretrain.pretrain_objective", watched("pretrain"))
    monkeypatch.setattr("m2sd_cli.api.base_session.distill_objective", watched("distill"))
    m2sd_cli.pretrain(folder, run=run, deterministic=True, **QUICK)
    assert m2sd_cli.distill(folder, run=run, deterministic=True, stop_after=0, **QUICK_DISTILL) is None
    assert StateStore(RunFolder(run)).load().deterministic
    seen.pop("distill")
    m2sd_cli.distill(folder, run=run, resume=True, device="cpu")  # as it began
    assert seen == {"pretrain": True, "distill": True}
    assert not torch.are_deterministic_algorithms_enabled()
    for name in ("pretrain", "session-000"):
        usual, found = (RunFolder(each).read(name).manifest for each in (trained, run))
        assert (usual.deterministic, found.deterministic) == (False, True)
        assert usual.checkpoint == found.checkpoint


def test_a_process_that_has_multiplied_without_it_is_told(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
        "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
        f"CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this case, you must set {WORKSPACE}"
    )

    def objective(*_: object) -> Callable[..., NoReturn]:
        def multiplied(*_: object) -> NoReturn:
            raise RuntimeError(said)

        return multiplied

    monkeypatch.setattr("m2sd_cli.api.pretrain.pretrain_objective", objective)
    reason = f"cuBLAS has begun in this process without it; begin with {WORKSPACE}=:4096:8 in the environment"
    with pytest.raises(TrainingError, match=f"^--deterministic: {reason}$"):
        m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", deterministic=True, **QUICK)


def test_an_operation_without_such_an_algorithm_ends_it_with_a_line(
    stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(*_: object) -> Callable[..., NoReturn]:
        def unrepeatable(x: Tensor, *_: object) -> NoReturn:
            x.put_(torch.tensor([0]), torch.zeros(1))
            raise AssertionError("torch took it")

        return unrepeatable

    monkeypatch.setattr("m2sd_cli.api.pretrain.pretrain_objective", objective)
    with pytest.raises(TrainingError, match=r"^--deterministic: put_ does not have a .* implementation; begin without"):
        m2sd_cli.pretrain(str(stripes.folder), run=tmp_path / "run", deterministic=True, **QUICK)
    assert not is_not_deterministic(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not (tmp_path / "run").exists()


def test_the_command_line_passes_it_on(m2sd: Cli, stripes: Stripes, tmp_path: Path) -> None:
    words = ["--data", stripes.folder, "--run", tmp_path / "run", "--device", "cpu", "--batch-size", 16, "-q"]
    small = ["--image-size", 16, "--backbone", "resnet20", "--epochs", 1]
    assert m2sd("pretrain", *words, *small, "--deterministic").code == 0
    assert m2sd("distill", *words, "--epochs", 1).code == 0
    run = RunFolder(tmp_path / "run")
    assert [run.read(name).manifest.deterministic for name in ("pretrain", "session-000")] == [True, False]


@pytest.mark.parametrize("path", sorted((PACKAGE / "method").glob("*.py")), ids=lambda path: path.name)
def test_the_method_uses_nothing_that_does_not_repeat_on_cuda(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            assert name not in UNREPEATABLE
            if name == "interpolate":
                assert "mode='nearest'" in ast.unparse(node)
