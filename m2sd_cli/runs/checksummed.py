"""JSON files with their own SHA-256 inside, for those that no other file refers to: every byte of them counts."""

import hashlib
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m2sd_cli.errors import DamagedError
from m2sd_cli.reading import quoted

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

SEAL: Final = b'{\n "seal": "'  # the checksum follows, since it is the first field
BLANK: Final = b"0" * 64
MOST_VERSIONS: Final = 10**9


def _with_seal(content: bytes, seal: bytes) -> bytes:
    return content[: len(SEAL)] + seal + content[len(SEAL) + len(seal) :]


def describe_error(error: ValidationError) -> str:
    """Describe the first error, in a length that a message can hold."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = quoted(str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"])
    return f"{quoted(where)}: {reason}" if where else reason


def misread(path: Path, what: str, error: ValidationError) -> DamagedError:
    """Make the error of a file that does not fit its model; a file of another schema version is refused by number."""
    for each in error.errors():
        version = each["input"]
        if each["loc"] == ("schema_version",) and type(version) is int and 0 <= version <= MOST_VERSIONS:
            known = each["ctx"]["expected"]
            return DamagedError(
                f"{path}: it is of schema version {version}; this version of m2sd reads {known} alone; use the one "
                f"that wrote it"
            )
    return DamagedError(
        f"{path}: not {what} that this version reads: {describe_error(error)}; restore it from a backup"
    )


class ChecksummedModel(BaseModel):
    """The content of a JSON file that holds its own SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seal: Annotated[Sha256 | None, Field(description="SHA-256 of this file with zeros in its place")] = None

    def encoded(self) -> bytes:
        """Return the bytes to write."""
        blank = self.model_copy(update={"seal": BLANK.decode()}).model_dump_json(indent=1).encode() + b"\n"
        return _with_seal(blank, hashlib.sha256(blank).hexdigest().encode())

    @classmethod
    def decoded(cls, path: Path, content: bytes) -> Self:
        """Validate the bytes that were read; `path` names the file in messages.

        Raises:
            DamagedError: the bytes were changed, or are of another schema version.
        """
        try:
            model = cls.model_validate_json(content)
        except ValidationError as error:
            raise misread(path, "a file", error) from None
        blank = _with_seal(content, BLANK)
        if model.seal != hashlib.sha256(blank).hexdigest() or blank[: len(SEAL)] != SEAL:
            raise DamagedError(f"{path}: damaged, its SHA-256 is not the recorded one; restore it from a backup")
        return model
