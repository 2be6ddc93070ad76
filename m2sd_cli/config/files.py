"""Files of options: recipes, and files that are given with --config."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2sd_cli.config.option import find_option, nearest, options_of, shown
from m2sd_cli.config.stages import MODELS, STAGES
from m2sd_cli.errors import UsageError
from m2sd_cli.paths import expand
from m2sd_cli.reading import quoted, read_toml

FILE_LIMIT = 2**20  # bytes of a file of options


@dataclass(frozen=True)
class OptionsFile:
    """The content of a file of options: a recipe, or a file that is given with --config."""

    data: str | None  # the name or folder of the images, for --data
    tables: Mapping[str, Mapping[str, Any]]  # by stage; a stage that the file does not mention has none


NO_OPTIONS = OptionsFile(None, {})


def read_options(file: Path) -> OptionsFile:
    """Read a TOML file: `data`, and a table for each stage.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else.
    """
    try:
        content = read_toml(file, FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"--config {file}: {error}") from None
    data = content.pop("data", None)
    if not isinstance(data, str | None):
        raise UsageError(f"--config {file}: data {shown(data)}: write the name of a data set or folder in quotes")
    for name, table in content.items():
        if name not in STAGES or not isinstance(table, dict):
            named = quoted(repr(name))
            hint = nearest(name, STAGES)
            raise UsageError(f"--config {file}: only data, [pretrain] and [distill] are known, not {named}{hint}")
        for option in table:
            find_option(options_of(MODELS[name]), option, f"--config {file}: [{name}]")
        if str(table.get("init")).startswith("~"):  # no shell has seen it
            table["init"] = str(expand(table["init"], f"--config {file}: init"))
    # Of the folders ./NAME and NAME/ a Path would make the name of a data set.
    if data is not None and (not data or data.startswith("~")):
        data = str(expand(data, f"--config {file}: data"))
    return OptionsFile(data, content)


def checked_tables(file: Path | None) -> dict[str, dict[str, Any]]:
    """Return the tables of a file of options, for both stages, in their recorded form: without folders of this machine.

    Raises:
        UsageError: the file cannot be used, or a value does not fit its option.
    """
    tables = read_options(file).tables if file is not None else {}
    checked = {
        stage: {name: options_of(MODELS[stage])[name].check(value) for name, value in table.items()}
        for stage, table in tables.items()
    }
    for table in checked.values():
        files = {name: table[name] for name in ("init", "class_order", "split") if isinstance(table.get(name), str)}
        table |= {name: Path(value).name for name, value in files.items()}
    return checked
