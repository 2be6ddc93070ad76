"""The log of the trainings of a run: one JSON line an epoch and stage. No hash of the chain covers it.

It is there for people and for curves. Nothing depends on it: a run without a log, or with a changed one, is sound.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from m2sd_cli.errors import M2sdError
from m2sd_cli.reading import open_regular
from m2sd_cli.runs.files import TEXT_LIMIT, write_atomically

LOG: Final = "log.jsonl"


class TrainingLog:
    """The file `log.jsonl` of a run folder, which one process at a time writes.

    Args:
        folder: the run folder.
        stages: their names, in the order in which they are trained.
    """

    def __init__(self, folder: Path, stages: Sequence[str]) -> None:
        self.path: Final = folder / LOG
        self._stages = tuple(stages)

    def lines(self) -> list[dict[str, Any]]:
        """Read the lines of the log; any other is left out, such as the torn line of a killed process.

        Raises:
            OSError: the file cannot be read, or is larger than any log.
        """
        return list(self._parsed(self._read()))

    def keep(self, stage: str, epochs: int) -> None:
        """Remove all lines but those of earlier stages and of the first epochs of a stage.

        Args:
            stage: its name.
            epochs: the number of its epochs to keep.

        Raises:
            OSError, M2sdError: the file cannot be read or written.
        """
        content = self._read()
        before = self._stages[: self._stages.index(stage)]
        kept = [
            line
            for line in self._parsed(content)
            if line["stage"] in before or (line["stage"] == stage and line["epoch"] <= epochs)
        ]
        text = "".join(map(_encoded, kept)).encode()
        if text == content:
            return
        if text:
            write_atomically(self.path, text)
        else:
            self.path.unlink()

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line, whose first fields are `stage` and `epoch`.

        Raises:
            OSError: it cannot be written, or the file is a link or no regular file.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(self.path, flags, 0o666)
        with closing(os.fdopen(handle, "ab", buffering=0)) as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("not a regular file")
            torn = status.st_size > 0 and os.pread(handle, 1, status.st_size - 1) != b"\n"
            # One write, so that a reader sees the whole line, or none of it.
            file.write(("\n" if torn else "").encode() + _encoded(line).encode())

    def _read(self) -> bytes:
        try:
            with open_regular(self.path, follow=False) as file:
                content = file.read(TEXT_LIMIT + 1)
        except FileNotFoundError:
            return b""
        if len(content) > TEXT_LIMIT:
            raise OSError(f"larger than {TEXT_LIMIT} bytes")
        return content

    def _parsed(self, content: bytes) -> Iterator[dict[str, Any]]:
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and line.get("stage") in self._stages and isinstance(line.get("epoch"), int):
                yield line


def _encoded(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def log_error(error: OSError | M2sdError) -> str:
    """Return the reason for which a log was not written, for a message."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
