"""A fitted model with corrections on top: of what it gets wrong on later rows.

This file travels with each model that holds one of its classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags, column_or_1d, get_tags
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from retrain.models.block_sums import Array

SMALLEST = 1e-6  # probability: the logit of a certain one is infinite


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


def _dense(encoded: Any) -> Any:
    return encoded.toarray() if hasattr(encoded, "toarray") else encoded
