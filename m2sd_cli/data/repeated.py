"""Images that are there more than once, perhaps in two classes: files that are equal byte by byte."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2sd_cli.data.names import relative_name
from m2sd_cli.data.sources import FileImages, ImageSource
from m2sd_cli.progress import say

NAMED = 3  # groups of equal images in a message


@dataclass(frozen=True)
class Image:
    """An image of a person's own."""

    file: str  # below the folder of images, as text
    class_name: str
    sha256: str


def list_images(source: ImageSource, classes: Sequence[str], folder: Path) -> list[Image]:
    """List the image files of a source with their digests; images in memory have no names, and are not listed."""
    if not isinstance(source, FileImages):
        return []
    rows = zip(source.paths, source.labels.tolist(), source.digests(), strict=True)
    return [Image(relative_name(path, folder), classes[label], sha256) for path, label, sha256 in rows]


def say_repeated(images: Iterable[Image], taught: Mapping[str, str] | None = None) -> None:
    """Report the images that are there more than once, if any, and the first of them.

    Args:
        images: with their classes.
        taught: the class and session of every image that was taught before, as text, by its SHA-256.
    """
    groups: dict[str, dict[str, str]] = {}
    for each in images:
        groups.setdefault(each.sha256, {})[each.file] = each.class_name
    equal = [group for group in groups.values() if len(group) > 1]
    _say("in more than one class", [" = ".join(group) for group in equal if len({*group.values()}) > 1])
    _say("more than once in a class", [" = ".join(group) for group in equal if len({*group.values()}) == 1])
    before = [(group, taught[sha256]) for sha256, group in groups.items() if taught and sha256 in taught]
    _say("taught already", [f"{next(iter(group))} ({name})" for group, name in before])


def _say(what: str, named: Sequence[str]) -> None:
    if named:
        count = "1 image is" if len(named) == 1 else f"{len(named)} images are"
        more = f"; and {len(named) - NAMED} more" if len(named) > NAMED else ""
        say(f"{count} {what}: {'; '.join(named[:NAMED])}{more}")
