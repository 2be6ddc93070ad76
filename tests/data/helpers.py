"""Images for tests, and pieces of the files of images."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m2sd_cli.data.sources import FileImages, ImageSource
from m2sd_cli.progress import Reporter

RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112
SAVED_AS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}


class Listener(Reporter):
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self.said.append(text)


def save(folder: Path, image: Image.Image, name: str = "image.png", **options: Any) -> Path:
    """Save an image in a folder; return its path."""
    image.save(folder / name, **options)
    return folder / name


def noise(width: int = 24, height: int = 16) -> Image.Image:
    """Make an RGB image of noise, the same one every time."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def fill(folder: Path, count: int, first: int = 0) -> None:
    """Make the folder of a class with small images, named by their numbers."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.new("RGB", (10, 12), (number, 0, 0)).save(folder / f"{number:03d}.png")


def names(source: ImageSource) -> list[str]:
    """Name the files of a source by CLASS/FILE."""
    assert isinstance(source, FileImages)
    return [f"{path.parent.name}/{path.name}" for path in source.paths]


def generator(seed: int = 0) -> torch.Generator:
    """Make a generator of random numbers."""
    return torch.Generator().manual_seed(seed)


def colour(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    """Return the colour of a pixel of an RGB image."""
    assert image.mode == "RGB"
    red, green, blue = np.asarray(image)[y, x].tolist()
    return red, green, blue


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Make a chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
