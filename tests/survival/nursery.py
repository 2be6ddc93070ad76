"""Begins m2sd commands as processes of their own in milliseconds, and lets things go wrong in them.

Run as a program it imports m2sd once and then forks a child for each job that it reads, one JSON document a line. A
child is a real process: what kills it leaves no time for `finally`. Counted as moments at which something can go wrong
are all calls that change the file system, and in the middle of each piece that is written to a file.
"""

import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, TypedDict

CHANGES = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Job(TypedDict, total=False):
    """A command, and what goes wrong."""

    words: list[str]  # after m2sd
    folder: str  # to work in
    environments: list[dict[str, str]]  # of processes to work together, in addition to this one's
    limit: int  # seconds after which a process ends
    crash_at: int  # moment, counted from 1, at which the process ends as if it were killed
    fail_at: int  # moment from which on ...
    failures: int  # ... so many calls fail
    errno: int  # as this error
    file_size: int  # bytes beyond which the system lets no file grow, as a full disk would
    signal: int  # to be sent ...
    after: float  # ... after so many seconds


@dataclass(frozen=True)
class End:
    """How a child ended."""

    code: int  # negative: the signal that ended it
    moments: int  # how many it lived through
    seconds: float
    out: str
    err: str


class BrokenFile:
    """A file in the middle of whose writes something may go wrong."""

    def __init__(self, file: BinaryIO, moment: Callable[[], None]) -> None:
        self._file = file
        self._moment = moment

    def __enter__(self) -> Self:
        """Leave the file open."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        """Do as the file itself does."""
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        """Write one half, then the other."""
        middle = len(content) // 2
        self._file.write(content[:middle])
        self._file.flush()
        self._moment()
        return middle + self._file.write(content[middle:])


class Troubles:
    """Counts the moments of a process and lets things go wrong at the one that a job names."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.moments = 0

    def begin(self) -> None:
        """Watch from now on."""
        from m2sd_cli.runs import files

        if "file_size" in self.job:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.job["file_size"],) * 2)
        for name in CHANGES:
            setattr(os, name, self._watched(getattr(os, name)))

        def temporary(*words: Any, **options: Any) -> "BrokenFile":
            self.moment()
            return BrokenFile(open(*words, **options), self.moment)

        vars(files)["open"] = temporary

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            self.moment()
            return real(*words, **options)

        return call

    def moment(self) -> None:
        """One of the moments: maybe the last one."""
        self.moments += 1
        if self.moments == self.job.get("crash_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        first = self.job.get("fail_at", 0)
        if first and first <= self.moments < first + self.job.get("failures", 1):
            raise OSError(self.job["errno"], os.strerror(self.job["errno"]))


def live(job: Job, environment: dict[str, str], pipes: dict[str, tuple[int, int]]) -> int:
    """The life of a child; its exit code. What it says fits into the pipes."""
    os.dup2(pipes["out"][1], 1)
    os.dup2(pipes["err"][1], 2)
    from m2sd_cli.cli import interrupts
    from m2sd_cli.cli.app import main

    os.chdir(job["folder"])
    os.environ.update(environment)
    signal.alarm(job.get("limit", 0))
    sys.argv = ["m2sd", *job["words"]]
    troubles = Troubles(job)
    troubles.begin()
    code: object = 0
    try:
        interrupts.listen()  # as __main__ does
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        main()
    except SystemExit as exit:
        code = exit.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(pipes["moments"][1], str(troubles.moments).encode())
    return code if isinstance(code, int) else int(code is not None)


def wait(children: set[int]) -> int:
    """Wait for processes and return the status of the first that failed; it ends the others, as with torchrun."""
    failure = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not failure:
            failure = status
            for other in children:
                os.kill(other, signal.SIGTERM)
    return failure


def serve() -> None:
    """Read jobs and answer with how they ended."""
    import torch

    torch.set_num_threads(1)  # no threads that a fork would leave behind
    import torch._dynamo  # which an optimiser's first step would import

    import m2sd_cli

    # Whatever a command would import.
    for module in pkgutil.walk_packages(m2sd_cli.__path__, "m2sd_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()  # or every child would copy what its garbage collector looks at
    tempfile.gettempdir()  # which tries out where it can write, and would leave something behind when that fails
    print("ready", flush=True)
    for line in sys.stdin:
        job: Job = json.loads(line)
        pipes = {name: os.pipe() for name in ("out", "err", "moments")}
        began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is a command to interrupt
        children = set()
        for environment in job.get("environments", [{}]):
            child = os.fork()
            if child == 0:
                code = 98
                try:
                    code = live(job, environment, pipes)
                finally:
                    os._exit(code)
            children.add(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if "after" in job:
            time.sleep(job["after"])
            os.kill(child, job["signal"])
        status = wait(children)
        seconds = time.monotonic() - began
        said = {}
        for name, (end, beginning) in pipes.items():
            os.close(beginning)
            with open(end) as file:
                said[name] = file.read()
        moments = int(said["moments"] or 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), moments, seconds, said["out"], said["err"]]), flush=True)


class Nursery:
    """A server as this module is when it is run, from the other side. Several of them work at the same time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._answer() == "ready"

    def begin(self, *words: object, **troubles: Any) -> None:
        """Begin a command; `troubles` are those of a job."""
        assert self.process.stdin is not None
        job = {"words": [str(word) for word in words], "folder": os.getcwd(), **troubles}
        self.process.stdin.write(json.dumps(job) + "\n")

    def end(self) -> End:
        """Wait until the command has ended."""
        return End(*json.loads(self._answer()))

    def run(self, *words: object, **troubles: Any) -> End:
        """Begin a command and wait until it has ended."""
        self.begin(*words, **troubles)
        return self.end()

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


if __name__ == "__main__":
    serve()
