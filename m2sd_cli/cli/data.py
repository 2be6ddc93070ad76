"""The command `m2sd data`."""

from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import as_text, document, note, results, table
from m2sd_cli.data.left_out import shorten
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.reading import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from m2sd_cli.data.check import Summary

LISTED = 10  # lines of a list on a terminal

app = typer.Typer(cls=Group, rich_markup_mode=None)
Name = Annotated[
    str,
    typer.Argument(
        help="Built-in data set, or a folder of photos.",
        show_default=False,
        autocompletion=options.complete_data_sets,
    ),
]


@app.callback(invoke_without_command=True)
def data(context: typer.Context, data_root: options.DataRoot = None, json: options.Json = False) -> None:
    """List, verify and download data sets, and clear the cache of decoded images.

    Examples:
      m2sd data
      m2sd data download cifar100
      m2sd data verify ./photos
      m2sd data clear
    """
    if context.invoked_subcommand is None:
        list_data(data_root, json)
    else:
        options.refuse_before_subcommand(context)


@app.command("list", cls=Command)
def list_data(data_root: options.DataRoot = None, json: options.Json = False) -> None:
    """List the data sets with their folders, and the size of the cache of decoded images.

    Example:
      m2sd data list --json
    """
    from dataclasses import asdict

    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.data.cache import as_size, cache_folder, list_entries
    from m2sd_cli.data.catalogue import all_infos
    from m2sd_cli.data.locate import data_roots, locate

    entries = list_entries()
    taken = sum(each.bytes for each in entries)
    folders = {}
    with reporting():
        infos = all_infos().values()
    for info in infos:
        root = locate(info, data_root) if info.layout else None
        folders[info.name] = as_text(root / info.layout) if root else None
    if json:
        document(
            {
                "data_sets": [
                    {
                        "name": info.name,
                        "title": info.title,
                        "here": not info.layout or folders[info.name] is not None,
                        "place": folders[info.name],
                    }
                    for info in infos
                ],
                "cache": {
                    "place": as_text(cache_folder()),
                    "bytes": taken,
                    "entries": [asdict(each) for each in entries],
                },
            }
        )
        return
    rows = []
    for info in infos:
        expected = data_roots(data_root)[0] / info.layout
        missing = "downloaded when needed" if info.download else f"not here; belongs in {expected}"
        rows.append([info.name, (folders[info.name] or missing) if info.layout else "in the package", info.title])
    results(table(["name", "place", "what"], rows))
    results(["", f"decoded images: {as_size(taken)} in {as_text(cache_folder())} (entries: {len(entries)})"])


@app.command("verify", cls=Command)
def verify(
    name: Name, data_root: options.DataRoot = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Read every image of a data set or folder, and list all that is wrong with it, before hours are spent.

    Exit code 3 if 'm2sd pretrain' or 'm2sd evaluate' would refuse it, 0 otherwise, whatever is remarked on.

    Examples:
      m2sd data verify cifar100
      m2sd data verify ./photos
      m2sd data verify ./photos --json
    """
    from dataclasses import asdict

    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.data.check import check

    with reporting(quiet):
        summary = check(name, data_root)
    if json:
        document(asdict(summary))
    else:
        results(_summary_lines(name, summary))
    if summary.is_refused:
        faults = [*(f"{name}/{each.file}: {each.reason}" for each in summary.unreadable), *summary.faults]
        raise DataError(faults[0] + (f"; and {len(faults) - 1} more, listed above" if len(faults) > 1 else ""))


def _summary_lines(name: str, summary: "Summary") -> "Iterator[str]":
    """Describe what was found in a data set; long lists are shortened."""
    bad = f"{len(summary.unreadable)} cannot be read" if summary.unreadable else "all readable"
    sessions = f", {counted(summary.sessions, 'session')} of its own" if summary.sessions else ""
    classes = "1 class" if summary.classes == 1 else f"{summary.classes} classes"
    if summary.base_classes != summary.classes:
        classes += f", {summary.base_classes} of them base classes"
    if summary.classes:
        yield (
            f"{name}: {classes}{sessions}; {summary.training_images} images to train on, {summary.test_images} to test "
            f"on; {bad}"
        )
    by_counts: dict[tuple[int, int], list[str]] = {}
    for each in summary.class_counts:
        by_counts.setdefault((each.training, each.test), []).append(each.name)
    yield from _shortened(
        "images to train on and to test on, by class",
        [f"{training} and {test}: {shorten(names)}" for (training, test), names in by_counts.items()],
        counted=False,  # the lines are no classes
    )
    for word, size in (("smallest", summary.smallest), ("largest", summary.largest)):
        if size is not None:
            yield f"{word}: {size.width} x {size.height}" + (f", {size.file}" if size.file else "")
    yield from _shortened("faults", summary.faults)
    yield from _shortened("cannot be read", [f"{each.file}: {each.reason}" for each in summary.unreadable])
    yield from _shortened("left out", [str(each) for each in summary.left_out])
    for title, groups in (
        ("equal images in more than one class", summary.repeated_across_classes),
        ("equal images for training and testing", summary.repeated_in_training_and_test),
        ("equal images in a class", summary.repeated_within_class),
    ):
        told = summary.repeated_in_training_and_test if groups is summary.repeated_within_class else []
        yield from _shortened(title, [shorten(group, " = ") for group in groups if group not in told])
    yield from _shortened("remarks", summary.remarks)


def _shortened(title: str, lines: "Sequence[str]", counted: bool = True) -> "Iterator[str]":
    """Write a title, with the number of lines where that tells something, and the first of them, if there are any."""
    if lines:
        yield f"{title} ({len(lines)}):" if counted else f"{title}:"
        yield from (f"  {line}" for line in lines[:LISTED])
        if len(lines) > LISTED:
            yield f"  and {len(lines) - LISTED} more; --json lists all"


@app.command("clear", cls=Command)
def clear(quiet: options.Quiet = False) -> None:
    """Remove the cache of decoded images; images are decoded anew when they are needed.

    Example:
      m2sd data clear
    """
    from m2sd_cli.data.cache import as_size, cache_folder
    from m2sd_cli.data.cache import clear as clear_cache

    entries, freed = clear_cache()
    note(f"decoded images: {as_size(freed)} freed in {as_text(cache_folder())} (entries removed: {entries})", quiet)


@app.command("download", cls=Command)
def download(
    name: Annotated[
        str,
        typer.Argument(help="Built-in data set.", show_default=False, autocompletion=options.complete_data_sets),
    ],
    data_root: options.DataRoot = None,
    quiet: options.Quiet = False,
) -> None:
    """Download CIFAR-100 and check it, unless it is there.

    Example:
      m2sd data download cifar100 --data-root ./data
    """
    from m2sd_cli.data.catalogue import get_info, listed_names
    from m2sd_cli.data.locate import fetch, locate

    info = get_info(name)
    if info is None:
        raise UsageError(f"{name}: no built-in data set of that name; choose {listed_names()}")
    if not info.layout:
        note(f"{name}: in the package, nothing to download", quiet)
        return
    root = locate(info, data_root) or fetch(info, data_root)
    note(f"{name}: {root / info.layout}", quiet)
