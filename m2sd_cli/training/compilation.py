"""The forward and backward pass as torch.compile makes them, for whoever asks for it."""

import torch
from torch import nn

from m2sd_cli.errors import TrainingError


def compile_forward(module: nn.Module, device: torch.device) -> None:
    """Have a module, or each of a ModuleDict's, compiled when it is first called; its parameters keep their names.

    On CUDA the kernels of a pass are launched as one graph: a small network's would take longer to launch one by one
    than to run. A batch of another size is compiled once more.
    """
    parts = module.values() if isinstance(module, nn.ModuleDict) else [module]
    for part in parts:
        part.compile(dynamic=False, options={"triton.cudagraphs": device.type == "cuda"})


def mark_step() -> None:
    """Tell the graphs of CUDA that a new step begins, before which all that was computed has been used."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def compilation_failed(error: Exception) -> bool:
    """Whether an error is the compiler's, as where there is no C compiler."""
    import torch._dynamo.exc  # slow to import, and needed only here

    return isinstance(error, torch._dynamo.exc.TorchDynamoException)


def not_compiled(error: Exception) -> TrainingError:
    """That error for whoever asked for compilation."""
    reason = str(error).strip().split("\n")[0]
    return TrainingError(f"--compile: the network could not be compiled ({reason}); begin without it")
