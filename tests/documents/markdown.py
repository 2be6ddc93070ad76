"""The parts of a Markdown document that can be compared with the program: blocks of code, generated tables, links."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"<!-- table: (?P<name>[^>]+?) -->\n(?P<text>.*?)<!-- /table -->", re.DOTALL)
LINK = re.compile(
    r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)|<(?:img|a)\s[^>]*?(?:src|href)=\"(?P<source>[^\"]+)\""
)
HEADING = re.compile(r"^#{1,6} (?P<text>.+?)[ \t]*#*$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A stretch of a document between two characters."""

    line: int  # its first one, from 1
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Block(Part):
    """A fenced block, with the comments that stand directly above it."""

    language: str
    markers: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Tell whether the block is run: a shell's, or a Python script, unless a marker leaves it out."""
        shown = self.language == "python" and re.match(r'"""|# \S+\.py\n', self.text) is not None
        return self.language in ("sh", "python") and not shown and self.marker("not run") is None

    def marker(self, name: str) -> str | None:
        """Return the text of the marker `name: text`, which may be empty; None if there is none of that name."""
        for marker in self.markers:
            first, _, rest = marker.partition(":")
            if first == name:
                return rest.strip()
        return None


@dataclass(frozen=True)
class Table(Part):
    """The lines between the two comments of a generated table."""

    name: str


@dataclass(frozen=True)
class Document:
    """A Markdown file of the repository."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Return the path from the root of the repository."""
        return Path(os.path.relpath(self.path, ROOT)).as_posix()

    @property
    def blocks(self) -> list[Block]:
        """Return the fenced blocks in order."""
        return [
            Block(*self._place(found, "text"), found["language"], self._markers(found.start()))
            for found in FENCE.finditer(self.text)
        ]

    @property
    def tables(self) -> list[Table]:
        """Return the generated tables in order."""
        return [Table(*self._place(found, "text"), found["name"]) for found in TABLE.finditer(self.text)]

    @property
    def prose(self) -> str:
        """Return the text with blocks of code blanked out, line by line."""
        return FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), self.text)

    @property
    def hand_written(self) -> str:
        """Return the prose with generated tables blanked out, line by line."""
        return TABLE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), self.prose)

    @property
    def anchors(self) -> set[str]:
        """Return the names under which the headings can be linked to."""
        found: dict[str, int] = {}
        for heading in HEADING.finditer(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"]).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
        return {
            slug if not number else f"{slug}-{number}" for slug, last in found.items() for number in range(last + 1)
        }

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield line and target of each link and image."""
        prose = re.sub(r"`[^`\n]*`", lambda found: " " * len(found[0]), self.prose)
        for found in LINK.finditer(prose):
            yield self._line(found.start()), found["target"] or found["source"]

    def line_of(self, part: Part) -> str:
        """Write where a part stands, as editors read it."""
        return f"{self.name}:{part.line}"

    def _line(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def _place(self, found: re.Match[str], group: str) -> tuple[int, int, int, str]:
        return self._line(found.start()), found.start(group), found.end(group), found[group]

    def _markers(self, position: int) -> tuple[str, ...]:
        found = []
        while (before := self.text[:position].rstrip()).endswith("-->"):
            position = before.rindex("<!--")
            found.append(before[position + 4 : -3].strip())
        return tuple(found)


def documents() -> list[Document]:
    """Read the Markdown documents of the root, of the rooms and of .github."""
    paths = [*ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md"), *(ROOT / "m2sd_cli").rglob("*.md")]
    return [Document(path, path.read_text(encoding="utf-8")) for path in sorted(paths)]
