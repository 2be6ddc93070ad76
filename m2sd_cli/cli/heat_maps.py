"""The files of `m2sd predict --explain`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2sd_cli.inference.prediction import Prediction

EXPLAINED = 2  # guesses of a photo
LONGEST = 60  # characters of a photo's name


class HeatMapFiles:
    """A folder that gets a PNG for each photo: the photo, what speaks for its answer, and for the next likeliest.

    Args:
        folder: made when the first photo is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def write(self, prediction: "Prediction") -> Path:
        """Write the file of a photo, and return its path: a number, and what is harmless of the photo's name.

        Raises:
            M2sdError: it cannot be written.
        """
        from m2sd_cli.output_files import make_output_folder, write_output
        from m2sd_cli.reports.page.thumbnails import evidence_png

        assert prediction.evidence is not None, "asked for with `explained`"
        make_output_folder(self.folder)
        self.count += 1
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", prediction.path.stem)[:LONGEST]
        path = self.folder / f"{self.count:05d}-{name}.png"
        write_output(path, evidence_png(prediction.evidence.pixels, prediction.evidence.maps))
        return path
