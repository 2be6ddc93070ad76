"""Deployable files of a session, and the table of their formats; importing this module imports no torch."""

from dataclasses import dataclass
from typing import Final

from m2sd_cli.registry import Builder, Registry


@dataclass(frozen=True)
class ExportFormat:
    """A format of `m2sd export`."""

    builder: Builder  # of a SessionModel and its description as JSON text; returns the bytes of the file
    extra: str | None = None  # of this package, without which the builder has not all that it imports
    modules: tuple[str, ...] = ()  # that the extra installs


EXPORT_FORMATS: Final = Registry(
    "--format",
    "m2sd.export_formats",
    ExportFormat,
    {
        "safetensors": ExportFormat("m2sd_cli.exporting.export:to_safetensors"),
        "onnx": ExportFormat("m2sd_cli.exporting.export:to_onnx", "onnx", ("onnx", "onnxscript")),
        "pt2": ExportFormat("m2sd_cli.exporting.export:to_pt2"),
    },
)
