"""The bundled images: small, real, credited."""

import json

import torch

from m2sd_cli.data.catalogue import BUNDLED
from m2sd_cli.data.check import check_data
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.sources import ArrayImages

HOME = BUNDLED / "demo"


def test_it_is_small_and_its_licence_is_with_it() -> None:
    assert sum(path.stat().st_size for path in HOME.iterdir()) <= 2_000_000
    text = (HOME / "LICENSE").read_text(encoding="utf-8")
    for words in ("Fashion-MNIST", "Zalando", "MIT", "Permission is hereby granted"):
        assert words in text


def test_six_base_classes_and_two_sessions_of_two() -> None:
    data = open_demo()
    assert (data.name, data.base, data.sessions) == ("demo", 6, 2)
    assert data.classes == json.loads((HOME / "classes.json").read_text(encoding="utf-8"))
    assert len(set(data.classes)) == 10
    assert set(data.train.labels.tolist()) == set(range(6))
    assert set(data.test.labels.tolist()) == set(range(10))
    assert data.train.labels.bincount().min() >= 100
    assert data.test.labels.bincount().min() >= 20
    for number in (1, 2):
        shots = data.session(number)
        assert shots.classes == data.classes[4 + 2 * number : 6 + 2 * number]
        assert shots.source.labels.bincount().tolist() == [5, 5]


def test_no_image_is_there_twice() -> None:
    data = open_demo()
    digests = [
        digest
        for source in (data.train, data.test, data.session(1).source, data.session(2).source)
        for digest in source.digests()
    ]
    assert len(set(digests)) == len(digests)


def test_images_are_grey_and_of_the_size_that_the_network_sees() -> None:
    data = open_demo()
    assert isinstance(data.test, ArrayImages)
    assert data.test.images.shape[1:] == (28, 28, 3)
    assert data.test.images.dtype == torch.uint8
    assert torch.equal(data.test.images[..., 0], data.test.images[..., 2])
    assert data.test.images.float().std(dim=0).mean() > 10
    pixels, labels = next(iter(data.test.batches(data.transform, 7)))
    assert pixels.shape == (7, 3, 28, 28)
    assert torch.equal(pixels[3], data.test.images[3].permute(2, 0, 1))
    assert torch.equal(labels, data.test.labels[:7])


def test_it_can_be_checked_like_any_other() -> None:
    summary = check_data(open_demo())
    assert (summary.classes, summary.base_classes, summary.sessions) == (10, 6, 2)
