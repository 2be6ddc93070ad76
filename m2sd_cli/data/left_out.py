"""Files in folders of images that are left out, counted by their kind, with the way out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2sd_cli.data.kinds import SYSTEM_FILES, is_any_image, is_image, way_out

NAMED = 5  # kinds or names in a message


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that are left out."""

    files: int
    kind: str  # a suffix, or words on where they lie
    way_out: str

    def __str__(self) -> str:
        return f"{self.files} {self.kind}: {self.way_out}"


def count_suffixes(entries: Iterable[Path]) -> Counter[str]:
    """Count the entries of a folder that are files and no readable images, by their suffix.

    Hidden files and files that systems leave behind are not counted.
    """
    counts: Counter[str] = Counter()
    for path in entries:
        name = path.name
        if not (is_image(path) or name.startswith(".") or name.lower() in SYSTEM_FILES) and path.is_file():
            counts[path.suffix.lower()] += 1
    return counts


def by_kind(counts: Counter[str]) -> list[LeftOut]:
    """List the files of every suffix: images first, then the most frequent."""
    ranked = sorted(counts.items(), key=lambda each: (not is_any_image(Path(f"a{each[0]}")), -each[1], each[0]))
    return [
        LeftOut(count, suffix or "without a suffix", way_out(suffix, "it" if count == 1 else "them"))
        for suffix, count in ranked
    ]


def describe(left_out: Sequence[LeftOut]) -> str:
    """Describe left-out files in one line."""
    more = len(left_out) - NAMED
    named = [str(each) for each in left_out[:NAMED]]
    files = sum(each.files for each in left_out[NAMED:])
    rest = f"; and {files} file{'s' * (files > 1)} of {more} more kind{'s' * (more > 1)}" if more > 0 else ""
    return "; ".join(named) + rest


def shorten(names: Sequence[str], between: str = ", ") -> str:
    """Enumerate the first of some names, and the number of the others."""
    return between.join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
