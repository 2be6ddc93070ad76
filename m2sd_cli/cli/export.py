"""The command `m2sd export`."""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, note
from m2sd_cli.errors import UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, choose_format


def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write.", show_default=False, readable=False)],
    form: Annotated[
        str | None, options.named(EXPORT_FORMATS, "{choices}.", show_default="by the suffix of --out")
    ] = None,
    session: options.SessionChoice = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    classifier: options.Classifier = None,
    run: options.Run = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write backbone and classifier of a session as one file.

    onnx and pt2 take uint8 RGB pixels (batch, 3, height, width), resized and cropped, and return logits, whose softmax
    is calibrated, and a score; class names and pre-processing are in the file, as JSON under the key m2sd. An image
    whose score is below its unknown_below is of no class that was taught. With safetensors, divide by its temperature.

    Examples:
      m2sd export --out birds.onnx
      m2sd export --session 0 --out base.safetensors
    """
    import m2sd_cli
    from m2sd_cli.output_files import is_special, is_stdout

    if json and is_stdout(out):
        raise UsageError(f"--out {out} and --json: both write to stdout; name a file")

    chosen = choose_format(form, out)
    path = m2sd_cli.export(
        chosen,
        out,
        run=run,
        session=session,
        force=force,
        classifier=classifier,
    )
    size = None if is_special(path) else path.stat().st_size
    if json:
        document({"file": as_text(path), "format": chosen, "bytes": size})
    else:
        note(f"wrote {path}" if size is None else f"wrote {path}, {size / 1e6:.1f} MB", quiet)
