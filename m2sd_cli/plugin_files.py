"""Files of one's own that register backbones, classifiers and the like, and run because the command line names them."""

import hashlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Final

from m2sd_cli.errors import M2sdError, UsageError, os_errors_as
from m2sd_cli.paths import expand
from m2sd_cli.reading import quoted, read_regular
from m2sd_cli.registry import FILE_ORIGINS, FILE_SHA256, registrations, running

OPTION: Final = "--plugin"
FILE_LIMIT: Final = 2**20  # bytes
DIGITS: Final = 12  # of the SHA-256 in the name of the module
loaded: Final[list[Path]] = []  # files of this process, for the commands that it suggests


def load_plugin(path: Path | str) -> None:
    """Run a file of Python once; it registers its parts, as `m2sd_cli.register_classifier` does.

    The entries that it registers are recorded with the name of the file and the SHA-256 of the very bytes that ran.

    Raises:
        UsageError: the file cannot be read, is no Python, or registers nothing.
        M2sdError: the file fails.
    """
    file = expand(path, OPTION)
    with os_errors_as(UsageError, f"{OPTION} {file}: cannot be read"):
        content = read_regular(file, FILE_LIMIT)
    try:
        code = compile(content, str(file), "exec")
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{OPTION} {file}: no Python ({quoted(str(error))})") from None
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"m2sd_plugin_{sha256[:DIGITS]}"
    if name in sys.modules:
        return
    module = module_from_spec(ModuleSpec(name, None, origin=str(file)))
    module.__file__ = str(file)
    FILE_ORIGINS[name] = f"{file.name} ({FILE_SHA256}{sha256})".encode("utf-8", "replace").decode()
    sys.modules[name] = module
    before = registrations()
    try:
        with running(name):
            exec(code, module.__dict__)  # noqa: S102 (the command line names the file to run it)
    except M2sdError as error:
        raise type(error)(f"{OPTION} {file}: {error}") from error
    except (Exception, SystemExit) as error:  # a person's file may raise anything
        kind = type(error).__name__
        raise M2sdError(f"{OPTION} {file}: it fails ({quoted(f'{kind}: {error}')}); --debug shows where") from error
    loaded.append(file)
    if registrations() == before:
        raise UsageError(f"{OPTION} {file}: it registers nothing; call m2sd_cli.register_classifier or its like")
