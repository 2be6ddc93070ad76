"""The command `m2sd export`."""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, note
from m2sd_cli.errors import UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, check_licence, choose_format


def _check_licence(licence: str | None) -> str | None:
    check_licence(licence)
    return licence


def export(
    out: Annotated[
        Path, typer.Option("--out", help="The file or folder to write.", show_default=False, readable=False)
    ],
    form: Annotated[
        str | None, options.named(EXPORT_FORMATS, "{choices}.", show_default="by the suffix of --out")
    ] = None,
    session: options.SessionChoice = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there already.")] = False,
    classifier: options.Classifier = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", help="hub: licence of your model, such as mit.", show_default=False, callback=_check_licence
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            help="hub: measure with your own labelled pictures, DIR/CLASS/*.jpg.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    data: options.FolderOfPretrain = None,
    run: options.Run = None,
    data_root: options.DataRoot = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write backbone and classifier of a session as one file, or as a folder for a model hub.

    onnx and pt2 take uint8 RGB pixels (batch, 3, height, width), resized and cropped, and return logits, whose softmax
    is calibrated, and a score; class names and pre-processing are in the file, as JSON under the key m2sd. An image
    whose score is below its unknown_below is of no class that was taught. With safetensors, divide by its temperature.

    hub is a folder with safetensors, JSON, a model card and a model.py that answers without m2sd. The figures of the
    card are measured on test images, if there are some where the run knows them or --test names them.

    Examples:
      m2sd export --out birds.onnx
      m2sd export --session 0 --out base.safetensors
      m2sd export --format hub --license mit --out birds
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import is_special, is_stdout

    if json and is_stdout(out):
        raise UsageError(f"--out {out} and --json: both write to stdout; name a file")

    chosen = choose_format(form, out)
    with reporting(quiet):
        path = m2sd_cli.export(
            chosen,
            out,
            run=run,
            session=session,
            force=force,
            classifier=classifier,
            licence=licence,
            test=test,
            data=data,
            data_root=data_root,
        )
    size = (
        None if is_special(path) else sum(each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path]))
    )
    if json:
        document({"file": as_text(path), "format": chosen, "bytes": size})
    else:
        note(f"wrote {path}" if size is None else f"wrote {path}, {size / 1e6:.1f} MB", quiet)
        if path.is_dir():
            note(f"read {path / 'README.md'} before you publish it: class names and figures are in it", quiet)
