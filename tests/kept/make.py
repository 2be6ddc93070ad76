"""Make the run that is kept: python -m tests.kept.make DIR

It was made once, by version 0.2.0, and is not made again: a later version has to read that one.
"""

import sys
from pathlib import Path
from typing import Any

import m2sd_cli
from m2sd_cli.method import base_statistics, feature_maps
from tests.helpers import BASE, fill

EXACT: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
RANDOM_FEATURES = 32  # instead of a thousand, whose Gram matrix takes 4 MB


def make(folder: Path) -> None:
    """Train four colours, teach three more in two sessions, rename one and forget another."""
    m2sd_cli.register_backbone("tiny", "tests.kept.tiny:Tiny")
    vars(base_statistics)["random_projection"] = lambda width: feature_maps.random_projection(width, RANDOM_FEATURES)
    for colour in BASE:
        fill(folder / "photos" / "train", colour, 16)
        fill(folder / "photos" / "test", colour, 3, first=100)
    fill(folder / "first", "purple", 3)
    fill(folder / "first", "white", 2)
    fill(folder / "second", "grey", 4)
    run, photos = folder / "run", str(folder / "photos")
    m2sd_cli.pretrain(photos, run=run, backbone="tiny", image_size=16, batch_size=8, epochs=12, held_out=0.25, **EXACT)
    m2sd_cli.distill(photos, run=run, batch_size=8, epochs=4, views=2, **EXACT)
    m2sd_cli.increment(1, folder / "first", run=run, device="cpu")
    m2sd_cli.increment(2, folder / "second", run=run, device="cpu")
    m2sd_cli.rename("grey", "slate", run=run)
    m2sd_cli.forget("white", run=run)
    for file in ("places.json", ".lock"):
        (run / file).unlink()
    for colour in (*BASE, "purple", "grey"):
        fill(folder / "labelled", colour, 2, first=200)
    (folder / "labelled" / "grey").rename(folder / "labelled" / "slate")
    fill(folder / "third", "orange", 3)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
