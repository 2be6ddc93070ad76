"""Trust in answers: ECE of probabilities, AUROC and FPR95 of the score that tells classes not yet taught."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.method.calibration import auroc, unknown_threshold
from m2sd_cli.reports.answers import Answers, class_sessions

ECE_BINS = 15


@dataclass(frozen=True)
class SessionCalibration:
    """Trust in the answers of session b, in per cent. Images of classes taught so far are known, all others unknown."""

    session: int
    known: int  # images
    unknown: int
    ece: float | None  # over the known images; None without one
    auroc: float | None  # of known images from unknown ones; None without images of both kinds
    fpr95: float | None  # likewise


def probability_bins(probability: Tensor) -> Tensor:
    """Find the bin of each probability (N,): (N,) from 0 on; bin m - 1 is ((m - 1) / 15, m / 15]."""
    return (probability * ECE_BINS).ceil().long().sub(1).clamp(0, ECE_BINS - 1)


def expected_calibration_error(probability: Tensor, right: Tensor) -> float | None:
    """Compute ECE (Guo et al., ICML 2017, equation 3) in per cent.

    It is the mean over images of |accuracy - probability|, each taken over the images of a bin of `probability_bins`.

    Args:
        probability: (N,) float64 of each answer.
        right: (N,) bool, True for an answer that is the label.

    Returns:
        None without an image.
    """
    if not len(right):
        return None
    # Of each bin (accuracy - probability) times its images.
    gaps = torch.bincount(probability_bins(probability), right.double() - probability, ECE_BINS)
    return 100 * float(gaps.abs().sum()) / len(right)


def fpr95(known: Tensor, unknown: Tensor) -> float:
    """Compute the share of unknown images in per cent that pass the highest threshold that 95 % of known ones pass.

    Args:
        known: (K,) scores, at least one.
        unknown: (U,) scores, at least one.
    """
    return 100 * float((unknown >= unknown_threshold(known)).double().mean())


def chain_calibration(answers: Answers, sizes: Sequence[int], first: int = 0) -> list[SessionCalibration]:
    """Compute the calibration of consecutive sessions, each of which only adds classes to the one before.

    Args:
        answers: to images of known and unknown classes, on the CPU.
        sizes: classes known after each session, ascending.
        first: the number of the first session.
    """
    taught = class_sessions(sizes)[answers.labels]
    figures = []
    for session in range(len(sizes)):
        known, right = taught <= session, answers.lost > session
        score, probability = answers.score[:, session], answers.probability[:, session]
        scores = score[known], score[~known]
        counts = len(scores[0]), len(scores[1])
        figures.append(
            SessionCalibration(
                first + session,
                *counts,
                ece=expected_calibration_error(probability[known], right[known]),
                auroc=auroc(*scores) if all(counts) else None,
                fpr95=fpr95(*scores) if all(counts) else None,
            )
        )
    return figures
