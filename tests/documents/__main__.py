"""Make the tables and the outputs of the documents anew: python -m tests.documents --write [DOCUMENT...]

Without --write it changes nothing, and tells what differs. The demo runs at its full length, which takes minutes.
"""

import sys

from tests.documents.markdown import Document, Part, documents
from tests.documents.play import play
from tests.documents.tables import make_table


def replaced(document: Document, parts: list[tuple[Part, str]]) -> str:
    """Return the text of a document with other texts in the place of some of its parts."""
    text = document.text
    for part, content in sorted(parts, key=lambda each: each[0].start, reverse=True):
        text = text[: part.start] + content + text[part.end :]
    return text


def main(words: list[str]) -> int:
    """Check or write the documents that are named, or all of them, and return the exit code."""
    write = "--write" in words
    names = [word for word in words if word != "--write"]
    chosen = [each for each in documents() if not names or each.name in names]
    if len(chosen) < len(names):
        print(f"choose {', '.join(each.name for each in documents())}", file=sys.stderr)
        return 2
    differs = False
    for document in chosen:
        parts: list[tuple[Part, str]] = []
        for table in document.tables:
            made = make_table(table.name)
            if table.text != made:
                print(f"{document.line_of(table)}: table: {table.name}")
                parts.append((table, made))
        if any(block.marker("prints") is not None for block in document.blocks):
            for shown in play(document, full=True):
                if not shown.agrees():
                    print(f"{document.line_of(shown.block)}: prints: {shown.block.marker('prints')}")
                    parts.append((shown.block, shown.printed))
        differs |= bool(parts)
        if write and parts:
            document.path.write_text(replaced(document, parts), encoding="utf-8")
    return int(differs and not write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
