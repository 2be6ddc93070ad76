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


def held_out_of(size: Tensor, share: float) -> Tensor:
    """How many images of classes of these sizes are held out: the share, rounded, and none if it is below one."""
    exact = share * size.double()
    return torch.where(exact < 1, 0, exact.round())


def trained_of(size: int, held_out: float, images_per_class: int | None) -> int:
    """How many images of a class of that size `choose_training` leaves to be trained on."""
    left = size - int(held_out_of(torch.tensor(size), held_out))
    return left if images_per_class is None else min(left, images_per_class)


def choose_training(data: DataSet, held_out: float, images_per_class: int | None) -> DataSet:
    """A data set of which only some base training images are trained on, the same ones every time.

    A share of each class is held out first. What is trained on is chosen of the rest, so that the same images are held
    out whatever the number, and the choice for one number is part of that for a higher one.

    Args:
        data: whose training images are all there; those that cannot be read were left out before.
        held_out: the share of each base class, 0 to 0.5, rounded to whole images; a class gives none of which the
            share is less than one image. Each class keeps at least one.
        images_per_class: to train on, of each base class; of one that has fewer, and if None, all that are left.
    """
    if not held_out and images_per_class is None:
        return data
    place, size = draw(data.train)
    kept_out = held_out_of(size, held_out)
    chosen = place >= kept_out
    if images_per_class is not None:
        chosen &= place < kept_out + images_per_class
    return replace(
        data,
        train=data.train if chosen.all() else those(data.train, chosen),
        held_out=those(data.train, place < kept_out) if kept_out.any() else None,
    )
