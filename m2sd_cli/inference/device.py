"""The choice of a device and of a precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from m2sd_cli.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is CUDA where present, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device here; leave --device out to use what there is")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: only {torch.cuda.device_count()} CUDA device(s) here, numbered from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: not present here; leave --device out to use what there is")
    return torch.device(name)


def training_precision(name: str, device: torch.device) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 where the chip multiplies it faster.

    CUDA devices with bf16 units do so, and CPUs with AVX-512 BF16 or AMX.

    Raises:
        UsageError: there is no such precision.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: choose {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if fast else "fp32"
    return "fp32"


def inference_precision(name: str) -> str:
    """Return `fp32` or `bf16`; `auto` is fp32, since class means and figures must not depend on the chip.

    Raises:
        UsageError: there is no such precision.
    """
    return training_precision("fp32" if name == "auto" else name, torch.device("cpu"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Make the context that computes in a precision, fp32 or bf16."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
