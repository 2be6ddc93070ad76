"""A file is written whole or not at all, and read only as what it was."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import decode_tensors, encode_tensors, read_verified, write_atomically


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def raising(*_: object) -> NoReturn:
        raise error

    return raising


def test_the_content_and_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_atomically(path, b"one") == hashlib.sha256(b"one").hexdigest()
    assert path.read_bytes() == b"one"
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_content_may_come_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_atomically(path, iter([b"one", b"", b"two"])) == hashlib.sha256(b"onetwo").hexdigest()
    assert path.read_bytes() == b"onetwo"

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, pieces())
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failure_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, broken, fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(RunError, match=r"file: could not be written \(No space left on device\)") as raised:
        write_atomically(path, b"new")
    assert raised.value.exit_code == 4
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        real_fsync(handle)

    def replace(source: str, target: Path) -> None:
        assert Path(source).parent == target.parent
        assert Path(source).read_bytes() == b"content"
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(path, b"content")
    assert events == ["sync file", "rename", "sync folder"]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:  # which other threads share
            patch.setattr(os, "umask", fail(AssertionError("the umask of the process is changed")))
            write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="absent/file: could not be written"):
        write_atomically(tmp_path / "absent" / "file", b"")
    assert not (tmp_path / "absent").exists()


def test_reading_returns_what_the_hash_promises(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sha256 = write_atomically(path, b"content")
    assert read_verified(path, sha256) == b"content"
    assert read_verified(path, None) == b"content"


def test_reading_refuses_what_is_missing_changed_or_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(DamagedError, match="file: missing; restore it"):
        read_verified(path, None)
    sha256 = write_atomically(path, b"content")
    path.write_bytes(b"Content")
    with pytest.raises(DamagedError, match="file: damaged, its SHA-256"):
        read_verified(path, sha256)
    with pytest.raises(DamagedError, match="cannot be read"):
        read_verified(tmp_path, None)


def test_tensors_come_back_as_they_were() -> None:
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels last": torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "counter": torch.tensor(7),
        "with gradient": torch.ones(2, requires_grad=True),
    }
    back = decode_tensors(Path("x"), encode_tensors(tensors))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_only_safetensors_are_tensors() -> None:
    pickled = io.BytesIO()
    torch.save({"x": torch.ones(1)}, pickled)
    whole = encode_tensors({"x": torch.ones(1)})
    # Torch counts not so far, and says so in thirty lines.
    header = b'{"x":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}'
    empty = len(header).to_bytes(8, "little") + header
    for content in (b"", b"nonsense", pickled.getvalue(), whole[:-1], b"\xff" * 64, empty):
        with pytest.raises(
            DamagedError, match=r"model\.safetensors: not a safetensors file .*\); restore it from a backup$"
        ) as caught:
            decode_tensors(Path("model.safetensors"), content)
        assert "\n" not in str(caught.value)
