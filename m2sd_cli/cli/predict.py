"""The command `m2sd predict`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.heat_maps import EXPLAINED, HeatMapFiles
from m2sd_cli.cli.output import as_text, document, note, printable, result, results, unknown_tells_little
from m2sd_cli.cli.streams import flush_results
from m2sd_cli.errors import DataError, UsageError, os_errors_as
from m2sd_cli.reading import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from m2sd_cli.inference.prediction import Prediction


STDIN = "-"
CHUNK = 65536  # bytes of stdin at a time
UNCALIBRATED = "probabilities are not calibrated, no photo is called unknown: no base images were held out"
COLUMNS = ("class", "probability")  # of each guess


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Photos or folders of photos; - reads their names from stdin.", show_default=False, readable=False
        ),
    ],
    top_k: Annotated[int, typer.Option("--top-k", help="Number of classes to name for each photo.")] = 5,
    session: options.SessionChoice = None,
    classifier: options.Classifier = None,
    run: options.Run = None,
    device: options.Device = "auto",
    precision: options.ExactPrecision = "auto",
    skip_bad: options.SkipBad = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            help="Folder to write heat maps into: the parts of each photo that speak for its two likeliest classes.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated columns, a line a photo.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Name the class of each photo, one for the whole photo. Photos are only read.

    A photo is unknown if 95 % of the photos that were held out are more like a known class; the likeliest classes
    follow in brackets. Where the network can hardly tell, a line says so.

    Examples:
      m2sd predict bird.jpg
      m2sd predict ./holiday --top-k 1
      m2sd predict bird.jpg --session 2 --json
      m2sd predict ./holiday --explain ./heat-maps
      m2sd predict ./holiday --top-k 1 --csv | cut -d, -f1,4
      find ./holiday -type f -newer ./holiday/last.jpg | m2sd predict -

    Answers come in the order of the photos, as soon as they are there. A photo that cannot be read
    is named, and the exit code is 3 at the end; with --skip-bad it is 0.
    """
    from dataclasses import asdict

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.output_files import check_output_folder

    if csv and json:
        raise UsageError("--csv and --json: choose one")
    skipped: list[dict[str, str]] = []

    def named(predictions: "Iterator[Prediction]") -> "Iterator[Prediction]":
        """Yield the predictions of readable photos, and say which photos are left out, once one can be read."""
        answered = False
        for each in predictions:
            if each.skipped is not None:
                skipped.append({"image": as_text(each.path), "reason": each.skipped})
                if answered:
                    say_left_out(skipped[-1])
                continue
            if not answered:
                answered = True
                for bad in skipped:
                    say_left_out(bad)
                if not each.calibrated:
                    note(UNCALIBRATED, quiet)
                elif each.told is not None and each.tells_little:
                    note(unknown_tells_little(each.told), quiet)
            yield each
        if not skipped and not answered:
            raise DataError(f"{STDIN}: no photo is named on stdin")
        if skipped and not answered:
            more = f"; and {len(skipped) - 1} more" if len(skipped) > 1 else ""
            first = skipped[0]
            raise DataError(f"no photo can be read: {first['image']}: {first['reason']}{more}")

    def say_left_out(bad: "dict[str, str]") -> None:
        note(f"left out: {bad['image']}: {bad['reason']}", quiet)

    if explain is not None:
        check_output_folder("--explain", explain, m2sd_cli.open_run(run))
        for folder in filter(os.path.isdir, images):
            if explain.resolve().is_relative_to(Path(folder).resolve()):
                raise UsageError(
                    f"--explain {explain}: it is in {folder}, so that heat maps would be taken for photos next time; "
                    f"name a folder elsewhere"
                )
    maps = None if explain is None else HeatMapFiles(explain)
    with reporting(quiet):
        predictions = named(
            m2sd_cli.predict(
                _groups(images) if Path(STDIN) in images else images,
                run=run,
                session=session,
                top_k=top_k,
                device=device,
                precision=precision,
                skip_bad=True,
                classifier=classifier,
                explained=0 if maps is None else EXPLAINED,
            )
        )
        if json:
            answers = [
                {
                    "image": as_text(each.path),
                    "unknown": each.unknown,
                    "score": each.score,
                    "calibrated": each.calibrated,
                    "unknown_told": each.told,
                    "classes": [asdict(guess) for guess in each.guesses],
                    "heat_map": None if maps is None else as_text(maps.write(each)),
                }
                for each in predictions
            ]
            document({"predictions": answers, "skipped": skipped})
        else:
            for number, each in enumerate(predictions):
                if csv and number == 0:
                    columns = (f"{name}_{rank + 1}" for rank in range(len(each.guesses)) for name in COLUMNS)
                    result(_row(["image", "unknown", "score", *columns]))
                result(_row(_cells(each))) if csv else results([_line(each)])
                flush_results()
                if maps is not None:
                    maps.write(each)
    if maps is not None:
        note(f"heat maps of {counted(maps.count, 'photo')}: {maps.folder}", quiet)
    if skipped and not skip_bad:
        bad = skipped[0]
        others = f"; and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        raise DataError(f"{bad['image']}: {bad['reason']}{others}; with --skip-bad that is no failure")


def _groups(images: list[Path]) -> "Iterator[list[str]]":
    """Yield the named photos in groups; the lines of stdin are one as soon as they are there."""
    for image in images:
        if str(image) == STDIN:
            rest = b""
            while chunk := _read_stdin():
                *lines, rest = (rest + chunk).split(b"\n")
                yield _names(lines)
            yield _names([rest])
        else:
            yield [str(image)]


def _names(lines: list[bytes]) -> list[str]:
    """Decode lines, of which those of Windows end in a carriage return."""
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r"))]


def _read_stdin() -> bytes:
    with os_errors_as(DataError, "stdin: cannot be read"):
        return os.read(0, CHUNK)


def _line(prediction: "Prediction") -> str:
    guesses = ", ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in prediction.guesses)
    return f"{prediction.path}: unknown ({guesses})" if prediction.unknown else f"{prediction.path}: {guesses}"


def _cells(prediction: "Prediction") -> list[str]:
    score = "" if prediction.score is None else f"{prediction.score:.6g}"
    guesses = [cell for guess in prediction.guesses for cell in (guess.name, f"{guess.probability:.6f}")]
    return [str(prediction.path), str(int(prediction.unknown)), score, *guesses]


def _row(cells: "Sequence[str]") -> str:
    """Write a line of comma-separated columns; what could break the line is escaped."""
    from csv import writer
    from io import StringIO

    text = StringIO()
    writer(text, lineterminator="").writerow([printable(cell) for cell in cells])
    return text.getvalue()
