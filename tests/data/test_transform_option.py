"""A folder of small images is treated as a benchmark's images are, in every stage."""

from pathlib import Path

import pytest
from PIL import Image

import m2sd_cli
from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.data.cifar100 import TREATMENT
from m2sd_cli.data.locate import open_data
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.records import transform_record
from tests.helpers import COMMON, Cli, Stripes, check_refusal


def test_a_folder_is_treated_as_cifar100_is(stripes: Stripes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain(stripes.folder, run=run, transform="cifar100", backbone="resnet20", **COMMON)
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    first = RunFolder(run).pretrain().manifest
    assert first.config["transform"] == "cifar100"
    assert {stored.manifest.transform for stored in RunFolder(run).chain()} == {transform_record(TREATMENT.transform)}
    again = recorded_data(first, str(stripes.folder), None, first.transform.crop)
    assert (again.transform, again.augmentation) == TREATMENT
    pixels, _ = next(again.test.batches(again.transform, 2))
    assert pixels.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--transform", "no-such"], "--transform no-such: choose "),
        (["--transform", "cifar100", "--image-size", 64], "--image-size 64: --transform cifar100 has 32 pixels"),
        (["--transform", "cifar100", "--data", "demo"], "--transform is for folders; demo's images have a treatment"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, words: list[object], message: str
) -> None:
    data = [] if "--data" in words else ["--data", stripes.folder]
    check_refusal(m2sd("pretrain", *data, *words, "--run", tmp_path / "run", "--device", "cpu"), 2, message)
    assert not any(tmp_path.iterdir())


def test_training_and_test_images_of_a_folder_show_the_same_part(tmp_path: Path) -> None:
    """The middle third of a wide photo is white; squashed, it would be a third of the square."""
    photo = Image.new("RGB", (96, 32))
    photo.paste("white", (32, 0, 64, 32))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "1.png")
        photo.save(tmp_path / name / "2.png")
    data = open_data(str(tmp_path), transform="cifar100")
    trained = data.train.for_training(data.augmentation)
    assert trained.images.shape[1:] == (32, 32, 3)
    assert bool((trained.images == 255).all())
    tested, _ = next(data.train.batches(data.transform, 4))
    assert bool((tested == 255).all())
