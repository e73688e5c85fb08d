"""Metrics of predicted probabilities, in numpy: the gate reads stored predictions and loads no model library.

Every function takes `target` (0 or 1), `score` (probability of 1) and `weight` (>= 0), each of shape (rows,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray, NDArray, NDArray], float]

# Probabilities of exactly 0 and 1 are clipped as scikit-learn's log_loss does for float64.
EPSILON = np.finfo(np.float64).eps


def row_log_loss(target: NDArray, score: NDArray) -> NDArray:
    """Negative log likelihood in nats of each row, shape (rows,)."""
    clipped = np.clip(score, EPSILON, 1 - EPSILON)
    return -np.where(target == 1, np.log(clipped), np.log1p(-clipped))


def row_brier(target: NDArray, score: NDArray) -> NDArray:
    """Squared error of each row's probability, shape (rows,) (Brier 1950, halved as is usual for two classes)."""
    return (score - target) ** 2


def log_loss(target: NDArray, score: NDArray, weight: NDArray) -> float:
    return float(np.average(row_log_loss(target, score), weights=weight))


def brier(target: NDArray, score: NDArray, weight: NDArray) -> float:
    return float(np.average(row_brier(target, score), weights=weight))


def roc_auc(target: NDArray, score: NDArray, weight: NDArray) -> float:
    """Probability that a positive row scores above a negative one, ties count half. NaN when one class is absent."""
    order = np.argsort(score, kind="stable")
    target, score, weight = target[order], score[order], weight[order]
    positive, negative = weight * target, weight * (1 - target)
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    positives, negatives = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    return float(np.sum(positives * (below + negatives / 2)) / pairs) if pairs > 0 else float("nan")


def calibration_error(target: NDArray, score: NDArray, weight: NDArray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of predicted from observed share over equal-width bins,
    weighted by their rows (Naeini, Cooper and Hauskrecht 2015)."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    gap = np.bincount(index, weights=weight * (score - target), minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


METRICS: dict[str, Metric] = {
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "brier": brier,
    "calibration_error": calibration_error,
}
