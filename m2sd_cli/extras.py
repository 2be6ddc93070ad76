"""The optional extras of the distribution, and the commands that add them to this installation."""

import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "m2sd"
CHECKOUT = "."  # m2sd's sources, where pip is told of a folder


def install_extra(extra: str) -> str:
    """Return the command that adds an extra to m2sd as it was installed here: from a checkout, a file or a registry."""
    try:
        origin = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:  # its sources alone are on Python's path
        return _pip(f"{CHECKOUT}[{extra}]")
    if "dir_info" in origin:
        folder = unquote(urlsplit(origin["url"]).path)
        checkout = f"{CHECKOUT if os.path.realpath(folder) == str(Path.cwd()) else folder}[{extra}]"
        return _pip("-e", checkout) if origin["dir_info"].get("editable") else _pip(checkout)
    return _pip(f"{DISTRIBUTION}[{extra}]" + (f" @ {origin['url']}" if "url" in origin else ""))


def _pip(*words: str) -> str:
    return "pip install " + " ".join(map(shlex.quote, words))
