"""Named recipes: files of options that ship in the package. `results.toml` has the figures measured with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from m2sd_cli.config.files import NO_OPTIONS, OptionsFile, read_options
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted

FOLDER: Final = Path(__file__).parent
RESULTS: Final = "results.toml"
NO_RECIPE: Final = "none"


@dataclass(frozen=True)
class Recipe:
    """A recipe as it ships. Its text begins with comments: a title, then commands."""

    name: str | None
    text: str
    options: OptionsFile

    @property
    def title(self) -> str:
        """Return the first line, which describes the recipe."""
        return self.text.splitlines()[0].removeprefix("# ")


NOTHING: Final = Recipe(None, "", NO_OPTIONS)  # in the place of a recipe


def recipe_names() -> list[str]:
    """List the names of the recipes."""
    return sorted(file.stem for file in FOLDER.glob("*.toml") if file.name != RESULTS)


def find_recipe(name: str | None) -> Recipe:
    """Read the recipe of a name; NOTHING if there is no name, or it is `none`.

    Raises:
        UsageError: there is no such recipe; the message has the choices.
    """
    if name is None or name == NO_RECIPE:
        return NOTHING
    if name not in recipe_names():
        raise UsageError(f"--recipe {quoted(name)}: no such recipe; choose {', '.join(recipe_names())}, or {NO_RECIPE}")
    file = FOLDER / f"{name}.toml"
    return Recipe(name, file.read_text(encoding="utf-8"), read_options(file))
