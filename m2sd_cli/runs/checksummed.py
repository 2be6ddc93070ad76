"""JSON files that vouch for themselves, for those to which no other file refers: every byte of them counts."""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m2sd_cli.errors import DamagedError
from m2sd_cli.reading import quoted

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


SEAL = b'{\n "seal": "'  # which the seal itself follows: it is the first field
BLANK = b"0" * 64


def _with_seal(content: bytes, seal: bytes) -> bytes:
    return content[: len(SEAL)] + seal + content[len(SEAL) + len(seal) :]


def describe_error(error: ValidationError) -> str:
    """The first thing that is wrong, in a length that a message can hold."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "it"
    return f"{quoted(where)}: {quoted(first['msg'])}"


class ChecksummedModel(BaseModel):
    """What holds its own SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seal: Annotated[Sha256 | None, Field(description="SHA-256 of this file with zeros in its place")] = None

    def encoded(self) -> bytes:
        """The bytes to write."""
        blank = self.model_copy(update={"seal": BLANK.decode()}).model_dump_json(indent=1).encode() + b"\n"
        return _with_seal(blank, hashlib.sha256(blank).hexdigest().encode())

    @classmethod
    def decoded(cls, path: Path, content: bytes) -> Self:
        """From the bytes that were read; `path` names the file in messages.

        Raises:
            DamagedError: they are not what was written, or of a schema version that this one does not read.
        """
        try:
            found = cls.model_validate_json(content)
        except ValidationError as error:
            raise DamagedError(f"{path}: not a file that this version reads: {describe_error(error)}") from None
        blank = _with_seal(content, BLANK)
        if found.is_sealed and (found.seal != hashlib.sha256(blank).hexdigest() or blank[: len(SEAL)] != SEAL):
            raise DamagedError(f"{path}: damaged, its SHA-256 is not the recorded one; restore it from a backup")
        return found

    @property
    def is_sealed(self) -> bool:
        """Whether it has to have a seal."""
        return True
