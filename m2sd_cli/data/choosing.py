"""Choosing among the images of every class, the same ones every time."""

from dataclasses import replace

import torch
from torch import Tensor

from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.sources import ImageSource


def those(source: ImageSource, chosen: Tensor) -> ImageSource:
    """The images that are chosen, (N,) bool, in their order and as they are labelled."""
    indices = chosen.nonzero().flatten()
    return source.select(indices, source.labels[indices])


def draw(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Put the images of each class in an order that looks drawn at random, and depends on what they are alone.

    A choice of the first k of a class is part of that of the first k + 1, and depends neither on other classes nor on
    a generator of random numbers.

    Returns:
        (N,) int64 each: the place of every image in its class, from 0, and how many images that class has.
    """
    lots, labels = source.lots(), source.labels
    ranked = torch.tensor(sorted(range(len(source)), key=lots.__getitem__), dtype=torch.int64)
    order = ranked[labels[ranked].argsort(stable=True)]
    sizes = labels.bincount()
    first = sizes.cumsum(0) - sizes
    places = torch.empty_like(labels)
    places[order] = torch.arange(len(source)) - first[labels[order]]
    return places, sizes[labels]


def choose_training(data: DataSet, images_per_class: int | None) -> DataSet:
    """A data set of which only some base training images are trained on, the same ones every time.

    The choice for one number is part of that for a higher one.

    Args:
        data: whose training images are all there; those that cannot be read were left out before.
        images_per_class: of each base class; of one that has fewer, and if None, all.
    """
    if images_per_class is None:
        return data
    place, _ = draw(data.train)
    return replace(data, train=those(data.train, place < images_per_class))
