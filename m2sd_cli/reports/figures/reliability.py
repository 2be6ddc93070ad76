"""Reliability diagram: the share of right answers by the probability of the answer."""

import torch
from torch import Tensor

from m2sd_cli.reports.calibration import ECE_BINS, expected_calibration_error, probability_bins
from m2sd_cli.reports.figures.svg import HEIGHT, LeftOutError, Plot, box, label, legend, rule, sample_box, svg


def draw_reliability(probability: Tensor, right: Tensor) -> str:
    """Draw accuracy by probability in the bins of the ECE, and below it the number of images in each bin.

    Args:
        probability: (N,) float64 of each answer.
        right: (N,) bool, True for an answer that is the label.

    Raises:
        LeftOutError: there is no image.
    """
    error = expected_calibration_error(probability, right)
    if error is None:
        raise LeftOutError("no test image of a class taught so far")
    bins = probability_bins(probability)
    images = torch.bincount(bins, minlength=ECE_BINS)
    accuracy = torch.bincount(bins, right.double(), ECE_BINS) / images.clamp_min(1)
    fifths = [each / 5 for each in range(6)]
    plot = Plot(x=fifths, y=fifths, bottom=HEIGHT - 106)
    parts = [plot.axes("", "share of right answers")]
    floor, most = HEIGHT - 54, int(images.max())
    for number in range(ECE_BINS):
        left, zero = plot.at(number / ECE_BINS, 0)
        edge, top = plot.at((number + 1) / ECE_BINS, float(accuracy[number]))
        if images[number]:
            parts.append(box(left + 0.5, top, edge - left - 1, zero - top, "bar0"))
        high = 24 * int(images[number]) / most
        parts.append(box(left + 0.5, floor - high, edge - left - 1, high, "bar1"))
    parts.append(rule(*plot.at(0, 0), *plot.at(1, 1), "threshold"))
    parts.append(rule(plot.left, floor, plot.right, floor, "axis"))
    parts.append(label((plot.left + plot.right) / 2, floor + 13, "probability of the answer", "name"))
    entries = [
        (sample_box("bar0"), "right"),
        (rule(-12, 0, 12, 0, "threshold"), "perfect"),
        (sample_box("bar1"), "images"),
    ]
    parts.append(legend(entries))
    return svg("Reliability", f"ECE {error:.1f} % over {len(right)} test images", *parts)
