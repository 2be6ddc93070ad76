"""Choices among the images of every class, the same ones every time."""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.sources import ImageSource, select_where


def rank_within_class(source: ImageSource, draw: int | None = None) -> tuple[Tensor, Tensor]:
    """Put the images of each class in an order that looks random and depends on the images alone.

    The first k images of a class are among its first k + 1. They depend neither on other classes nor on a generator of
    random numbers.

    Args:
        source: the images.
        draw: the number of another order; None for the usual one.

    Returns:
        (N,) int64 each: the rank of every image in its class, from 0, and the number of images of its class.
    """
    keys, labels = source.sort_keys(), source.labels
    if draw is not None:
        keys = [hashlib.sha256(f"{draw} {key}".encode()).hexdigest() for key in keys]
    by_key = torch.tensor(sorted(range(len(source)), key=keys.__getitem__), dtype=torch.int64)
    return rank_by_order(by_key, labels), labels.bincount()[labels]


def rank_by_order(order: Tensor, labels: Tensor) -> Tensor:
    """Rank the images of each class by an order of all images.

    Args:
        order: (N,) int64, the indices of all images.
        labels: (N,) int64.

    Returns:
        (N,) int64: the rank of every image in its class, from 0.
    """
    by_class = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount()
    first = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return ranks


def count_held_out(size: Tensor, share: float) -> Tensor:
    """Count the held-out images of classes by their sizes: the share, rounded, and none if it is below one image."""
    exact = share * size.double()
    return torch.where(exact < 1, 0, exact.round())


def count_trained(size: int, held_out: float, images_per_class: int | None) -> int:
    """Count the images that `choose_training` leaves to be trained on, of a class of a size."""
    left = size - int(count_held_out(torch.tensor(size), held_out))
    return left if images_per_class is None else min(left, images_per_class)


def choose_training(data: DataSet, held_out: float, images_per_class: int | None) -> DataSet:
    """Choose the base training images that are trained on and those that are held out, the same ones every time.

    A share of each class is held out first. The images to train on are chosen of the rest. The same images are
    therefore held out for every number of images to train on, and a lower number chooses some of a higher one's.

    Args:
        data: with all its training images but those that cannot be read.
        held_out: the share of each base class, 0 to 0.5, rounded to whole images; none of a class whose share is less
            than one image. Each class keeps at least one image.
        images_per_class: the most images of each base class to train on; None for all.
    """
    if not held_out and images_per_class is None:
        return data
    rank, size = rank_within_class(data.train)
    count = count_held_out(size, held_out)
    trained = rank >= count
    if images_per_class is not None:
        trained &= rank < count + images_per_class
    return replace(
        data,
        train=data.train if trained.all() else select_where(data.train, trained),
        held_out=select_where(data.train, rank < count) if count.any() else None,
    )
