"""The epochs of a training as a table, and its curves in one line each."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import table

if TYPE_CHECKING:
    from m2sd_cli.runs.manifest import EpochRecord

BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"  # from the lowest to the highest
WIDEST = 60  # characters of a curve, each of which stands for as many epochs as it has to


def sparkline(values: Sequence[float]) -> str:
    """Draw values as blocks of eight heights, the lowest value as the lowest; of many, means of neighbours."""
    count = min(len(values), WIDEST)
    edges = [len(values) * place // count for place in range(count + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BLOCKS) - 1)
    return "".join(BLOCKS[round((mean - low) / step) if step else 0] for mean in means)


def curve_lines(history: Sequence["EpochRecord"]) -> list[str]:
    """Format all epochs of a training, which has one, and the curve of each column that has a figure in every epoch."""
    terms = list(history[0].terms)
    if all(list(each.terms.values()) == [each.loss] for each in history):  # the loss has this one term alone
        terms = []
    columns: dict[str, list[float | None]] = {"loss": [each.loss for each in history]}
    columns |= {name: [each.terms.get(name) for each in history] for name in terms}
    columns["accuracy"] = [None if each.accuracy is None else 100 * each.accuracy for each in history]
    columns["learning rate"] = [each.learning_rate for each in history]
    shown = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    rows = [
        [str(each.epoch), *("-" if values[number] is None else f"{values[number]:.4g}" for values in shown.values())]
        for number, each in enumerate(history)
    ]
    lines = table(["epoch", *shown], rows)
    width = max(map(len, shown))
    for name, values in shown.items():
        known = [value for value in values if value is not None]
        if len(known) == len(history) > 1:
            lines.append(f"{name.ljust(width)}  {sparkline(known)}  {known[0]:.4g} to {known[-1]:.4g}")
    return lines
