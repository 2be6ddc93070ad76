"""Deployable files of a session, and the table of their formats; this module imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted
from m2sd_cli.registry import Builder, Registry, one_of


@dataclass(frozen=True)
class ExportFormat:
    """A format of `m2sd export`."""

    # Of a SessionModel and its description as JSON text, returns the bytes of a file. Of both and an Origin, if the
    # format is a folder, returns the bytes of each file by its name.
    builder: Builder
    extra: str | None = None  # of this package, which installs modules that the builder imports
    modules: tuple[str, ...] = ()  # of the extra
    folder: bool = False  # True if the format is a folder of files
    files: tuple[str, ...] = ()  # of a folder, the names of all that --force may replace
    tensors_only: bool = False  # True if it holds no program, so that the classifier has to be a Head of rows


HUB_FILES: Final = ("README.md", "config.json", "model.py", "model.safetensors", "network.json")
EXPORT_FORMATS: Final = Registry(
    "--format",
    "m2sd.export_formats",
    ExportFormat,
    {
        "safetensors": ExportFormat("m2sd_cli.exporting.export:to_safetensors", tensors_only=True),
        "onnx": ExportFormat("m2sd_cli.exporting.export:to_onnx", "onnx", ("onnx", "onnxscript")),
        "pt2": ExportFormat("m2sd_cli.exporting.export:to_pt2"),
        "hub": ExportFormat("m2sd_cli.exporting.hub.folder:to_folder", folder=True, files=HUB_FILES, tensors_only=True),
    },
)

INT8: Final = "int8"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


def register_export_format(
    name: str, builder: Builder, *, files: Sequence[str] = (), tensors_only: bool = False
) -> None:
    """Add a format, so that `m2sd export --format NAME` and `export(NAME, ...)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores; also the suffix of a file.
        builder: a function, or its "module:function". Its arguments are a `m2sd_cli.inference.session.SessionModel` and
            its description as JSON; it returns bytes. That of a folder takes a
            `m2sd_cli.exporting.hub.card.Origin`, too, and returns the bytes of each file by its name.
        files: the names of the files of a folder; none if the format is one file.
        tensors_only: True if it holds no program, so that the classifier has to be a Head of rows.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    entry = ExportFormat(builder, folder=bool(files), files=tuple(files), tensors_only=tensors_only)
    EXPORT_FORMATS.register(name, entry, builder)


def folder_formats() -> str:
    """Enumerate the formats that are folders, for messages on options that they alone take."""
    return one_of([name for name, entry in EXPORT_FORMATS.loadable().items() if entry.folder])


def check_quantization(quantize: str | None) -> None:
    """Refuse another quantisation than INT8 or None.

    Raises:
        UsageError: it is another one.
    """
    if quantize not in (None, INT8):
        raise UsageError(f"--quantize {quoted(quantize or '')}: choose {INT8}")


def check_licence(licence: str | None) -> None:
    """Refuse a text that hubs do not accept as the identifier of a licence.

    Raises:
        UsageError: it is no identifier.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(f"--license {quoted(licence)}: write the identifier of a licence, such as mit or apache-2.0")


def choose_format(form: str | None, out: Path) -> str:
    """Choose the format of a file: `form`, else the format that the file's suffix names.

    Raises:
        UsageError: the two contradict each other, or neither names a format.
    """
    suffix = out.suffix.lower().removeprefix(".")
    named = suffix if suffix in EXPORT_FORMATS else None
    if form is None and named is None:
        raise UsageError(
            f"--out {out}: its suffix names no format; choose one with --format: {EXPORT_FORMATS.listed()}"
        )
    if form is not None and named not in (None, form):
        raise UsageError(f"--out {out} and --format {form}: the suffix is that of {named}; leave --format out")
    return form or suffix
