"""A fitted model with corrections on top: what later rows showed that it gets wrong. Needs this package where it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor

from retrain.config import Config, Task, feature_types
from retrain.modeling.continuing import NotContinuable
from retrain.modeling.pipeline import BLAS_THREADS, to_features, to_target

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SMALLEST = 1e-6  # probability: the logit of a certain one is infinite
SMALLEST_WEIGHT = 1e-3
WIDEST = 2000  # sparse columns that are made dense for trees
MINIMUM_LEAF = 100
RIDGE = 5.0  # added to the weights of a leaf: rows that the model was sure of weigh next to nothing, and respond without bound


class CorrectedClassifier(ClassifierMixin, BaseEstimator):
    """Adds the corrections to the log odds (of two classes) or the log probabilities (of several) of a fitted classifier.

    Each correction is a list of fitted regressors, one of two classes, else one for each class.
    """

    def __init__(self, estimator: Any, corrections: list[list[Any]]) -> None:
        self.estimator, self.corrections = estimator, corrections

    @property
    def classes_(self) -> NDArray:
        return self.estimator.classes_

    def fit(self, X: Any, y: NDArray) -> CorrectedClassifier:
        """Train the model itself anew, and forget the corrections."""
        self.estimator, self.corrections = clone(self.estimator).fit(X, y), []
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities of shape (rows, classes)."""
        probabilities, dense = self.estimator.predict_proba(X), _dense(X)
        if len(self.classes_) == 2:
            score = logit(np.clip(probabilities[:, 1], SMALLEST, 1 - SMALLEST))
            score = expit(score + sum(regressors[0].predict(dense) for regressors in self.corrections))
            return np.column_stack([1 - score, score])
        score = np.log(np.clip(probabilities, SMALLEST, 1))
        for regressors in self.corrections:
            score += np.column_stack([regressor.predict(dense) for regressor in regressors])
        return softmax(score, axis=1)

    def predict(self, X: Any) -> NDArray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class CorrectedRegressor(RegressorMixin, BaseEstimator):
    """Adds the corrections to the values that a fitted regressor predicts. Each is a list of one fitted regressor."""

    def __init__(self, estimator: Any, corrections: list[list[Any]]) -> None:
        self.estimator, self.corrections = estimator, corrections

    def fit(self, X: Any, y: NDArray) -> CorrectedRegressor:
        """Train the model itself anew, and forget the corrections."""
        self.estimator, self.corrections = clone(self.estimator).fit(X, y), []
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> NDArray:
        """Values of shape (rows,)."""
        dense = _dense(X)
        return self.estimator.predict(X) + sum(regressors[0].predict(dense) for regressors in self.corrections)


def corrections_of(estimator: Any) -> list[list[Any]]:
    """Those that an estimator has, oldest first."""
    return estimator.corrections if isinstance(estimator, (CorrectedClassifier, CorrectedRegressor)) else []


def add_correction(
    pipeline: Pipeline, rows: pl.DataFrame, config: Config, iterations: int, learning_rate: float
) -> Pipeline:
    """The pipeline with one correction more, learnt from what it gets wrong on the rows.

    For probabilities, regressors are fitted to the working response (y - p) / (p (1 - p)) with weights p (1 - p): the
    Newton step of boosting (Friedman, Hastie and Tibshirani 2000, Annals of Statistics 28). For values, to the residuals,
    with the loss of the model itself.
    """
    from sklearn.pipeline import Pipeline
    from threadpoolctl import threadpool_limits

    encoded = pipeline[:-1].transform(to_features(rows, feature_types(config)))
    estimator, target = pipeline[-1], to_target(rows, config)
    dense = _dense(encoded)
    inner = estimator.estimator if corrections_of(estimator) else estimator
    given = inner.get_params(deep=False)
    settings: dict[str, Any] = {
        "max_iter": iterations,
        "learning_rate": learning_rate,
        "min_samples_leaf": MINIMUM_LEAF,
        "l2_regularization": RIDGE,
        "early_stopping": False,
        "random_state": config.seed,
        "categorical_features": given.get("categorical_features"),
    }

    def fit(response: NDArray, weights: NDArray | None = None) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(**settings).fit(dense, response, sample_weight=weights)

    with threadpool_limits(BLAS_THREADS, user_api="blas"):
        if config.data.task is Task.regression:
            if given.get("loss") in ("absolute_error", "quantile"):
                settings |= {"loss": given["loss"], "quantile": given.get("quantile")}
            correction = [fit(target - estimator.predict(encoded))]
        else:
            probabilities = estimator.predict_proba(encoded)
            shown = estimator.classes_[1:] if len(estimator.classes_) == 2 else estimator.classes_
            correction = []
            for name, predicted in zip(shown, probabilities.T[-len(shown) :], strict=True):
                weights = np.maximum(predicted * (1 - predicted), SMALLEST_WEIGHT)
                correction.append(fit(((target == name) - predicted) / weights, weights))
    kind = CorrectedRegressor if config.data.task is Task.regression else CorrectedClassifier
    corrected = kind(inner, [*corrections_of(estimator), correction])
    return Pipeline([*pipeline.steps[:-1], (pipeline.steps[-1][0], corrected)])


def _dense(encoded: Any) -> Any:
    """Raises NotContinuable for sparse columns that are too many for trees."""
    if not hasattr(encoded, "toarray"):
        return encoded
    if encoded.shape[1] > WIDEST:
        raise NotContinuable(f"its encoding has {encoded.shape[1]:,} columns, too many for a correction by trees")
    return encoded.toarray()
