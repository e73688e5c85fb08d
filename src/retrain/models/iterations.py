"""How many rounds of boosting: with few rows as many as did best on later training rows.

A hundred rounds on a few thousand rows, or on classes with a dozen rows each, end in probabilities
that are certain and wrong. scikit-learn's own early stopping holds out random rows and so looks
across time; here every fit is scored on rows that came after it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from retrain.lazy import sklearn
from retrain.models.block_sums import Array

# Each part of the rows, in time, is predicted by a model of all before it: one alone might be
# another season.
FOLDS = ((0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
PATIENCE = 10  # rounds without a gain, after which a fold's fit ends
FEWEST_ROWS = 20  # to fit on, and to score on


def can_choose(estimator: Any) -> bool:
    """Whether the estimator scores rounds on rows that it is given (scikit-learn's histogram
    boosting)."""
    return "X_val" in inspect.signature(estimator.fit).parameters and hasattr(
        estimator, "n_iter_no_change"
    )


def few_rows(target: Array, classifies: bool) -> int:
    """The rows that the number of rounds hangs on: those of the rarest class; half of them for
    numbers, as of two classes."""
    return int(np.unique(target, return_counts=True)[1].min()) if classifies else len(target) // 2


def choose_iterations(
    estimator: Any,
    encoded: Array,
    target: Array,
    times: Array,
    weights: Array | None = None,
) -> int | None:
    """The number of rounds, of at most `max_iter`, with the least loss on later rows; None where
    there are too few to tell.

    `encoded` has shape (rows, columns) and is ordered by `times`, shape (rows,).
    """
    gains, rounds = np.zeros(estimator.max_iter + 1), 0
    for earlier, later in _folds(times):
        known = (
            np.isin(target[later], np.unique(target[earlier]))
            if hasattr(estimator, "predict_proba")
            else True
        )
        later = later[np.broadcast_to(known, later.shape)]
        if len(later) < FEWEST_ROWS or len(np.unique(target[earlier])) < 2:
            continue
        scores = _fold_scores(estimator, encoded, target, weights, earlier, later)
        scale = (
            1.0 if hasattr(estimator, "predict_proba") else float(np.var(target[earlier])) or 1.0
        )
        counts = len(later) if weights is None else float(weights[later].sum())
        gains += (
            counts * np.pad(scores - scores[0], (0, len(gains) - len(scores)), mode="edge") / scale
        )
        rounds += 1
    return max(1, int(gains.argmax())) if rounds else None


def _fold_scores(
    estimator: Any,
    encoded: Array,
    target: Array,
    weights: Array | None,
    earlier: Array,
    later: Array,
) -> Array:
    """Minus the loss on the later rows before the first round and after each: shape (rounds +
    1,)."""
    trial = sklearn.base.clone(estimator).set_params(early_stopping=True, n_iter_no_change=PATIENCE)
    known = encoded[earlier].copy()
    known[:, np.isnan(known).all(axis=0)] = (
        0  # a column that came later: scikit-learn can't bin one without values
    )
    weighted: dict[str, Any] = {}
    if weights is not None:
        # Relative to the newest of the fold: boosting splits nothing where all rows of a part weigh
        # next to nothing.
        weighted = {
            "sample_weight": weights[earlier] / weights[earlier].max(),
            "sample_weight_val": weights[later],
        }
    trial.fit(known, target[earlier], X_val=encoded[later], y_val=target[later], **weighted)
    return np.asarray(trial.validation_score_)


def _folds(times: Array) -> Iterator[tuple[Array, Array]]:
    """Places of the rows to fit on, and of those to score on, which all came later."""
    order = np.arange(len(times))
    for start, end in FOLDS:
        border = int(np.searchsorted(times, times[int(start * len(times))], side="left"))
        until = len(times) if end == 1 else int(end * len(times))
        if border >= FEWEST_ROWS and until - border >= FEWEST_ROWS:
            yield order[:border], order[border:until]
