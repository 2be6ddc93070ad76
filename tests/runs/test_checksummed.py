"""A file with its own hash inside is what was written, to the byte."""

import hashlib
from pathlib import Path

import pytest

from m2sd_cli.errors import DamagedError
from m2sd_cli.runs.checksummed import BLANK, SEAL
from m2sd_cli.runs.manifest import FileRecord, NewestPointer

POINTER = NewestPointer(manifest=FileRecord(file="pretrain.json", sha256="0" * 64))
PATH = Path("head.json")


def sealed(content: bytes) -> bytes:
    before, after = content[: len(SEAL)], content[len(SEAL) + len(BLANK) :]
    return before + hashlib.sha256(before + BLANK + after).hexdigest().encode() + after


def test_what_was_written_is_read() -> None:
    assert NewestPointer.decoded(PATH, POINTER.encoded()).manifest == POINTER.manifest
    assert sealed(POINTER.encoded()) == POINTER.encoded()


def test_the_hash_is_of_the_bytes_as_they_are_and_not_of_what_would_be_written() -> None:
    for content in (POINTER.encoded().replace(b'\n "schema_version": 4,', b""), POINTER.encoded() + b"\n"):
        assert NewestPointer.decoded(PATH, sealed(content)).manifest == POINTER.manifest
        with pytest.raises(DamagedError, match=r"^head\.json: damaged, its SHA-256 is not the recorded one"):
            NewestPointer.decoded(PATH, content)


@pytest.mark.parametrize("change", [(b'{\n "', b'{ "'), (b"{\n", b"{\r\n"), (b' "seal": ', b' "seal":  ')])
def test_a_hash_at_another_position_counts_for_nothing(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(DamagedError, match="damaged"):
        NewestPointer.decoded(PATH, POINTER.encoded().replace(*change))


@pytest.mark.parametrize("version", [0, 1, 3, 5, 10**9])
def test_another_schema_version_is_refused_by_its_number(version: int) -> None:
    content = POINTER.encoded().replace(b'"schema_version": 4', b'"schema_version": %d' % version)
    with pytest.raises(DamagedError) as raised:
        NewestPointer.decoded(PATH, sealed(content))
    assert str(raised.value) == (
        f"head.json: it is of schema version {version}; this version of m2sd reads 4 alone; use the one that wrote it"
    )


@pytest.mark.parametrize("version", [b"-1", b"true", b'"3"', b"3.5", b"1" + 5000 * b"0", b"null"])
def test_what_is_no_version_is_refused_in_few_words(version: bytes) -> None:
    content = POINTER.encoded().replace(b'"schema_version": 4', b'"schema_version": ' + version)
    with pytest.raises(DamagedError, match=r"^head\.json: not a file that this version reads: ") as raised:
        NewestPointer.decoded(PATH, sealed(content))
    assert len(str(raised.value)) < 300
