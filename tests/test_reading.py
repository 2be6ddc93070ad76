"""Files that are no files, and files that are too large."""

import os
from pathlib import Path

import pytest

from m2sd_cli.reading import counted, open_regular, quoted, read_regular


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 5) == b"12345"


def test_no_more_than_allowed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="larger than 5 bytes"):
        read_regular(path, 5)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError, match=path.name):
            read_regular(path, 5)


def test_a_quotation_is_short() -> None:
    assert quoted(80 * "x") == 80 * "x"
    assert quoted(81 * "x") == 80 * "x" + "..."


def test_a_number_has_its_noun() -> None:
    assert [counted(number, "taught class") for number in (0, 1, 2)] == [
        "0 taught classes",
        "1 taught class",
        "2 taught classes",
    ]
    assert (counted(1, "image"), counted(2, "image")) == ("1 image", "2 images")
