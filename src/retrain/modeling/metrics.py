"""Metrics of predicted probabilities, in numpy: the gate reads stored predictions and loads no model library.

Each metric also gives its values when one block of rows after the other is left out, in closed form: ten million rows in
a hundred blocks then cost one pass, not a hundred.

Everywhere, `target` holds 0 and 1, `score` the probability of 1, and `codes` the number of each row's block, from 0
without gaps; all of shape (rows,).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.errors import ConfigError

# Probabilities of exactly 0 and 1 are clipped as scikit-learn's log_loss does for float64.
EPSILON = np.finfo(np.float64).eps
CALIBRATION_BINS = 10


def row_log_loss(target: NDArray, score: NDArray) -> NDArray:
    """Negative log likelihood in nats of each row, shape (rows,)."""
    likelihood = np.where(target == 1, score, 1 - score)
    np.clip(likelihood, EPSILON, 1, out=likelihood)
    return -np.log(likelihood, out=likelihood)


def row_brier(target: NDArray, score: NDArray) -> NDArray:
    """Squared error of each row's probability, shape (rows,) (Brier 1950, halved as is usual for two classes)."""
    return (score - target) ** 2


ROW_LOSSES: dict[str, Callable[[NDArray, NDArray], NDArray]] = {"log_loss": row_log_loss, "brier": row_brier}


class Metric(ABC):
    """One figure for many rows."""

    @abstractmethod
    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        """The metric on all rows, then without each block in turn: float64 of shape (1 + blocks,).

        NaN where the rows that are left can't tell, as when they hold one class only.
        """

    def value(self, target: NDArray, score: NDArray) -> float:
        """The metric on all rows."""
        return float(self.replicates(target, score, np.zeros(len(target), dtype=np.int64))[0])


class RowMean(Metric):
    """The mean of a loss of single rows."""

    def __init__(self, row_loss: Callable[[NDArray, NDArray], NDArray]) -> None:
        self.row_loss = row_loss

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        return mean_replicates(np.bincount(codes, self.row_loss(target, score)), np.bincount(codes))


class RocAuc(Metric):
    """Probability that a positive row scores above a negative one, ties count half.

    A block is left out by taking away the pairs that it has a part in. Those are sums of placement values (how many rows
    of the other class a row is on the right side of; DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44), less the
    pairs within the block, which would be taken away twice. Two sorts in all, and exact.
    """

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        order = np.argsort(score)
        score, positive, codes = score[order], target[order] == 1, codes[order]
        blocks = int(codes.max()) + 1
        below = _other_class_below(score, positive)
        positives_of = np.bincount(codes[positive], minlength=blocks)
        negatives_of = np.bincount(codes, minlength=blocks) - positives_of
        positives, negatives = positives_of.sum(), negatives_of.sum()
        # A negative row is on the right side of the positives that do not lie below it.
        right = np.where(positive, below, positives - below)
        involved = np.bincount(codes, right, minlength=blocks)
        by_block = np.argsort(codes, kind="stable")
        score, positive, codes = score[by_block], positive[by_block], codes[by_block]
        within = np.bincount(codes[positive], _other_class_below(score, positive, codes)[positive], minlength=blocks)
        ordered = involved.sum() / 2  # each pair was counted from both of its rows
        left = np.r_[ordered, ordered - involved + within]
        pairs = np.r_[positives * negatives, (positives - positives_of) * (negatives - negatives_of)].astype(np.float64)
        return np.divide(left, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


class CalibrationError(Metric):
    """Expected calibration error: mean distance of predicted from observed share over equal-width bins, weighted by
    their rows (Naeini, Cooper and Hauskrecht 2015)."""

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        bins = np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        rows = np.bincount(codes)
        cells = codes.astype(np.int64) * CALIBRATION_BINS + bins
        gaps = np.bincount(cells, score - target, minlength=len(rows) * CALIBRATION_BINS).reshape(len(rows), -1)
        left = gaps.sum(axis=0) - np.vstack([np.zeros(CALIBRATION_BINS), gaps])
        return _divide(np.abs(left).sum(axis=1), rows.sum() - np.r_[0, rows])


class ScikitLearnScorer(Metric):
    """Any scorer that scikit-learn knows by name, such as `average_precision` or `f1`; higher is better for all of them.

    Labels are predicted at a probability of 0.5. Computed anew without each block, so slower than the metrics above.
    """

    def __init__(self, name: str) -> None:
        from sklearn.metrics import get_scorer

        self.scorer = get_scorer(name)

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        stored = _stored_predictions()
        labels = target.astype(np.int64)
        left = [np.ones(len(codes), dtype=bool), *(codes != block for block in range(int(codes.max()) + 1))]
        return np.array([self._score(stored, score[keep], labels[keep]) for keep in left])

    def _score(self, stored: Any, score: NDArray, labels: NDArray) -> float:
        if len(np.unique(labels)) < 2:
            return float("nan")
        return float(self.scorer(stored, score, labels))


METRICS: dict[str, Metric] = {
    "log_loss": RowMean(row_log_loss),
    "roc_auc": RocAuc(),
    "brier": RowMean(row_brier),
    "calibration_error": CalibrationError(),
}


@functools.cache
def find_metric(name: str) -> Metric:
    """A metric by name: of this project, or a scorer of scikit-learn. Raises ConfigError with the names that there are."""
    if name in METRICS:
        return METRICS[name]
    from sklearn.metrics import get_scorer_names

    if name not in get_scorer_names():
        raise ConfigError(
            f"`metric` is {name!r}, which is neither one of {', '.join(METRICS)} nor a scorer of scikit-learn. "
            "`python -c 'import sklearn.metrics as m; print(m.get_scorer_names())'` lists those."
        )
    return ScikitLearnScorer(name)


def mean_replicates(sums: NDArray, rows: NDArray) -> NDArray:
    """A mean over all rows, then without each block in turn, from each block's sum and number of rows: (1 + blocks,)."""
    return _divide(sums.sum() - np.r_[0, sums], rows.sum() - np.r_[0, rows])


def _divide(sums: NDArray, rows: NDArray) -> NDArray:
    return np.divide(sums, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def _other_class_below(score: NDArray, positive: NDArray, codes: NDArray | None = None) -> NDArray:
    """For each row the number of rows of the other class that score lower, ties count half: float64 of shape (rows,).

    The rows are sorted by `score`; with `codes` by block and then score, and only rows of the same block count.
    """
    first = np.r_[True, score[1:] != score[:-1]]
    if codes is not None:
        first[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(first)
    positives = np.add.reduceat(positive, starts, dtype=np.float64)
    negatives = np.diff(np.r_[starts, len(score)]) - positives
    positives_below, negatives_below = np.cumsum(positives) - positives / 2, np.cumsum(negatives) - negatives / 2
    if codes is not None:
        opens = np.flatnonzero(np.r_[True, codes[starts][1:] != codes[starts][:-1]])
        lengths = np.diff(np.r_[opens, len(starts)])
        positives_below -= np.repeat((np.cumsum(positives) - positives)[opens], lengths)
        negatives_below -= np.repeat((np.cumsum(negatives) - negatives)[opens], lengths)
    group = np.cumsum(first) - 1
    return np.where(positive, negatives_below[group], positives_below[group])


@functools.cache
def _stored_predictions() -> Any:
    """What scikit-learn's scorers take for a fitted classifier: its rows are the probabilities themselves."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class StoredPredictions(ClassifierMixin, BaseEstimator):
        classes_ = np.array([0, 1])

        def predict_proba(self, score: NDArray) -> NDArray:
            return np.column_stack([1 - score, score])

        def predict(self, score: NDArray) -> NDArray:
            return (score >= 0.5).astype(np.int64)

    return StoredPredictions()
