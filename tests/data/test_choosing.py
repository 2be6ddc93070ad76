"""Choosing among the images of every class: by the images alone, the same way every time."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.data.choosing import choose_training, count_trained, rank_within_class
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.sources import ArrayImages, FileImages, ImageSource, select_where


def arrays(labels: list[int], seed: int = 0) -> ArrayImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 2, 2, 3), generator=generator, dtype=torch.uint8)
    return ArrayImages(images, torch.tensor(labels, dtype=torch.int64))


demo = cache(open_demo)


def data_of(labels: list[int], seed: int = 0) -> DataSet:
    return replace(demo(), train=arrays(labels, seed))


def by_class(keys: list[str], labels: list[int]) -> list[list[str]]:
    """Sort the keys of each class's images."""
    return [sorted(key for key, each in zip(keys, labels, strict=True) if each == label) for label in range(6)]


def plain_ranks(keys: list[str], labels: list[int]) -> tuple[list[int], list[int]]:
    """Class by class, rank its images by their keys; images with the same key stay in order."""
    ranks = [-1] * len(labels)
    for label in set(labels):
        ordered = sorted((key, number) for number, key in enumerate(keys) if labels[number] == label)
        for rank, (_, number) in enumerate(ordered):
            ranks[number] = rank
    return ranks, [labels.count(label) for label in labels]


def as_lists(ranked: tuple[Tensor, Tensor]) -> tuple[list[int], list[int]]:
    return ranked[0].tolist(), ranked[1].tolist()


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 1000))
def test_every_class_is_put_in_an_order_of_its_own(labels: list[int], seed: int) -> None:
    source = arrays(labels, seed)
    keys = [hashlib.sha256(bytes(image.flatten().tolist())).hexdigest() for image in source.images]
    assert as_lists(rank_within_class(source)) == plain_ranks(keys, labels)


def test_images_that_are_the_same_stay_in_order() -> None:
    alike = ArrayImages(torch.zeros(5, 2, 2, 3, dtype=torch.uint8), torch.tensor([1, 0, 1, 1, 0]))
    assert as_lists(rank_within_class(alike)) == ([0, 0, 1, 2, 1], [3, 2, 3, 3, 2])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_the_source_does_not_matter(labels: list[int], random: object) -> None:
    source = arrays(labels)
    shuffled = torch.tensor(sorted(range(len(labels)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    ranks, _ = rank_within_class(source)
    again, _ = rank_within_class(source.select(shuffled, source.labels[shuffled]))
    assert torch.equal(ranks[shuffled], again)


def test_files_are_ranked_by_their_bare_names_and_not_read() -> None:
    names = [f"{number}.jpg" for number in range(30)]
    labels = [number % 3 for number in range(30)]
    keys = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    for folder in ("nowhere", "elsewhere"):
        source = FileImages(tuple(Path(folder) / name for name in names), torch.tensor(labels))
        assert as_lists(rank_within_class(source)) == plain_ranks(keys, labels)


@pytest.mark.parametrize("kind", ["array", "files"])
def test_selected_images_stay_in_order(kind: str) -> None:
    labels = torch.tensor([2, 0, 1, 0, 2])
    chosen = torch.tensor([True, False, True, True, False])
    images = arrays(labels.tolist())
    files = FileImages(tuple(Path(str(number)) for number in range(5)), labels)
    selected: ImageSource = select_where(images if kind == "array" else files, chosen)
    if isinstance(selected, ArrayImages):
        assert torch.equal(selected.images, images.images[[0, 2, 3]])
    else:
        assert isinstance(selected, FileImages)
        assert [str(path) for path in selected.paths] == ["0", "2", "3"]
    assert selected.labels.tolist() == [2, 1, 0]
    assert len(select_where(selected, torch.zeros(3, dtype=torch.bool))) == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 1000))
def test_a_class_gives_as_many_images_as_it_may(labels: list[int], number: int, seed: int) -> None:
    data = data_of(labels, seed)
    few, more = (choose_training(data, 0.0, each).train for each in (number, number + 3))
    whole = by_class(data.train.sort_keys(), labels)
    assert by_class(few.sort_keys(), few.labels.tolist()) == [keys[:number] for keys in whole]
    assert set(few.sort_keys()) <= set(more.sort_keys())
    assert few.sort_keys() == [key for key in data.train.sort_keys() if key in set(few.sort_keys())]


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
    chosen = choose_training(data, share, number)
    trained = by_class(chosen.train.sort_keys(), chosen.train.labels.tolist())
    held_out = (
        [[]] * 6 if chosen.held_out is None else by_class(chosen.held_out.sort_keys(), chosen.held_out.labels.tolist())
    )
    assert chosen.held_out is None or len(chosen.held_out)
    for whole, train, held in zip(by_class(data.train.sort_keys(), labels), trained, held_out, strict=True):
        count = round(share * len(whole)) if share * len(whole) >= 1 else 0
        assert held == whole[:count]
        assert train == whole[count:][:number]
        assert count_trained(len(whole), share, number) == len(train)
        assert bool(train) == bool(whole)


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [(49, 0.02, 0), (50, 0.02, 1), (500, 0.02, 10), (30, 0.05, 2), (29, 0.05, 1), (3, 0.5, 2), (1, 0.5, 0)],
)
def test_shares_are_rounded_to_whole_images(size: int, share: float, count: int) -> None:
    chosen = choose_training(data_of([0] * size), share, None)
    assert (len(chosen.train), len(chosen.held_out or ())) == (size - count, count)


def test_where_nothing_is_held_out_nothing_is_copied() -> None:
    data = data_of([0] * 19 + [1] * 12)
    chosen = choose_training(data, 0.05, None)
    assert chosen.train is data.train
    assert chosen.held_out is None
    assert choose_training(data, 0.0, 100).train is data.train
