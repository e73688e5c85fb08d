"""Metrics of stored predictions, in numpy: the gate reads predictions and loads no model library.

Each metric also gives its values when one block of rows after the other is left out, in closed form: ten million rows in
a hundred blocks then cost one pass, not a hundred.

What `target` and `score` hold depends on the task, everywhere. `codes` is the number of each row's block, from 0
without gaps, of shape (rows,).

| task | target, float64 of shape (rows,) | score, float64 |
|---|---|---|
| binary | 0 and 1 | probability of 1, shape (rows,) |
| multiclass | index of the class | probability of each class, shape (rows, classes) |
| regression | the value | the predicted value, shape (rows,) |
"""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import ConfigError

# Probabilities of exactly 0 and 1 are clipped as scikit-learn's log_loss does for float64.
EPSILON = np.finfo(np.float64).eps
CALIBRATION_BINS = 10
PINBALL = "pinball_"  # followed by the quantile: pinball_0.9
RowLoss = Callable[[NDArray, NDArray], NDArray]


def row_log_loss(target: NDArray, score: NDArray) -> NDArray:
    """Negative log likelihood in nats of each row, shape (rows,)."""
    if score.ndim == 2:
        likelihood = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
    else:
        likelihood = np.where(target == 1, score, 1 - score)
    likelihood = np.clip(likelihood, EPSILON, 1)
    return -np.log(likelihood, out=likelihood)


def row_brier(target: NDArray, score: NDArray) -> NDArray:
    """Squared error of each row's probabilities, shape (rows,) (Brier 1950, Monthly Weather Review 78; halved for two
    classes, as is usual)."""
    if score.ndim == 1:
        return (score - target) ** 2
    hit = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
    return (score**2).sum(axis=1) - 2 * hit + 1


def row_absolute_error(target: NDArray, score: NDArray) -> NDArray:
    """Distance of each row's prediction, shape (rows,), in units of the target."""
    return np.abs(target - score)


def row_squared_error(target: NDArray, score: NDArray) -> NDArray:
    """Squared distance of each row's prediction, shape (rows,), in squared units of the target."""
    return (target - score) ** 2


def row_pinball(target: NDArray, score: NDArray, quantile: float) -> NDArray:
    """Pinball loss of each row's predicted quantile, shape (rows,) (Koenker and Bassett 1978, Econometrica 46)."""
    error = target - score
    return np.maximum(quantile * error, (quantile - 1) * error)


ROW_LOSSES: dict[str, RowLoss] = {
    "log_loss": row_log_loss,
    "brier": row_brier,
    "mae": row_absolute_error,
    "mse": row_squared_error,
}


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

    def __init__(self, row_loss: RowLoss) -> None:
        self.row_loss = row_loss

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        return mean_replicates(np.bincount(codes, self.row_loss(target, score)), np.bincount(codes))


class RootMeanSquaredError(Metric):
    """The square root of the mean squared error, in units of the target."""

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        return np.sqrt(RowMean(row_squared_error).replicates(target, score, codes))


class Determination(Metric):
    """The coefficient of determination R squared: the share of the target's variance that the prediction explains."""

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        centred = target - target.mean()  # for precision: the variance does not change
        rows = np.bincount(codes)
        mean = mean_replicates(np.bincount(codes, centred), rows)
        variance = mean_replicates(np.bincount(codes, centred**2), rows) - mean**2
        error = mean_replicates(np.bincount(codes, row_squared_error(target, score)), rows)
        return 1 - np.divide(error, variance, out=np.full(len(error), np.nan), where=variance > 0)


class MacroF1(Metric):
    """The F1 score of each class, averaged over those that occur or are predicted; the most probable class is predicted."""

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        score = score if score.ndim == 2 else np.column_stack([1 - score, score])
        classes, blocks = score.shape[1], int(codes.max()) + 1
        cells = (codes * classes + target.astype(np.int64)) * classes + score.argmax(axis=1)
        of_block = np.bincount(cells, minlength=blocks * classes**2).reshape(
            blocks, classes, classes
        )
        confusion = of_block.sum(axis=0) - np.concatenate(
            [np.zeros((1, classes, classes)), of_block]
        )
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        occurring = confusion.sum(axis=2) + confusion.sum(axis=1)
        seen = occurring > 0
        f1 = np.divide(2 * hits, occurring, out=np.zeros(hits.shape), where=seen)
        return _divide(f1.sum(axis=1), seen.sum(axis=1))


class RocAuc(Metric):
    """Probability that a positive row scores above a negative one, ties count half.

    With several classes, the mean over them of one against the rest (Provost and Domingos 2000), of those that occur and
    of which no single block holds all rows.

    A block is left out by taking away the pairs that it has a part in. Those are sums of placement values (how many rows
    of the other class a row is on the right side of; DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44), less the
    pairs within the block, which would be taken away twice. Two sorts in all, and exact.
    """

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        if score.ndim == 1:
            return self._of_two(target, score, codes)
        classes = [
            self._of_two(target == index, score[:, index], codes) for index in range(score.shape[1])
        ]
        blocks = int(codes.max()) + 1
        known = [
            values for values in classes if np.isfinite(values if blocks > 1 else values[0]).all()
        ]
        return np.mean(known, axis=0) if known else np.full(blocks + 1, np.nan)

    def _of_two(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
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
        within = np.bincount(
            codes[positive], _other_class_below(score, positive, codes)[positive], minlength=blocks
        )
        ordered = involved.sum() / 2  # each pair was counted from both of its rows
        left = np.r_[ordered, ordered - involved + within]
        pairs = np.r_[
            positives * negatives, (positives - positives_of) * (negatives - negatives_of)
        ].astype(np.float64)
        return np.divide(left, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


class CalibrationError(Metric):
    """Expected calibration error: mean distance of predicted from observed share over equal-width bins, weighted by
    their rows (Naeini, Cooper and Hauskrecht 2015). With several classes, of the most probable one (Guo et al. 2017)."""

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        target, score = top_label(target, score)
        bins = np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        rows = np.bincount(codes)
        cells = codes.astype(np.int64) * CALIBRATION_BINS + bins
        gaps = np.bincount(cells, score - target, minlength=len(rows) * CALIBRATION_BINS).reshape(
            len(rows), -1
        )
        left = gaps.sum(axis=0) - np.vstack([np.zeros(CALIBRATION_BINS), gaps])
        return _divide(np.abs(left).sum(axis=1), rows.sum() - np.r_[0, rows])


class ScikitLearnScorer(Metric):
    """Any scorer that scikit-learn knows by name, such as `average_precision` or `f1`; higher is better for all of them.

    The most probable class is predicted. Computed anew without each block, so slower than the metrics above.
    """

    def __init__(self, name: str, task: Task) -> None:
        from sklearn.metrics import get_scorer

        self.name, self.scorer, self.task = name, get_scorer(name), task

    def replicates(self, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
        left = [
            np.ones(len(codes), dtype=bool),
            *(codes != block for block in range(int(codes.max()) + 1)),
        ]
        return np.array([self._score(score[keep], target[keep]) for keep in left])

    @functools.cache  # noqa: B019  the scorers themselves are kept for ever
    def fits(self) -> bool:
        """Whether it is for this task, and can be computed: of one for two classes, such as `f1`, scikit-learn tells only then."""
        for_numbers = self.scorer._score_func.__module__.endswith("_regression")
        if for_numbers != (self.task is Task.regression):
            return False
        classes = 3 if self.task is Task.multiclass else 2
        target = np.arange(12.0) % classes
        score = np.eye(classes)[target.astype(np.int64)] * 0.5 + 0.5 / classes
        if self.task is not Task.multiclass:
            score = score[:, 1]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._score(score, target)
        except ConfigError:
            return False
        return True

    def _score(self, score: NDArray, target: NDArray) -> float:
        if len(np.unique(target)) < 2:
            return float("nan")
        try:
            if self.task is Task.regression:
                return float(self.scorer(_stored_values(), score, target))
            classes = score.shape[1] if score.ndim == 2 else 2
            return float(self.scorer(_stored_predictions(classes), score, target.astype(np.int64)))
        except ValueError as error:
            raise ConfigError(
                f"`metric` {self.name!r} can't be computed for this task: {error}"
            ) from error


METRICS: dict[str, Metric] = {
    "log_loss": RowMean(row_log_loss),
    "roc_auc": RocAuc(),
    "brier": RowMean(row_brier),
    "calibration_error": CalibrationError(),
    "macro_f1": MacroF1(),
    "rmse": RootMeanSquaredError(),
    "mae": RowMean(row_absolute_error),
    "mse": RowMean(row_squared_error),
    "r2": Determination(),
}
# Measured in every comparison, whatever the gate asks for.
SHOWN: dict[Task, tuple[str, ...]] = {
    Task.binary: ("log_loss", "roc_auc", "brier", "calibration_error"),
    Task.multiclass: ("log_loss", "macro_f1", "roc_auc", "brier", "calibration_error"),
    Task.regression: ("rmse", "mae", "r2"),
}
_CLASSIFICATION = ("log_loss", "roc_auc", "brier", "calibration_error", "macro_f1")


@functools.cache
def find_metric(name: str, task: Task = Task.binary) -> Metric:
    """A metric by name: of this project, or a scorer of scikit-learn. Raises ConfigError with the names that there are."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith(PINBALL):
        return RowMean(find_row_loss(name))
    from sklearn.metrics import get_scorer_names

    if name not in get_scorer_names():
        raise ConfigError(
            f"`metric` is {name!r}, which is neither one of {', '.join(METRICS)}, {PINBALL}<quantile> nor a scorer of scikit-learn. "
            "`python -c 'import sklearn.metrics as m; print(m.get_scorer_names())'` lists those."
        )
    return ScikitLearnScorer(name, task)


def find_row_loss(name: str) -> RowLoss:
    """A loss of single rows by name. Raises ConfigError with the names that there are."""
    if name in ROW_LOSSES:
        return ROW_LOSSES[name]
    try:
        quantile = float(name.removeprefix(PINBALL)) if name.startswith(PINBALL) else -1.0
    except ValueError:
        quantile = -1.0
    if not 0 < quantile < 1:
        raise ConfigError(
            f"`metric` is {name!r}, but must be a loss of single rows: {', '.join(ROW_LOSSES)}, or {PINBALL}<quantile between 0 and 1>."
        )
    return functools.partial(row_pinball, quantile=quantile)


def fits_task(name: str, task: Task) -> bool:
    """Whether a metric means anything for a task. Of one that nobody knows, `find_metric` has more to say: yes."""
    if name in METRICS or name.startswith(PINBALL):
        return (name in _CLASSIFICATION) == (task is not Task.regression)
    try:
        return find_metric(name, task).fits()
    except ConfigError:
        return True


def row_loss_for(metric: str, task: Task) -> str:
    """The loss of single rows that stands in for a metric where parts of the rows are judged: itself, if it is one."""
    if metric in ROW_LOSSES or metric.startswith(PINBALL):
        return metric
    return "mse" if task is Task.regression else "log_loss"


def monitoring_loss(metric: str, task: Task) -> str:
    """The loss that a model is watched by over time: the metric itself if less of it is better, else the loss beside it."""
    return metric if metric == "rmse" else row_loss_for(metric, task)


def shown_metrics(task: Task, also: Iterable[str] = ()) -> list[str]:
    """Names of the metrics to measure: those of the task, and those asked for as far as they fit it."""
    return list(dict.fromkeys([*SHOWN[task], *(name for name in also if fits_task(name, task))]))


def baseline_score(target: NDArray, metric: str, task: Task, classes: int) -> NDArray:
    """The best constant prediction for rows with this target: shares of the classes, mean, median or quantile.

    Shape () for binary and regression, (classes,) for multiclass.
    """
    if task is Task.multiclass:
        return np.bincount(target.astype(np.int64), minlength=classes) / len(target)
    if metric == "mae":
        return np.median(target)
    if metric.startswith(PINBALL):
        return np.quantile(target, float(metric.removeprefix(PINBALL)))
    return np.mean(target)


def top_label(target: NDArray, score: NDArray) -> tuple[NDArray, NDArray]:
    """Whether the most probable class is the right one, and its probability; as they are with two classes."""
    if score.ndim == 1:
        return target, score
    return (score.argmax(axis=1) == target).astype(np.float64), score.max(axis=1)


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
    positives_below, negatives_below = (
        np.cumsum(positives) - positives / 2,
        np.cumsum(negatives) - negatives / 2,
    )
    if codes is not None:
        opens = np.flatnonzero(np.r_[True, codes[starts][1:] != codes[starts][:-1]])
        lengths = np.diff(np.r_[opens, len(starts)])
        positives_below -= np.repeat((np.cumsum(positives) - positives)[opens], lengths)
        negatives_below -= np.repeat((np.cumsum(negatives) - negatives)[opens], lengths)
    group = np.cumsum(first) - 1
    return np.where(positive, negatives_below[group], positives_below[group])


@functools.cache
def _stored_predictions(classes: int) -> Any:
    """What scikit-learn's scorers take for a fitted classifier: its rows are the probabilities themselves."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class StoredPredictions(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(classes)

        def predict_proba(self, score: NDArray) -> NDArray:
            return score if score.ndim == 2 else np.column_stack([1 - score, score])

        def predict(self, score: NDArray) -> NDArray:
            return score.argmax(axis=1) if score.ndim == 2 else (score >= 0.5).astype(np.int64)

    return StoredPredictions()


@functools.cache
def _stored_values() -> Any:
    """What scikit-learn's scorers take for a fitted regressor: its rows are the predicted values themselves."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class StoredValues(RegressorMixin, BaseEstimator):
        def predict(self, score: NDArray) -> NDArray:
            return score

    return StoredValues()
