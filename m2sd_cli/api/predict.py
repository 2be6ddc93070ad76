"""Predictions for a person's own images: `predict`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from m2sd_cli.data.image_files import find_images
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.explanation import why_no_maps
from m2sd_cli.inference.prediction import Prediction, predict_files
from m2sd_cli.inference.session import load_session
from m2sd_cli.paths import expand
from m2sd_cli.runs.folder import open_run


def predict(
    images: Path | str | Iterable[Path | str | list[str]],
    *,
    run: Path | str | None = None,
    session: int | None = None,
    top_k: int = 5,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
    explained: int = 0,
) -> Iterator[Prediction]:
    """Label images.

    Args:
        images: files, and folders whose images to take, with those of sub-folders; one alone may stand for itself. An
            iterator of them, or of lists of them, is taken as it goes on: one item is answered before the next one is
            asked for, and a path that does not exist is an image that cannot be read.
        run: the run folder.
        session: the session that answers; None for the newest.
        top_k: the number of guesses an image, at least 1.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: go on after an image that cannot be read; its prediction gives the reason and no guesses.
        classifier: the name in CLASSIFIERS that answers; None for that of the session.
        explained: the number of likeliest classes of an image whose evidence to give, too, as heat maps.

    Raises:
        M2sdError: one of its kinds.
    """
    if top_k < 1:
        raise UsageError(f"--top-k {top_k}: at least 1")
    folder = open_run(run)
    chosen = choose_device(device)
    if isinstance(images, Iterator):
        groups: Iterable[list[Path]] = map(_find_each, images)
    else:
        given = [images] if isinstance(images, (str, Path)) else images
        groups = [find_images([expand(image, "images") for item in given for image in _names(item)])]
    model = load_session(folder, session, chosen, inference_precision(precision), classifier)
    reason = why_no_maps(model) if explained else None
    if reason is not None:
        raise UsageError(f"--explain: {reason}, so that no answer can be split over an image; leave it out")
    return (each for paths in groups for each in predict_files(model, paths, top_k, skip_bad, explained))


def _names(item: Path | str | list[str]) -> Sequence[Path | str]:
    return item if isinstance(item, list) else [item]


def _find_each(item: Path | str | list[str]) -> list[Path]:
    """List the images that names stand for; names that stand for none are listed, too."""
    paths: list[Path] = []
    for name in _names(item):
        path = expand(name, "images")
        try:
            paths += find_images([path])
        except DataError:
            paths.append(path)
    return paths
