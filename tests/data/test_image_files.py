"""The files of images in folders, and what has an image's name and is no file."""

import os
import socket
from pathlib import Path

import pytest

from m2sd_cli.data.image_files import find_images, images_among, list_folder
from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import DataError, ImageError
from m2sd_cli.progress import report_to
from tests.data.helpers import Listener, noise, save


def test_the_images_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.jpeg", "d.webp", "e.bmp", ".hidden.png", "notes.txt", "f.GIF", "png"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    assert [path.name for path in sorted(images_among(list_folder(tmp_path)))] == [
        "a.JPG",
        "b.png",
        "c.jpeg",
        "d.webp",
        "e.bmp",
        "f.GIF",
    ]


def make(path: Path, kind: str) -> Path:
    """Something with an image's name that is no file."""
    match kind:
        case "dangling link":
            path.symlink_to("nowhere")
        case "link to itself":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "link to a pipe":
            os.mkfifo(path.with_suffix(""))
            path.symlink_to(path.with_suffix(""))
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(path))
        case "device":
            path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "pipe", "link to a pipe", "socket", "device"])
def test_what_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = make(tmp_path / "x.png", kind)
    assert sorted(images_among(list_folder(tmp_path))) == [path]
    assert find_images([tmp_path]) == [path]
    assert find_images([path]) == [path]
    with pytest.raises(ImageError, match=r"x\.png: not a file, or a link that leads nowhere$"):
        open_rgb(path)


def test_folders_that_link_to_each_other_are_searched_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "top" / name).mkdir(parents=True)
        save(tmp_path / "top" / name, noise())
    for stored, target in (("a/up", ".."), ("a/self", "."), ("a/b", "../b"), ("b/a", "../a"), ("b/x.png", "../a")):
        (tmp_path / "top" / stored).symlink_to(target)
    (tmp_path / "link").symlink_to("top")
    for folder in ("top", "link"):
        expected = [tmp_path / folder / name / "image.png" for name in ("a", "b")]
        assert find_images([tmp_path / folder]) == expected


def test_a_linked_folder_inside_of_a_folder_is_told(tmp_path: Path) -> None:
    for name in ("trip", "album"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, noise())
    (tmp_path / "album" / "day").mkdir()
    (tmp_path / "album" / "day" / "trip").symlink_to(tmp_path / "trip")
    listener = Listener()
    with report_to(listener):
        assert find_images([tmp_path / "album"]) == [tmp_path / "album" / "image.png"]
    link = Path("day") / "trip"
    assert listener.said == [f"{tmp_path / 'album'}: left out: 1 link to a folder ({link}): name it, too"]
    with report_to(listener):
        assert len(find_images([tmp_path / "album", tmp_path / "album" / link])) == 2
    assert len(listener.said) == 1
    assert find_images([tmp_path / "album" / link]) == [tmp_path / "album" / link / "image.png"]
    (tmp_path / "album" / "image.png").unlink()
    (tmp_path / "album" / "here").symlink_to(tmp_path / "trip")
    with pytest.raises(
        DataError, match=r"no image in it that .*: 2 links to folders \(day.trip, here\): name them, too$"
    ):
        find_images([tmp_path / "album"])
    links = [tmp_path / "album" / name for name in (link, "here")]
    assert find_images([tmp_path / "album", *links]) == [each / "image.png" for each in links]


def test_a_tower_of_folders_is_searched_to_its_top(tmp_path: Path) -> None:
    """Higher than calls may be nested."""
    folder = tmp_path
    for _ in range(1100):
        folder = folder / "d"
        folder.mkdir()
    path = save(folder, noise())
    try:
        assert find_images([tmp_path]) == [path]
    finally:  # here, as what tidies up behind the tests nests calls
        path.unlink()
        while folder != tmp_path:
            folder.rmdir()
            folder = folder.parent


def test_hidden_folders_and_those_of_the_system_are_searched_only_where_they_are_named(tmp_path: Path) -> None:
    names = (
        ".thumbnails",
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        ".hidden",
        "run",
        "album/.cache",
        "album/@eaDir/x.jpg",
    )
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        save(tmp_path / name, noise())
    (tmp_path / "run" / "image.png").rename(tmp_path / "run" / ".image.png")
    (tmp_path / "run" / "head.json").touch()
    (tmp_path / "run" / "reports").mkdir()
    figure = save(tmp_path / "run" / "reports", noise())
    mine = save(tmp_path / "album", noise())
    assert find_images([tmp_path]) == [mine]
    assert find_images([tmp_path / ".thumbnails"]) == [tmp_path / ".thumbnails" / "image.png"]
    assert find_images([tmp_path / "run"]) == [figure]
