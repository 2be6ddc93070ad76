"""The command `m2sd export`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, format_figure, note, result, table
from m2sd_cli.errors import UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, INT8, check_licence, check_quantization, choose_format, folder_formats

if TYPE_CHECKING:
    from m2sd_cli.exporting.quantization import QuantizationLoss

FOLDERS = EXPORT_FORMATS.listed(lambda each: each.folder)


def _check_licence(licence: str | None) -> str | None:
    check_licence(licence)
    return licence


def _check_quantization(quantize: str | None) -> str | None:
    check_quantization(quantize)
    return quantize


def export(
    out: Annotated[
        Path, typer.Option("--out", help="The file or folder to write.", show_default=False, readable=False)
    ],
    form: Annotated[
        str | None, options.named(EXPORT_FORMATS, "Format: {choices}.", show_default="by the suffix of --out")
    ] = None,
    session: options.SessionChoice = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file or folder that is there.")] = False,
    classifier: options.Classifier = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            help=f"Of onnx: {INT8}.",
            show_default=False,
            callback=_check_quantization,
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help=f"Of {FOLDERS}: the licence of your model, such as mit.",
            show_default=False,
            callback=_check_licence,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            help=f"Of {FOLDERS} and --quantize: your own labelled photos to measure with, DIR/CLASS/*.jpg.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    data: options.FolderOfPretrain = None,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    ignore_new: options.IgnoreNew = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the model of a session as one file for other programs, or as a folder for a model hub.

    m2sd itself needs no such file on another machine: copy the run folder.

    onnx and pt2 take uint8 RGB pixels (batch, 3, height, width), resized and cropped. They return logits, whose softmax
    is calibrated, and a score. Class names and pre-processing are in the file, as JSON under the key m2sd. An image
    with a score below its unknown_below is of no class that was taught. Logits of a safetensors file are divided by its
    temperature first.

    onnx needs the extra m2sd[onnx], --quantize the extra m2sd[quantize]; the other formats need none.

    hub is a folder with safetensors, JSON, a model card and a model.py that answers without m2sd. The figures of the
    card are measured on the test images of the run, or on those of --test.

    --quantize int8 lets convolutions compute in integers. It needs base images to find their ranges, and prints what
    it costs on test images.

    Examples:
      m2sd export --out birds.onnx
      m2sd export --session 0 --out base.safetensors
      m2sd export --out birds-int8.onnx --quantize int8
      m2sd export --run birds --format hub --license mit --out birds-hub
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import is_special, is_stdout

    if json and is_stdout(out):
        raise UsageError(f"--out {out} and --json: both write to stdout; name a file")

    chosen = choose_format(form, out)
    if quantize is not None and chosen != "onnx":
        raise UsageError(f"--quantize {quantize} and --format {chosen}: it is for --format onnx; leave one out")
    if quantize is not None and licence is not None:
        raise UsageError(f"--license and --quantize: it is for --format {folder_formats()}; leave it out")
    common: dict[str, Any] = {"run": run, "session": session, "force": force, "classifier": classifier}
    images: dict[str, Any] = {"test": test, "data": data, "data_root": data_root, "ignore_new": ignore_new}
    loss: QuantizationLoss | None = None
    with reporting(quiet):
        if quantize is not None:
            loss = m2sd_cli.quantize(out, **common, **images)
        else:
            out = m2sd_cli.export(chosen, out, **common, **images, licence=licence)
    files = out.iterdir() if out.is_dir() else [out]
    size = None if is_special(out) else sum(each.stat().st_size for each in files)
    if json:
        content = {"file": as_text(out), "format": chosen, "bytes": size}
        document(content if loss is None else content | {"quantization": asdict(loss)})
        return
    for line in [] if loss is None else _loss_lines(loss):
        note(line, quiet) if is_stdout(out) else result(line)
    note(f"wrote {out}" if size is None else f"wrote {out}, {size / 1e6:.1f} MB", quiet)
    if (out / "README.md").is_file():
        note(f"read {out / 'README.md'} before you publish it: class names and figures are in it", quiet)


def _loss_lines(loss: "QuantizationLoss") -> list[str]:
    rows = [
        ["float32", f"{loss.plain:.2f}", format_figure(loss.plain_unknown), f"{loss.plain_bytes / 1e6:.2f}"],
        ["int8", f"{loss.int8:.2f}", format_figure(loss.int8_unknown), f"{loss.int8_bytes / 1e6:.2f}"],
    ]
    gain = f"{loss.int8 - loss.plain:+.2f}"
    images = f"{loss.images:,} test {'image' if loss.images == 1 else 'images'}"
    return [
        *table(["numbers", "top-1", "unknown", "MB"], rows),
        f"int8 changes top-1 by {gain} points on {images}; {loss.same:.2f} % have the same answer",
    ]
