"""The command `m2sd features`."""

from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.option_sets import Computing, Printing, takes_option_sets, values
from m2sd_cli.cli.output import as_text, document, note
from m2sd_cli.data.parts import PARTS, check_part
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import counted


@takes_option_sets
def features(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="The safetensors file to write.", show_default=False, readable=False)
    ],
    part: Annotated[
        str,
        typer.Option(
            "--part",
            help=f"Images to write features of: {', '.join(PARTS)}.",
            callback=check_part,
            autocompletion=lambda: [*PARTS],
        ),
    ] = "train",
    run: options.Run = None,
    data: options.FolderOfPretrain = None,
    computing: Computing,
    ignore_new: options.IgnoreNew = False,
    printing: Printing,
) -> None:
    """Write the features of images into a file, for work of your own.

    The file holds features (images, width) float32 and labels (images) int64. Its metadata has JSON under the key m2sd:
    the class names that labels index, and the names of the image files, if there are files. train is all base images
    but those that were held out. From Python: m2sd_cli.features.

    Examples:
      m2sd features --out train.safetensors
      m2sd features --part test --out test.safetensors
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import check_output, is_stdout, write_output

    if printing.json and is_stdout(out):
        raise UsageError(f"--out {out} and --json: both write to stdout; name a file")
    check_output("--out", out, m2sd_cli.open_run(run))
    with reporting(printing.quiet):
        found = m2sd_cli.features(run, data, part, ignore_new=ignore_new, **values(computing))

    from m2sd_cli.exporting.feature_file import feature_file

    images, width = found.features.shape
    about = {
        "part": found.part,
        "data": found.data,
        "classes": found.classes,
        "files": found.names,
        "session_0_sha256": found.sha256,
    }
    write_output(out, feature_file(found.features, found.labels, about))
    if printing.json:
        document({"file": as_text(out), "part": part, "images": images, "width": width})
    else:
        note(f"wrote {out}: features of {counted(images, 'image')}, {width} numbers each", printing.quiet)
