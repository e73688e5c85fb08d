"""A fitted model with corrections on top: of what it gets wrong on later rows. Needs this package
where it is loaded."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import polars as pl
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone, is_regressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, column_or_1d, get_tags
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from retrain.config import Config, Task, feature_types
from retrain.models.block_sums import Array
from retrain.models.continuing import NotContinuable, with_estimator
from retrain.models.fitting import BLAS_THREADS, to_features, to_target

SMALLEST = 1e-6  # probability: the logit of a certain one is infinite
SMALLEST_WEIGHT = 1e-3
WIDEST = 2000  # sparse columns that are made dense for trees
MINIMUM_LEAF = 100
# Added to the weights of a leaf: rows that the model was sure of weigh next to nothing, and respond
# without bound.
RIDGE = 5.0


class _Corrected(BaseEstimator):
    """`estimator` and `corrections` are fitted already: a pair that `fit` replaces, in `estimator_`
    and `corrections_`."""

    def __init__(self, estimator: Any, corrections: list[list[Any]]) -> None:
        self.estimator, self.corrections = estimator, corrections

    def fit(self, X: Any, y: Array) -> Self:
        """Train the model itself anew, and forget the corrections."""
        if is_regressor(self) and y is not None:
            y = column_or_1d(y, warn=True)
        self.estimator_ = clone(self.estimator).fit(X, y)
        self.corrections_: list[list[Any]] = []
        return self

    @property
    def model(self) -> Any:
        """The fitted model under the corrections."""
        return getattr(self, "estimator_", self.estimator)

    @property
    def applied(self) -> list[list[Any]]:
        """The corrections, oldest first."""
        return getattr(self, "corrections_", self.corrections)

    @property
    def n_features_in_(self) -> int:
        return self.model.n_features_in_

    def __sklearn_is_fitted__(self) -> bool:
        try:
            check_is_fitted(self.model)
        except NotFittedError:
            return False
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags


class CorrectedClassifier(ClassifierMixin, _Corrected):
    """Adds the corrections to the log odds (of two classes) or the log probabilities (of several)
    of a fitted classifier.

    Each correction is a list of fitted regressors, one of two classes, else one for each class.
    """

    @property
    def classes_(self) -> Array:
        return self.model.classes_

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of shape (rows, classes)."""
        check_is_fitted(self)
        probabilities, dense = self.model.predict_proba(X), _dense(X)
        if len(self.classes_) == 2:
            score = logit(np.clip(probabilities[:, 1], SMALLEST, 1 - SMALLEST))
            score = expit(score + sum(regressors[0].predict(dense) for regressors in self.applied))
            return np.column_stack([1 - score, score])
        score = np.log(np.clip(probabilities, SMALLEST, 1))
        for regressors in self.applied:
            score += np.column_stack([regressor.predict(dense) for regressor in regressors])
        return softmax(score, axis=1)

    def predict(self, X: Any) -> Array:
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]


class CorrectedRegressor(RegressorMixin, _Corrected):
    """Adds the corrections to the values that a fitted regressor predicts. Each is a list of one
    fitted regressor."""

    def predict(self, X: Any) -> Array:
        """Values of shape (rows,)."""
        check_is_fitted(self)
        dense = _dense(X)
        return self.model.predict(X) + sum(
            regressors[0].predict(dense) for regressors in self.applied
        )


def corrections_of(estimator: Any) -> list[list[Any]]:
    """Those that an estimator has, oldest first."""
    return estimator.applied if isinstance(estimator, _Corrected) else []


def add_correction(
    pipeline: Pipeline, rows: pl.DataFrame, config: Config, iterations: int, learning_rate: float
) -> Pipeline:
    """The pipeline with one correction more, trained on what it gets wrong on the rows.

    For probabilities, regressors are fitted to the working response (y - p) / (p (1 - p)) with
    weights p (1 - p), the Newton step of boosting. For values, to the residuals, with the loss of
    the model itself.

    References
    ----------
    Friedman, Hastie and Tibshirani 2000, "Additive logistic regression", Annals of Statistics 28.
    """
    encoded = pipeline[:-1].transform(to_features(rows, feature_types(config)))
    estimator, target = pipeline[-1], to_target(rows, config)
    dense = _dense(encoded)
    inner = estimator.model if corrections_of(estimator) else estimator
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

    def fit(response: Array, weights: Array | None = None) -> HistGradientBoostingRegressor:
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
    return with_estimator(pipeline, corrected)


def _dense(encoded: Any) -> Any:
    """Raises NotContinuable for sparse columns that are too many for trees."""
    if not hasattr(encoded, "toarray"):
        return encoded
    if encoded.shape[1] > WIDEST:
        raise NotContinuable(
            f"its encoding has {encoded.shape[1]:,} columns, too many for a correction by trees"
        )
    return encoded.toarray()
