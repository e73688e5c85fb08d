"""Metrics that scikit-learn computes, from stored predictions instead of a model."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

from retrain.config import Task
from retrain.errors import ConfigError
from retrain.lazy import sklearn
from retrain.models.block_sums import Array
from retrain.models.metric import Metric


class ScikitLearnScorer(Metric):
    """Any scorer that scikit-learn knows by name, such as `average_precision` or `f1`; more of it
    is better.

    The most probable class is predicted. Computed anew without each block, so slower than the
    metrics above.
    """

    lower_is_better = False

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.scorer, self.task = name, sklearn.metrics.get_scorer(name), task

    def replicates(self, target: Array, score: Array, blocks: Array) -> Array:
        without = [blocks != block for block in range(int(blocks.max()) + 1)]
        kept = [np.ones(len(blocks), dtype=bool), *without]
        return np.array([self._score(score[keep], target[keep]) for keep in kept])

    @functools.cache  # noqa: B019  the scorers themselves are kept for ever
    def fits(self, task: Task) -> bool:
        """Whether it is for this task, and can be computed: of a scorer for two classes, such as
        `f1`, only a try shows it."""
        for_numbers = self.scorer._score_func.__module__.endswith("_regression")
        if task is not self.task or for_numbers != (task is Task.regression):
            return False
        classes = 3 if task is Task.multiclass else 2
        target = np.arange(12.0) % classes
        score = np.eye(classes)[target.astype(np.int64)] * 0.5 + 0.5 / classes
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._score(score if task is Task.multiclass else score[:, 1], target)
        except ConfigError:
            return False
        return True

    def margin_base(self, value: Array | float) -> Array | float:
        """A score that is 1 less a loss relative to the constant's has no lower bound: a share of
        the loss."""
        one_less_loss = self.name == "explained_variance" or self.name.startswith("d2_")
        return 1 - value if one_less_loss else value

    def _score(self, score: Array, target: Array) -> float:
        if len(np.unique(target)) < 2:
            return math.nan
        try:
            if self.task is Task.regression:
                return float(self.scorer(_stored_values(), score, target))
            classes = score.shape[1] if score.ndim == 2 else 2
            return float(self.scorer(_stored_predictions(classes), score, target.astype(np.int64)))
        except ValueError as error:
            raise ConfigError(
                f"`metric` {self.name!r} can't be computed for this task: {error}"
            ) from error


@functools.cache
def _stored_predictions(classes: int) -> Any:
    """What scikit-learn's scorers take for a fitted classifier: its rows are the probabilities
    themselves."""

    class StoredPredictions(
        sklearn.base.ClassifierMixin,  # type: ignore[misc]
        sklearn.base.BaseEstimator,  # type: ignore[misc]
    ):
        classes_ = np.arange(classes)

        def predict_proba(self, score: Array) -> Array:
            return score if score.ndim == 2 else np.column_stack([1 - score, score])

        def predict(self, score: Array) -> Array:
            return score.argmax(axis=1) if score.ndim == 2 else (score >= 0.5).astype(np.int64)

    return StoredPredictions()


@functools.cache
def _stored_values() -> Any:
    """What scikit-learn's scorers take for a fitted regressor: its rows are the predicted values
    themselves."""

    class StoredValues(
        sklearn.base.RegressorMixin,  # type: ignore[misc]
        sklearn.base.BaseEstimator,  # type: ignore[misc]
    ):
        def predict(self, score: Array) -> Array:
            return score

    return StoredValues()
