"""Metrics of stored predictions, in numpy: the gate reads predictions and loads no model library.

A metric is made of sums over rows. So its value without one block of rows is what it makes of the
total less that block's sums: ten million rows in a hundred blocks cost one pass, not a hundred.

What `target` and `score` hold depends on the task, everywhere. `blocks` is the number of each row's
block of time, int64 from 0 without gaps, of shape (rows,).

| task | target, float64 of shape (rows,) | score, float64 |
|---|---|---|
| binary | 0 and 1 | probability of 1, shape (rows,) |
| multiclass | index of the class | probability of each class, shape (rows, classes) |
| regression | the value | the predicted value, shape (rows,) |
"""

from __future__ import annotations

import functools
import math
import pkgutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import ConfigError
from retrain.lazy import sklearn

# Probabilities of exactly 0 and 1 are clipped as scikit-learn's log_loss does for float64.
EPSILON = np.finfo(np.float64).eps
CALIBRATION_BINS = 10
Array = NDArray[Any]
PINBALL = "pinball_"  # followed by the quantile: pinball_0.9
CLASSIFICATION = frozenset({Task.binary, Task.multiclass})
REGRESSION = frozenset({Task.regression})


class Metric:
    """One number for many rows, and its value when any block of them is left out.

    A metric of your own gives `block_sums` and `finish`, and gets its confidence interval from
    them. The configuration names it by its dotted path: `data.metric:
    project.extensions.CostOfAlarms`, or as the `metric` of a check. A path may also lead to an
    instance, for a metric with parameters. A loss that each row has by itself is better a
    `RowLoss`.

    Attributes
    ----------
    lower_is_better
        Whether less of it is better.
    tasks
        The tasks that it means anything for.

    Examples
    --------
    The mean cost of a row, where a missed positive costs ten times what a false alarm costs:

    >>> import numpy as np
    >>> class CostOfAlarms(Metric):
    ...     tasks = frozenset({Task.binary})
    ...
    ...     def block_sums(self, target, score, blocks):
    ...         alarm = score >= 0.1
    ...         return sum_by_block(blocks, np.where(alarm, 1 - target, 10 * target))
    ...
    ...     def finish(self, totals):
    ...         return totals[:, 0] / totals[:, -1]
    >>> CostOfAlarms().value(np.array([0.0, 1.0]), np.array([0.2, 0.05]))
    5.5
    """

    lower_is_better: ClassVar[bool] = True
    tasks: ClassVar[frozenset[Task]] = frozenset(Task)

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        """What the metric is made of, summed over the rows of each block.

        Parameters
        ----------
        target, score, blocks
            As the table above says.

        Returns
        -------
        Shape (number of blocks, k), with any k; `sum_by_block` makes it of columns.
        """
        raise NotImplementedError

    def finish(self, totals: Array) -> Array:
        """The values, of shape (n,), from n totals of block sums, of shape (n, k). NaN where the
        rows can't tell."""
        raise NotImplementedError

    def replicates(self, target: Array, score: Array, blocks: Array) -> Array:
        """The metric on all rows, then without each block in turn: float64 of shape (1 +
        blocks,)."""
        return leave_one_out(self.finish, self.block_sums(target, score, blocks))

    def value(self, target: Array, score: Array) -> float:
        """The metric on all rows."""
        return float(self.replicates(target, score, np.zeros(len(target), dtype=np.int64))[0])

    def fits(self, task: Task) -> bool:
        """Whether the metric means anything for a task."""
        return task in self.tasks

    def best_constant(self, target: Array) -> float:
        """The constant prediction that does best on rows with this target: the mean, unless
        overridden."""
        return float(np.mean(target))

    def margin_base(self, value: Array | float) -> Array | float:
        """What a relative margin is a share of: the value itself, unless overridden."""
        return value


def sum_by_block(blocks: Array, *columns: Array) -> Array:
    """The sum of each column, of shape (rows,), and last the number of rows, in each block:
    (blocks, columns + 1)."""
    return np.stack([*(np.bincount(blocks, column) for column in columns), np.bincount(blocks)]).T


def leave_one_out(finish: Callable[[Array], Array], sums: Array) -> Array:
    """`finish` of the total of block sums, of shape (blocks, k), and of the total without each
    block: (1 + blocks,)."""
    total = np.ascontiguousarray(sums.T).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return finish(np.vstack([total, total - sums]))


def mean(totals: Array) -> Array:
    """The mean of the first column of `sum_by_block`: a `finish`."""
    return totals[:, 0] / totals[:, -1]


class RowLoss(Metric, ABC):
    """The mean of a loss that each row has by itself: parts of the rows, such as slices, can be
    compared by it."""

    @abstractmethod
    def rows(self, target: Array, score: Array) -> Array:
        """The loss of each row, shape (rows,)."""

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        losses = np.asarray(self.rows(target, score))
        if losses.shape != target.shape:
            raise ConfigError(
                f"`rows` of the metric {type(self).__name__} gives the shape {losses.shape} for "
                f"{len(target)} rows, but must give a loss a row, shape ({len(target)},)."
            )
        return sum_by_block(blocks, losses)

    def finish(self, totals: Array) -> Array:
        return mean(totals)


class LogLoss(RowLoss):
    """Negative log likelihood in nats."""

    tasks = CLASSIFICATION

    def rows(self, target: Array, score: Array) -> Array:
        if score.ndim == 2:
            likelihood = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
        else:
            likelihood = np.where(target == 1, score, 1 - score)
        likelihood = np.clip(likelihood, EPSILON, 1)
        losses: Array = -np.log(likelihood, out=likelihood)
        return losses


class Brier(RowLoss):
    """Squared error of the probabilities, halved for two classes, as is usual.

    References
    ----------
    Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly
    Weather Review 78.
    """

    tasks = CLASSIFICATION

    def rows(self, target: Array, score: Array) -> Array:
        if score.ndim == 1:
            return (score - target) ** 2
        hit = np.take_along_axis(score, target.astype(np.int64)[:, None], axis=1)[:, 0]
        losses: Array = (score**2).sum(axis=1) - 2 * hit + 1
        return losses


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


class MacroF1(Metric):
    """The F1 score of each class, averaged over those that occur or are predicted; the most
    probable class is predicted."""

    tasks = CLASSIFICATION
    lower_is_better = False

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        score = score if score.ndim == 2 else np.column_stack([1 - score, score])
        classes, count = score.shape[1], int(blocks.max()) + 1
        cells = (blocks * classes + target.astype(np.int64)) * classes + score.argmax(axis=1)
        return np.bincount(cells, minlength=count * classes**2).reshape(count, -1)

    def finish(self, totals: Array) -> Array:
        classes = math.isqrt(totals.shape[1])
        confusion = totals.reshape(-1, classes, classes)
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        occurring = confusion.sum(axis=2) + confusion.sum(axis=1)
        f1 = np.where(occurring > 0, 2 * hits / occurring, 0.0)
        means: Array = f1.sum(axis=1) / (occurring > 0).sum(axis=1)
        return means


class CalibrationError(Metric):
    """Expected calibration error: mean distance of predicted from observed share over equal-width
    bins, weighted by their rows. With several classes, of the most probable one.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI. Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural
    networks", ICML.
    """

    tasks = CLASSIFICATION

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        target, score = top_label(target, score)
        bins = np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        rows = np.bincount(blocks)
        cells = blocks * CALIBRATION_BINS + bins
        gaps = np.bincount(cells, score - target, minlength=len(rows) * CALIBRATION_BINS)
        return np.column_stack([gaps.reshape(len(rows), -1), rows])

    def finish(self, totals: Array) -> Array:
        error: Array = np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1]
        return error


class RocAuc(Metric):
    """Probability that a positive row scores above a negative one, ties count half.

    With several classes, the mean over them of one against the rest, of those that occur and of
    which no single block holds all rows.

    It counts pairs of rows, so it is no sum over blocks. A block is left out by taking away the
    pairs that it has a part in. Those are sums of placement values (how many rows of the other
    class a row is on the right side of), less the pairs within the block, which would be taken away
    twice. Two sorts in all, and exact.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more
    correlated receiver operating characteristic curves", Biometrics 44 (placement values). Provost
    and Domingos 2000, "Well-trained PETs", CeDER working paper IS-00-04 (several classes).
    """

    tasks = CLASSIFICATION
    lower_is_better = False

    def replicates(self, target: Array, score: Array, blocks: Array) -> Array:
        if score.ndim == 1:
            return self._of_two(target == 1, score, blocks)
        classes = [
            self._of_two(target == index, score[:, index], blocks)
            for index in range(score.shape[1])
        ]
        count = len(classes[0]) - 1
        known = [
            values for values in classes if np.isfinite(values if count > 1 else values[0]).all()
        ]
        return np.mean(known, axis=0) if known else np.full(count + 1, np.nan)

    def _of_two(self, positive: Array, score: Array, blocks: Array) -> Array:
        order = np.argsort(score)
        score, positive, blocks = score[order], positive[order], blocks[order]
        rows_of = np.bincount(blocks)
        below = _other_class_below(score, positive)
        positives_of = np.bincount(blocks[positive], minlength=len(rows_of))
        negatives_of = rows_of - positives_of
        positives, negatives = positives_of.sum(), negatives_of.sum()
        # A negative row is on the right side of the positives that do not lie below it.
        involved = np.bincount(blocks, np.where(positive, below, positives - below))
        by_block = np.argsort(blocks, kind="stable")
        score, positive, blocks = score[by_block], positive[by_block], blocks[by_block]
        below = _other_class_below(score, positive, blocks)
        within = np.bincount(blocks[positive], below[positive], minlength=len(rows_of))
        ordered = involved.sum() / 2  # each pair was counted from both of its rows
        left = np.r_[ordered, ordered - involved + within]
        pairs = np.r_[
            positives * negatives, (positives - positives_of) * (negatives - negatives_of)
        ].astype(np.float64)
        share: Array = np.divide(left, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return share


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


METRICS: dict[str, Metric] = {
    "log_loss": LogLoss(),
    "roc_auc": RocAuc(),
    "brier": Brier(),
    "calibration_error": CalibrationError(),
    "macro_f1": MacroF1(),
    "rmse": RootMeanSquaredError(),
    "mae": AbsoluteError(),
    "mse": SquaredError(),
    "r2": Determination(),
}
# Measured in every comparison, whatever the gate asks for.
SHOWN: dict[Task, tuple[str, ...]] = {
    Task.binary: ("log_loss", "roc_auc", "brier", "calibration_error"),
    Task.multiclass: ("log_loss", "macro_f1", "roc_auc", "brier", "calibration_error"),
    Task.regression: ("rmse", "mae", "r2"),
}


@functools.cache
def find_metric(name: str, task: Task = Task.binary) -> Metric:
    """A metric by name: of the engine, of your own by its dotted path, or a scorer of scikit-learn.

    Raises ConfigError with the names that there are.
    """
    found = _own_or_ours(name)
    if found is not None:
        return found
    if name not in sklearn.metrics.get_scorer_names():
        raise ConfigError(
            f"`metric` is {name!r}, which is neither one of {', '.join(METRICS)}, "
            f"{PINBALL}<quantile>, nor a scorer of "
            "scikit-learn, nor the dotted path of a metric of your own.",
            hint="`python -c 'import sklearn.metrics as m; print(m.get_scorer_names())'` lists the "
            "scorers",
        )
    return ScikitLearnScorer(name, task)


def _own_or_ours(name: str) -> Metric | None:
    """None for what can only be a scorer of scikit-learn, which takes long to import."""
    if name.startswith(PINBALL):
        return _pinball(name)
    return METRICS.get(name) or (_own_metric(name) if "." in name else None)


def _pinball(name: str) -> Pinball:
    try:
        quantile = float(name.removeprefix(PINBALL))
    except ValueError:
        quantile = math.nan
    if not 0 < quantile < 1:
        raise ConfigError(f"`metric` is {name!r}, but must be {PINBALL}<quantile between 0 and 1>.")
    return Pinball(quantile)


def _own_metric(path: str) -> Metric:
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"`metric` is {path!r}, which can't be imported: {error}.") from error
    try:
        metric = found() if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(f"`metric` is {path!r}, which can't be built: {error}.") from error
    if not isinstance(metric, Metric):
        raise ConfigError(f"`metric` is {path!r}, which is no retrain.Metric.")
    return metric


def find_row_loss(name: str) -> Callable[[Array, Array], Array]:
    """The function that gives the loss of each row. Raises ConfigError for a metric that has
    none."""
    metric = _own_or_ours(name)
    if not isinstance(metric, RowLoss):
        known = ", ".join(name for name, metric in METRICS.items() if isinstance(metric, RowLoss))
        raise ConfigError(
            f"`metric` is {name!r}, but must be a loss of single rows: {known}, {PINBALL}<quantile "
            "between 0 and 1>, or a "
            "retrain.RowLoss of your own."
        )
    return metric.rows


def fits_task(name: str, task: Task) -> bool:
    """Whether a metric means anything for a task. Of one that nobody knows, `find_metric` has more
    to say: yes."""
    try:
        return find_metric(name, task).fits(task)
    except ConfigError:
        return True


def lower_is_better(name: str) -> bool:
    """Whether less of a metric is better. Of scikit-learn's scorers, more always is."""
    found = _own_or_ours(name)
    return found is not None and found.lower_is_better


def row_loss_for(metric: str, task: Task) -> str:
    """The loss of single rows that stands in for a metric where parts of the rows are compared:
    itself, if it is one."""
    if isinstance(_own_or_ours(metric), RowLoss):
        return metric
    return "mse" if task is Task.regression else "log_loss"


def monitoring_loss(metric: str, task: Task) -> str:
    """The loss that a model is watched by over time: RMSE itself, of all others `row_loss_for`."""
    return metric if metric == "rmse" else row_loss_for(metric, task)


def shown_metrics(task: Task, also: Iterable[str] = ()) -> list[str]:
    """Names of the metrics to measure: those of the task, and those asked for as far as they fit
    it."""
    return list(dict.fromkeys([*SHOWN[task], *(name for name in also if fits_task(name, task))]))


def baseline_score(target: Array, metric: str, task: Task, classes: int) -> NDArray[np.float64]:
    """The best constant prediction for rows with this target.

    Shape () for binary and regression; for multiclass the shares of the classes, shape (classes,).
    """
    if task is Task.multiclass:
        return np.bincount(target.astype(np.int64), minlength=classes) / len(target)
    return np.asarray((_own_or_ours(metric) or Metric()).best_constant(target), dtype=np.float64)


def top_label(target: Array, score: Array) -> tuple[Array, Array]:
    """Whether the most probable class is the right one, and its probability; as they are with two
    classes."""
    if score.ndim == 1:
        return target, score
    return (score.argmax(axis=1) == target).astype(np.float64), score.max(axis=1)


def _other_class_below(score: Array, positive: Array, blocks: Array | None = None) -> Array:
    """For each row the number of rows of the other class that score lower, ties count half: float64
    of shape (rows,).

    The rows are sorted by `score`; with `blocks` by block and then score, and only rows of the same
    block count.
    """
    first = np.r_[True, score[1:] != score[:-1]]
    if blocks is not None:
        first[1:] |= blocks[1:] != blocks[:-1]
    starts = np.flatnonzero(first)
    positives = np.add.reduceat(positive, starts, dtype=np.float64)
    negatives = np.diff(np.r_[starts, len(score)]) - positives
    positives_below, negatives_below = (
        np.cumsum(positives) - positives / 2,
        np.cumsum(negatives) - negatives / 2,
    )
    if blocks is not None:
        opens = np.flatnonzero(np.r_[True, blocks[starts][1:] != blocks[starts][:-1]])
        lengths = np.diff(np.r_[opens, len(starts)])
        positives_below -= np.repeat((np.cumsum(positives) - positives)[opens], lengths)
        negatives_below -= np.repeat((np.cumsum(negatives) - negatives)[opens], lengths)
    group = np.cumsum(first) - 1
    below: Array = np.where(positive, negatives_below[group], positives_below[group])
    return below


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
