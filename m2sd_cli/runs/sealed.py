"""JSON files that vouch for themselves, for those to which no other file refers: every byte of them counts."""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m2sd_cli.errors import DamagedError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Sealed(BaseModel):
    """What holds its own SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seal: Annotated[Sha256 | None, Field(description="SHA-256 of this file as it is without the seal")] = None

    def encoded(self) -> bytes:
        """The bytes to write."""
        plain = self.model_copy(update={"seal": None}).model_dump_json(indent=1).encode()
        sealed = self.model_copy(update={"seal": hashlib.sha256(plain).hexdigest()})
        return sealed.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def decoded(cls, path: Path, content: bytes) -> Self:
        """From the bytes that were read; `path` names the file in messages.

        Raises:
            DamagedError: they are not what was written, or of a schema version that this one does not read.
        """
        try:
            found = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise DamagedError(f"{path}: not a file that this version reads: {where}: {first['msg']}") from None
        if found.is_sealed and found.encoded() != content:
            raise DamagedError(f"{path}: damaged, its SHA-256 is not the recorded one; restore it from a backup")
        return found

    @property
    def is_sealed(self) -> bool:
        """Whether it has to have a seal."""
        return True
