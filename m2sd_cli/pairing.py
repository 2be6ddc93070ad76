"""Torchvision, which has to be built for the torch that is installed."""

import re
import shlex
from importlib import import_module, metadata
from types import ModuleType

from m2sd_cli.errors import M2sdError

INDEX = "https://download.pytorch.org/whl"  # of builds for one kind of device, whose versions end in its name


def import_torchvision(module: str) -> ModuleType:
    """Import a module of torchvision, such as "models".

    Raises:
        M2sdError: it cannot be imported; the message names the command that mends it.
    """
    try:
        return import_module(f"torchvision.{module}")
    except Exception as error:  # torch and torchvision of a wrong pair may raise anything
        raise M2sdError(describe_failure(error)) from error


def describe_failure(error: Exception) -> str:
    """Return the line for a torchvision that cannot be imported: the reason, and the way out."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
        return f"torchvision is not installed; {install_command()}"
    reason = describe_wrong_pair()
    if reason is None:
        reason = f"torchvision cannot be imported ({next(iter(str(error).splitlines()), type(error).__name__)})"
    return f"{reason}; {install_command()}"


def describe_wrong_pair() -> str | None:
    """Say that torchvision was built for another torch than the installed one; None if it was not."""
    torch, wanted = _version("torch"), _torch_of_torchvision()
    if torch is None or wanted is None or _release(torch) == _release(wanted):
        return None
    return f"torchvision {_version('torchvision')} is built for torch {wanted}, and torch {torch} is installed"


def install_command() -> str:
    """Return the command that installs the torchvision of the installed torch."""
    torch = _version("torch")
    match = re.match(r"2\.(\d+)\.[^+]*(?:\+(.*))?$", torch or "")
    if match is None:
        return "pip install --upgrade torch torchvision"
    words = ["pip", "install", f"torchvision==0.{int(match[1]) + 15}.*"]  # torch 2.0 came with torchvision 0.15
    return shlex.join(words + (["--index-url", f"{INDEX}/{match[2]}"] if match[2] else []))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _torch_of_torchvision() -> str | None:
    """Return the version of torch that torchvision's metadata ask for; None if they ask for none in particular."""
    try:
        required = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    found = (re.match(r"torch\s*\(?\s*==\s*([^\s;,)]+)", each) for each in required)
    return next((match[1] for match in found if match), None)


def _release(version: str) -> str:
    return version.partition("+")[0]
