"""Lines of tables that spreadsheets read."""

import csv
import io


def csv_line(*cells: object) -> bytes:
    """Return a line of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue().encode("utf-8", "backslashreplace")
