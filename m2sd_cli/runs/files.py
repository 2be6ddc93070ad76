"""Writing and reading files that are there in full, or not at all."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.reading import open_regular

UNFINISHED = ".tmp"
REMAINS = re.compile(rf"\.(?P<file>.+)\.\w+{re.escape(UNFINISHED)}")
TEXT_LIMIT: Final = 256 << 20  # bytes of a manifest: one of stage 1 of a million photos takes about 120 MB
CHECKPOINT_LIMIT: Final = 2 << 30  # bytes: ResNet-18 takes 45 MB, a million features of it 2 GB


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> str:
    """Write to a temporary file beside `path`, flush it to disk, rename it; the old content stays until then.

    Args:
        content: whole, or piece by piece.

    Returns:
        The content's SHA-256.

    Raises:
        RunError: it could not be written; no temporary file is left.
    """
    sha256 = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with open(temporary, "xb") as file:  # open applies the umask, which a file of tempfile would not have
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
                sha256.update(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"{path}: could not be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # an error of clearing up must not hide the first one
            temporary.unlink(missing_ok=True)
    return sha256.hexdigest()


def unfinished(name: str) -> str | None:
    """Return the file of which a name is that of what a killed `write_atomically` has left, or None if it is not."""
    found = REMAINS.fullmatch(name)
    return found and found["file"]


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside a folder last through a power cut."""
    if os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes, itself and no link to it.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it cannot be read, is no regular file, or is larger.
    """
    try:
        with open_regular(path, follow=False) as file:  # a link could lead out of the run folder
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DamagedError(f"{path}: larger than any such file is; restore it from a backup")
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from None
    except OSError as error:
        if os.path.islink(path):  # it needs no rights to read the file
            raise DamagedError(
                f"{path}: a link; a run folder holds the files themselves, so put the file there"
            ) from None
        raise DamagedError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_verified(path: Path, sha256: str | None, limit: int = TEXT_LIMIT) -> bytes:
    """Read a file of the run folder and compare its hash.

    Args:
        sha256: the hash of its content; None where nothing refers to it.
        limit: bytes that it may have.

    Raises:
        DamagedError: it is missing, cannot be read, or has another hash.
    """
    try:
        content = read_bounded(path, limit)
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; restore it from a backup") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedError(f"{path}: damaged, its SHA-256 is not the recorded one; restore it from a backup")
    return content


def encode_tensors(tensors: dict[str, Tensor]) -> bytes:
    """Serialise tensors as safetensors, on the CPU and contiguous."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def decode_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Parse the content of a safetensors file; `path` names it in messages.

    Raises:
        DamagedError: it is no safetensors file.
    """
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).split("\n")[0][:200]  # torch adds a traceback to its message
        raise DamagedError(f"{path}: not a safetensors file ({reason}); restore it from a backup") from None
