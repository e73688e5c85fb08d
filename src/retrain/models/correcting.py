"""Fitting a correction: of what a fitted model gets wrong on later rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from retrain.config import Config, Task, feature_types
from retrain.models.block_sums import Array
from retrain.models.continuing import NotContinuable, with_estimator
from retrain.models.corrected import CorrectedClassifier, CorrectedRegressor
from retrain.models.fitting import BLAS_THREADS, to_features, to_target

SMALLEST_WEIGHT = 1e-3
WIDEST = 2000  # sparse columns that are made dense for trees
MINIMUM_LEAF = 100
# Added to the weights of a leaf: rows that the model was sure of weigh next to nothing, and respond
# without bound.
RIDGE = 5.0


def corrections_of(estimator: Any) -> list[list[Any]]:
    """Those that an estimator has, oldest first."""
    kinds = CorrectedClassifier, CorrectedRegressor
    return estimator.applied if isinstance(estimator, kinds) else []


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
