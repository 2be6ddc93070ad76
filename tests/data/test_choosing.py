"""Drawing among the images of every class: by what they are, the same way every time."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.data.choosing import choose_training, draw, those, trained_of
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.sources import ArrayImages, FileImages


def arrays(labels: list[int], seed: int = 0) -> ArrayImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 2, 2, 3), generator=generator, dtype=torch.uint8)
    return ArrayImages(images, torch.tensor(labels, dtype=torch.int64))


demo = cache(open_demo)


def data_of(labels: list[int], seed: int = 0) -> DataSet:
    return replace(demo(), train=arrays(labels, seed))


def by_class(lots: list[str], labels: list[int]) -> list[list[str]]:
    """The lots of each class's images, sorted."""
    return [sorted(lot for lot, own in zip(lots, labels, strict=True) if own == label) for label in range(6)]


def plain_draw(lots: list[str], labels: list[int]) -> tuple[list[int], list[int]]:
    """Class by class: its images, sorted by their lots; those with the same lot stay in order."""
    places = [-1] * len(labels)
    for label in set(labels):
        drawn = sorted((lot, number) for number, lot in enumerate(lots) if labels[number] == label)
        for place, (_, number) in enumerate(drawn):
            places[number] = place
    return places, [labels.count(label) for label in labels]


def as_lists(drawn: tuple[Tensor, Tensor]) -> tuple[list[int], list[int]]:
    return drawn[0].tolist(), drawn[1].tolist()


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 1000))
def test_every_class_is_put_in_an_order_of_its_own(labels: list[int], seed: int) -> None:
    source = arrays(labels, seed)
    lots = [hashlib.sha256(bytes(image.flatten().tolist())).hexdigest() for image in source.images]
    assert as_lists(draw(source)) == plain_draw(lots, labels)


def test_images_that_are_the_same_stay_in_order() -> None:
    alike = ArrayImages(torch.zeros(5, 2, 2, 3, dtype=torch.uint8), torch.tensor([1, 0, 1, 1, 0]))
    assert as_lists(draw(alike)) == ([0, 0, 1, 2, 1], [3, 2, 3, 3, 2])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_the_source_does_not_matter(labels: list[int], random: object) -> None:
    source = arrays(labels)
    shuffled = torch.tensor(sorted(range(len(labels)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    places, _ = draw(source)
    again, _ = draw(source.select(shuffled, source.labels[shuffled]))
    assert torch.equal(places[shuffled], again)


def test_files_are_drawn_by_their_bare_names_and_not_read() -> None:
    names = [f"{number}.jpg" for number in range(30)]
    labels = [number % 3 for number in range(30)]
    lots = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    for folder in ("nowhere", "elsewhere"):
        source = FileImages(tuple(Path(folder) / name for name in names), torch.tensor(labels))
        assert as_lists(draw(source)) == plain_draw(lots, labels)


@pytest.mark.parametrize("kind", ["array", "files"])
def test_those_that_are_chosen_stay_in_order(kind: str) -> None:
    labels = torch.tensor([2, 0, 1, 0, 2])
    chosen = torch.tensor([True, False, True, True, False])
    images = arrays(labels.tolist())
    files = FileImages(tuple(Path(str(number)) for number in range(5)), labels)
    found = those(images if kind == "array" else files, chosen)
    if isinstance(found, ArrayImages):
        assert torch.equal(found.images, images.images[[0, 2, 3]])
    else:
        assert isinstance(found, FileImages)
        assert [str(path) for path in found.paths] == ["0", "2", "3"]
    assert found.labels.tolist() == [2, 1, 0]
    assert len(those(found, torch.zeros(3, dtype=torch.bool))) == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 1000))
def test_a_class_gives_as_many_images_as_it_may(labels: list[int], number: int, seed: int) -> None:
    data = data_of(labels, seed)
    few, more = (choose_training(data, 0.0, each).train for each in (number, number + 3))
    whole = by_class(data.train.lots(), labels)
    assert by_class(few.lots(), few.labels.tolist()) == [lots[:number] for lots in whole]
    assert set(few.lots()) <= set(more.lots())
    assert few.lots() == [lot for lot in data.train.lots() if lot in set(few.lots())]


def test_all_images_are_no_choice() -> None:
    data = data_of([0, 1])
    assert choose_training(data, 0.0, None) is data


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=90),
    st.floats(0, 0.5),
    st.one_of(st.none(), st.integers(1, 30)),
)
def test_a_share_of_each_class_is_held_out_first(labels: list[int], share: float, number: int | None) -> None:
    data = data_of(labels)
    found = choose_training(data, share, number)
    trained = by_class(found.train.lots(), found.train.labels.tolist())
    kept_out = [[]] * 6 if found.held_out is None else by_class(found.held_out.lots(), found.held_out.labels.tolist())
    assert found.held_out is None or len(found.held_out)
    for whole, train, held in zip(by_class(data.train.lots(), labels), trained, kept_out, strict=True):
        count = round(share * len(whole)) if share * len(whole) >= 1 else 0
        assert held == whole[:count]
        assert train == whole[count:][:number]
        assert trained_of(len(whole), share, number) == len(train)
        assert bool(train) == bool(whole)


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [(49, 0.02, 0), (50, 0.02, 1), (500, 0.02, 10), (30, 0.05, 2), (29, 0.05, 1), (3, 0.5, 2), (1, 0.5, 0)],
)
def test_shares_are_rounded_to_whole_images(size: int, share: float, count: int) -> None:
    found = choose_training(data_of([0] * size), share, None)
    assert (len(found.train), len(found.held_out or ())) == (size - count, count)


def test_where_nothing_is_held_out_nothing_is_copied() -> None:
    data = data_of([0] * 19 + [1] * 12)
    found = choose_training(data, 0.05, None)
    assert found.train is data.train
    assert found.held_out is None
    assert choose_training(data, 0.0, 100).train is data.train
