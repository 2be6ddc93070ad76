"""Forward and backward passes by torch.compile, for --compile."""

import torch
from torch import nn

from m2sd_cli.errors import TrainingError


def compile_forward(module: nn.Module, device: torch.device) -> None:
    """Have a module, or each module of a ModuleDict, compiled at its first call; its parameters keep their names.

    A batch of another size is compiled once more.
    """
    # On CUDA a pass is launched as one graph: a small network takes longer to launch kernel by kernel than to compute.
    parts = module.values() if isinstance(module, nn.ModuleDict) else [module]
    for part in parts:
        part.compile(dynamic=False, options={"triton.cudagraphs": device.type == "cuda"})


def mark_step() -> None:
    """Tell CUDA graphs that a new step begins, and that the results of the last step have been used."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def compilation_failed(error: Exception) -> bool:
    """Tell whether an error comes from torch.compile, which may lack a C compiler."""
    import torch._dynamo.exc  # slow to import, and needed only here

    return isinstance(error, torch._dynamo.exc.TorchDynamoException)


def not_compiled(error: Exception) -> TrainingError:
    """Make the error that --compile reports."""
    reason = str(error).strip().split("\n")[0]
    return TrainingError(f"--compile: the network could not be compiled ({reason}); begin without it")
