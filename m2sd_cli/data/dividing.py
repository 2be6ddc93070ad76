"""Dividing a built-in data set in another way than officially: order of classes, base classes, sessions, shots."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from m2sd_cli.data.catalogue import DataSetInfo
from m2sd_cli.data.choosing import rank_within_class
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.protocol import Protocol, require_fit
from m2sd_cli.data.sources import select_where
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.reading import quoted


def divide(data: DataSet, info: DataSetInfo, protocol: Protocol) -> DataSet:
    """Divide a data set by a protocol.

    Args:
        data: as it was opened, officially divided.
        info: of the official division.
        protocol: the division to make.

    Returns:
        The data set with its protocol, in which the shots are settled; without a protocol if it is the official one.

    Raises:
        UsageError: there are too few classes, the order is not one of these classes, or a class has too few images.
        DataError: the data set was opened without the training images of all classes.
    """
    require_fit(protocol, info)
    if data.whole is None:
        raise DataError(f"{info.name}: it comes without the training images of later classes; leave its protocol as is")
    order = class_order(protocol.class_order, data.classes)
    if order == list(range(len(order))):
        protocol = replace(protocol, class_order=None)
    elif not isinstance(protocol.class_order, int):
        protocol = replace(protocol, class_order=tuple(data.classes[label] for label in order))
    base, shots = protocol.base_classes, protocol.shots_per_class
    place = torch.tensor(order, dtype=torch.int64).argsort()  # the new label of each old one
    names = [data.classes[label] for label in order]
    whole, labels = data.whole, place[data.whole.labels]
    taught = order[base:]
    official = _official_shots(data, taught, shots) if protocol.shots_draw is None else None
    if official is None:
        protocol = replace(protocol, shots_draw=protocol.shots_draw or 1)
        official = _drawn_shots(data, taught, shots, protocol.shots_draw or 1)
    elif protocol == Protocol(info.base, info.way, info.shots):
        return data
    sessions = []
    for first in range(0, len(taught), protocol.way):
        indices = torch.cat(official[first : first + protocol.way])
        source = whole.select(indices, labels[indices])
        sessions.append(Shots.select(source, torch.arange(len(indices)), names))
    trained = (labels < base).nonzero().flatten()
    return replace(
        data,
        classes=names,
        base=base,
        train=whole.select(trained, labels[trained]),
        test=data.test.select(torch.arange(len(data.test)), place[data.test.labels]),
        sessions=len(sessions),
        session=lambda number: sessions[number - 1],
        protocol=protocol,
    )


def class_order(order: int | Sequence[str] | None, classes: Sequence[str]) -> list[int]:
    """Return the labels of all classes in an order.

    Args:
        order: the seed of a permutation, which is numpy's RandomState(seed).permutation, as the field has it; or all
            classes by their names, or by their labels; None for their own order.
        classes: their names in their own order.

    Raises:
        UsageError: some classes are missing, unknown or there twice.
    """
    if order is None:
        return list(range(len(classes)))
    if isinstance(order, int):
        permutation: list[int] = np.random.RandomState(order).permutation(len(classes)).tolist()
        return permutation
    label = {name: number for number, name in enumerate(classes)}
    if not label.keys() & set(order):
        label = {str(number): number for number in range(len(classes))}
    seen = set[str]()
    for name in order:
        if name not in label or name in seen:
            why = "there twice" if name in seen else "no class of the data set"
            raise UsageError(f"--class-order: {quoted(repr(name))} is {why}")
        seen.add(name)
    if len(seen) < len(classes):
        missing = next(name for name in label if name not in seen)
        raise UsageError(
            f"--class-order: {len(seen)} of {len(classes)} classes are in it; {quoted(repr(missing))} is missing"
        )
    return [label[name] for name in order]


def _official_shots(data: DataSet, taught: Sequence[int], shots: int) -> list[Tensor] | None:
    """Find the first official shots of each class, as indices of all training images; None if one has too few."""
    assert data.whole is not None
    label = {name: number for number, name in enumerate(data.classes)}
    found: dict[int, list[str]] = {}
    for number in range(1, data.sessions + 1):
        session = data.session(number)
        for key, within in zip(session.source.sort_keys(), session.source.labels.tolist(), strict=True):
            found.setdefault(label[session.classes[within]], []).append(key)
    if any(len(found.get(each, ())) < shots for each in taught):
        return None
    chosen = torch.isin(data.whole.labels, torch.tensor(taught)).nonzero().flatten()
    source = data.whole.select(chosen, data.whole.labels[chosen])
    keys = zip(source.labels.tolist(), source.sort_keys(), chosen.tolist(), strict=True)
    index = {(number, key): place for number, key, place in keys}
    return [torch.tensor([index[each, key] for key in found[each][:shots]]) for each in taught]


def _drawn_shots(data: DataSet, taught: Sequence[int], shots: int, draw: int) -> list[Tensor]:
    """Draw shots of each class, as indices of all training images.

    A draw depends on its number and on the images of the class alone, and that of fewer shots is part of it.

    Raises:
        UsageError: a class has too few images.
    """
    assert data.whole is not None
    is_taught = torch.isin(data.whole.labels, torch.tensor(taught))
    images, chosen = select_where(data.whole, is_taught), is_taught.nonzero().flatten()
    rank, size = rank_within_class(images, draw)
    if (size < shots).any():
        few = int(size.argmin())
        name, count = data.classes[int(images.labels[few])], int(size[few])
        raise UsageError(f"--shots-per-class {shots}: class {name!r} has {count} images; give fewer")
    by_rank = rank.argsort(stable=True)
    ordered, ranks, labels = chosen[by_rank], rank[by_rank], images.labels[by_rank]
    return [ordered[(labels == each) & (ranks < shots)] for each in taught]
