"""Metrics of predicted probabilities."""

from __future__ import annotations

import math

import numpy as np

from retrain.config import Task
from retrain.models.block_sums import Array
from retrain.models.metric import Metric, RowLoss

# Probabilities of exactly 0 and 1 are clipped as scikit-learn's log_loss does for float64.
EPSILON = np.finfo(np.float64).eps
CALIBRATION_BINS = 10
CLASSIFICATION = frozenset({Task.binary, Task.multiclass})


class LogLoss(RowLoss):
    """Negative log likelihood in nats."""

    tasks = CLASSIFICATION

    def rows(self, target: Array, score: Array) -> Array:
        if score.ndim == 2:
            likelihood = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
        else:
            likelihood = np.where(target == 1, score, 1 - score)
        likelihood = np.clip(likelihood, EPSILON, 1)
        losses: Array = -np.log(likelihood, out=likelihood)
        return losses


class Brier(RowLoss):
    """Squared error of the probabilities, halved for two classes, as is usual.

    References
    ----------
    Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly
    Weather Review 78.
    """

    tasks = CLASSIFICATION

    def rows(self, target: Array, score: Array) -> Array:
        if score.ndim == 1:
            return (score - target) ** 2
        hit = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
        losses: Array = (score**2).sum(axis=1) - 2 * hit + 1
        return losses


class MacroF1(Metric):
    """The F1 score of each class, averaged over those that occur or are predicted; the most
    probable class is predicted."""

    tasks = CLASSIFICATION
    lower_is_better = False

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        score = score if score.ndim == 2 else np.column_stack([1 - score, score])
        classes, count = score.shape[1], int(blocks.max()) + 1
        cells = (blocks * classes + target.astype(np.int64)) * classes + score.argmax(axis=1)
        return np.bincount(cells, minlength=count * classes**2).reshape(count, -1)

    def finish(self, totals: Array) -> Array:
        classes = math.isqrt(totals.shape[1])
        confusion = totals.reshape(-1, classes, classes)
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        occurring = confusion.sum(axis=2) + confusion.sum(axis=1)
        f1 = np.where(occurring > 0, 2 * hits / occurring, 0.0)
        means: Array = f1.sum(axis=1) / (occurring > 0).sum(axis=1)
        return means


class CalibrationError(Metric):
    """Expected calibration error: mean distance of predicted from observed share over equal-width
    bins, weighted by their rows. With several classes, of the most probable one.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI. Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural
    networks", ICML.
    """

    tasks = CLASSIFICATION

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        target, score = top_label(target, score)
        bins = np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        rows = np.bincount(blocks)
        cells = blocks * CALIBRATION_BINS + bins
        gaps = np.bincount(cells, score - target, minlength=len(rows) * CALIBRATION_BINS)
        return np.column_stack([gaps.reshape(len(rows), -1), rows])

    def finish(self, totals: Array) -> Array:
        error: Array = np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1]
        return error


def top_label(target: Array, score: Array) -> tuple[Array, Array]:
    """Whether the most probable class is the right one, and its probability; as they are with two
    classes."""
    if score.ndim == 1:
        return target, score
    return (score.argmax(axis=1) == target).astype(np.float64), score.max(axis=1)
