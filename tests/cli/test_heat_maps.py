"""The files of `m2sd predict --explain`."""

import json
import shutil
from pathlib import Path

import torch
from PIL import Image

from m2sd_cli.reports.page.thumbnails import GAP, SMALLEST, evidence_png, heat
from tests.helpers import Cli, Stripes, check_refusal, tree


def test_every_image_gets_a_file_whatever_its_name(m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    source = next((stripes.labelled / "red").iterdir())
    for name in ("-rf.png", "<b>$(x)\n\x1b[31m.png", "\u6f22.png", "x" * 200 + ".png"):
        shutil.copy(source, folder / name)
    words = ["predict", folder, "--run", trained, "--device", "cpu"]
    plain = m2sd(*words)
    done = m2sd(*words, "--explain", tmp_path / "why")
    assert (done.code, done.out) == (0, plain.out)
    assert f"heat maps of 4 photos: {tmp_path / 'why'}" in done.err
    files = sorted((tmp_path / "why").iterdir())
    assert [file.name[:6] for file in files] == ["00001-", "00002-", "00003-", "00004-"]
    for file in files:
        assert file.name.isascii()
        assert file.name.isprintable()
        with Image.open(file) as image:
            assert image.size == (3 * SMALLEST + 2 * GAP, SMALLEST)
    found = json.loads(m2sd(*words, "--explain", tmp_path / "why", "--json").out)["predictions"]
    assert [each["heat_map"] for each in found] == [str(file) for file in files]
    assert [each["heat_map"] for each in json.loads(m2sd(*words, "--json").out)["predictions"]] == [None] * 4
    one = json.loads(m2sd(*words, "--top-k", 1, "--explain", tmp_path / "one", "--json").out)["predictions"]
    assert [len(each["classes"]) for each in one] == [1] * 4
    assert [file.read_bytes() for file in sorted((tmp_path / "one").iterdir())] == [each.read_bytes() for each in files]


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    words = ["predict", stripes.labelled, "--run", run, "--device", "cpu", "--explain"]
    check_refusal(m2sd(*words, tmp_path / "file"), 2, "it is a file; name a folder")
    check_refusal(m2sd(*words, tmp_path / "absent" / "why"), 2, "no such folder as")
    check_refusal(m2sd(*words, run / "training"), 2, "that is a folder of the run")
    for inside in (stripes.labelled, stripes.labelled / "red" / "why"):
        check_refusal(m2sd(*words, inside), 2, f"it is in {stripes.labelled}, so that heat maps would be taken")
    assert tree(tmp_path) == before


def test_heat_grows_with_the_value_on_one_scale_for_all_maps() -> None:
    maps = torch.tensor([[[0.0, 1.0]], [[2.0, 4.0]]])
    opacity = [[image.getpixel((x, 0))[3] for x in range(2)] for image in heat(maps)]  # type: ignore[index]
    assert opacity == [[0, 50], [99, 199]]
    assert all(image.getpixel((0, 0))[3] == 0 for image in heat(torch.ones(2, 1, 1)))  # type: ignore[index]


def test_large_images_keep_their_size() -> None:
    pixels = torch.zeros(3, 300, 300, dtype=torch.uint8)
    content = evidence_png(pixels, torch.zeros(1, 7, 7))
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 2 * 300 + GAP
