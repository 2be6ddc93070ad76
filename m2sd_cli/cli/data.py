"""The command `m2sd data`."""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import as_text, document, note, result, results, table
from m2sd_cli.errors import UsageError

app = typer.Typer(cls=Group, rich_markup_mode=None)
Name = Annotated[
    str,
    typer.Argument(
        help="Of a built-in data set, or a folder.",
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

    from m2sd_cli.data.cache import as_size, cache_folder, list_entries
    from m2sd_cli.data.catalogue import all_infos
    from m2sd_cli.data.locate import data_roots, locate

    entries = list_entries()
    taken = sum(each.bytes for each in entries)
    folders = {}
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
    """Open a data set and read every picture, before hours are spent.

    Examples:
      m2sd data verify cifar100
      m2sd data verify ./photos
    """
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.data.check import check_data
    from m2sd_cli.data.locate import open_data

    with reporting(quiet):
        summary = check_data(open_data(name, data_root))
    if json:
        document(summary)
    else:
        result(
            f"{name}: {summary['base_classes']} base classes of {summary['classes']}, {summary['training_images']} "
            f"training and {summary['test_images']} test images, own sessions: {summary['sessions']}; all readable"
        )


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
        typer.Argument(help="Of a built-in data set.", show_default=False, autocompletion=options.complete_data_sets),
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
