"""Histogram of the score that tells known from unknown, with its threshold."""

import torch
from torch import Tensor

from m2sd_cli.method.calibration import Confidence
from m2sd_cli.reports.figures.svg import (
    LeftOutError,
    Plot,
    box,
    label,
    legend,
    polyline,
    round_steps,
    rule,
    sample_box,
    svg,
)

BINS = 32
TAIL = 0.002  # the share of images at either end that the outermost bins take in


def draw_known_scores(known: Tensor, unknown: Tensor, confidence: Confidence, session: int) -> str:
    """Draw the share of images by score: known ones as bars, unknown ones as an outline.

    Args:
        known: (K,) scores of images of classes taught up to the session.
        unknown: (U,) scores of images of other classes; there may be none.
        confidence: gives the threshold.
        session: the number of the session that answers.

    Raises:
        LeftOutError: nothing was calibrated, or there is no known image.
    """
    threshold = confidence.unknown_below
    if threshold is None:
        raise LeftOutError("no base images were held out of training, so that no score tells what is unknown")
    if not len(known):
        raise LeftOutError("no test image of a class taught so far")
    every = torch.cat([known, unknown]).double()
    ends = [every.kthvalue(1 + round(share * (len(every) - 1))).values for share in (TAIL, 1 - TAIL)]
    steps = round_steps(min(float(ends[0]), threshold), max(float(ends[1]), threshold))
    low, width = steps[0], (steps[-1] - steps[0]) / BINS
    parts = [_shares(each, low, width) for each in (known, unknown)]
    plot = Plot(x=steps, y=round_steps(0, 100 * float(torch.cat(parts).max()), 5))
    drawn = [plot.axes("score: likeness to the most similar class", "images, %")]
    for number, share in enumerate(parts[0].tolist()):
        left, top = plot.at(low + number * width, 100 * share)
        right, zero = plot.at(low + (number + 1) * width, 0)
        drawn.append(box(left, top, right - left, zero - top, "bar0"))
    entries = [(sample_box("bar0"), "known classes")]
    if len(unknown):
        stairs = [(low, 0.0)]
        for number, share in enumerate(parts[1].tolist()):
            stairs += [(low + number * width, 100 * share), (low + (number + 1) * width, 100 * share)]
        drawn.append(polyline((plot.at(*each) for each in [*stairs, (steps[-1], 0.0)]), "outline"))
        entries.append((rule(-12, 0, 12, 0, "outline"), "other classes"))
    x, bottom = plot.at(threshold, 0)
    drawn.append(rule(x, plot.top, x, bottom, "threshold"))
    side = "end" if x > (plot.left + plot.right) / 2 else "start"
    drawn.append(
        label(x + (-5 if side == "end" else 5), plot.top + 10, f"unknown below {threshold:.2f}", "value", side)
    )
    passed = 100 * float((known >= threshold).double().mean())
    text = f"session {session}: {passed:.1f} % of {len(known)} images of known classes pass"
    if len(unknown):
        text += f", and {100 * float((unknown >= threshold).double().mean()):.1f} % of {len(unknown)} others"
    return svg("Known or unknown", text, *drawn, legend(entries))


def _shares(scores: Tensor, low: float, width: float) -> Tensor:
    """Compute the share of scores (N,) in each bin, (BINS,)."""
    bins = ((scores.double() - low) / width).floor().long().clamp(0, BINS - 1)
    return torch.bincount(bins, minlength=BINS).double() / max(len(scores), 1)
