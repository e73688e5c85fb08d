"""Metrics of predicted values."""

from __future__ import annotations

import numpy as np

from retrain.config import Task
from retrain.models.block_sums import Array, mean, sum_by_block
from retrain.models.metric import Metric, RowLoss

REGRESSION = frozenset({Task.regression})


class AbsoluteError(RowLoss):
    """Distance of the prediction, in units of the target."""

    tasks = REGRESSION

    def rows(self, target: Array, score: Array) -> Array:
        distances: Array = np.abs(target - score)
        return distances

    def best_constant(self, target: Array) -> float:
        return float(np.median(target))


class SquaredError(RowLoss):
    """Squared distance of the prediction, in squared units of the target."""

    tasks = REGRESSION

    def rows(self, target: Array, score: Array) -> Array:
        return (target - score) ** 2


class Pinball(RowLoss):
    """Loss of a predicted quantile.

    References
    ----------
    Koenker and Bassett 1978, "Regression quantiles", Econometrica 46.
    """

    tasks = REGRESSION

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile

    def rows(self, target: Array, score: Array) -> Array:
        error = target - score
        return np.maximum(self.quantile * error, (self.quantile - 1) * error)

    def best_constant(self, target: Array) -> float:
        return float(np.quantile(target, self.quantile))


class RootMeanSquaredError(Metric):
    """The square root of the mean squared error, in units of the target."""

    tasks = REGRESSION

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        return sum_by_block(blocks, (target - score) ** 2)

    def finish(self, totals: Array) -> Array:
        return np.sqrt(mean(totals))


class Determination(Metric):
    """The coefficient of determination R squared: the share of the target's variance that the
    prediction explains."""

    tasks = REGRESSION
    lower_is_better = False

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        centred = target - target.mean()  # for precision: the variance does not change
        return sum_by_block(blocks, (target - score) ** 2, centred, centred**2)

    def finish(self, totals: Array) -> Array:
        error, first, second = (totals[:, :3] / totals[:, 3:]).T
        variance = second - first**2
        return np.where(variance > 0, 1 - error / variance, np.nan)

    def margin_base(self, value: Array | float) -> Array | float:
        """What is left to explain: R squared may be 0 or negative, and near 1 five percent of it
        are many times that."""
        return 1 - value
