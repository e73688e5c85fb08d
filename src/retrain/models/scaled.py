"""Regressors that learn by gradient steps, on a target that they scale themselves.

scikit-learn's own learn the target as it is: amounts in the millions are never reached by steps of
a thousandth, and rows far out in a skewed feature make the steps of plain gradient descent grow
without bound. This file travels with each model that holds one of its classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import SGDRegressor
from sklearn.neural_network import MLPRegressor

if TYPE_CHECKING:
    from retrain.models.block_sums import Array


FARTHEST = 100.0  # standard deviations of a feature; what lies beyond counts as so far


class _ScaledTarget(BaseEstimator):
    """The target in standard deviations from its mean on the first rows, which going on with the
    model keeps.

    Features are taken as standardized (`preprocessing.one_hot`) and bounded at FARTHEST. Beside one
    of scikit-learn's regressors.
    """

    def fit(self, X: Any, y: Array, **arguments: Any) -> Self:
        self._measure(y)
        super().fit(_bounded(X), self._scaled(y), **arguments)
        return self

    def partial_fit(self, X: Any, y: Array, **arguments: Any) -> Self:
        if not hasattr(self, "target_scale_"):
            self._measure(y)
        super().partial_fit(_bounded(X), self._scaled(y), **arguments)
        return self

    def predict(self, X: Any) -> Array:
        """Values in the target's own unit, shape (rows,)."""
        return super().predict(_bounded(X)) * self.target_scale_ + self.target_mean_

    def _measure(self, y: Any) -> None:
        if y is None:  # scikit-learn says what is wrong
            return
        values = np.asarray(y, dtype=np.float64)
        scale = float(np.std(values))
        self.target_mean_ = float(np.mean(values))
        self.target_scale_ = scale if scale > 0 and np.isfinite(scale) else 1.0

    def _scaled(self, y: Any) -> Array | None:
        if y is None:
            return None
        return (np.asarray(y, dtype=np.float64) - self.target_mean_) / self.target_scale_


class ScaledSGDRegressor(_ScaledTarget, SGDRegressor):
    """Stochastic gradient descent with steps that no row can make overshoot: `eta0` at most 1 /
    (the longest row)^2.

    Beyond twice that a step leads farther away than it began (the bound of least mean squares;
    Widrow and Hoff 1960).
    """

    def fit(self, X: Any, y: Array, **arguments: Any) -> Self:
        return self._with_safe_steps(super().fit, X, y, arguments)

    def partial_fit(self, X: Any, y: Array, **arguments: Any) -> Self:
        return self._with_safe_steps(super().partial_fit, X, y, arguments)

    def _with_safe_steps(self, fit: Any, X: Any, y: Array, arguments: dict[str, Any]) -> Self:
        asked: float = self.get_params(deep=False)["eta0"]
        longest = _longest_row(_bounded(X))
        try:
            if longest * asked > 1:
                self.eta0 = 1 / longest
            return fit(X, y, **arguments)
        finally:
            self.eta0 = asked


class ScaledMLPRegressor(_ScaledTarget, MLPRegressor):
    """A neural network whose first predictions lie where the target lies."""

    def _measure(self, y: Any) -> None:
        super()._measure(y)
        if self.loss == "poisson" and y is not None:
            # It knows no negative values: the unit changes, the zero stays.
            self.target_mean_, self.target_scale_ = 0.0, self.target_mean_ or 1.0


def _bounded(X: Any) -> Any:
    """Features of shape (rows, columns), dense or sparse, none farther out than FARTHEST."""
    if hasattr(X, "tocsr"):
        bounded = X.copy() if X.format in ("csr", "csc") else X.tocsr()
        bounded.data = _clipped(bounded.data)
        return bounded
    return _clipped(X) if isinstance(X, np.ndarray) and X.dtype.kind in "iuf" else X


def _clipped(values: Array) -> Array:
    """What is no finite number stays, for scikit-learn to refuse."""
    return np.where(np.isfinite(values), np.clip(values, -FARTHEST, FARTHEST), values)


def _longest_row(X: Any) -> float:
    """The largest sum of squares of a row, and 1 for the intercept."""
    squares = X.multiply(X) if hasattr(X, "tocsr") else np.square(np.asarray(X, dtype=np.float64))
    squares = squares.sum(axis=1)
    return 1.0 + (float(np.max(squares)) if np.size(squares) else 0.0)
