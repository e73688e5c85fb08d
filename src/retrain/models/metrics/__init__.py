"""The metrics that there are, by name. Beside this file, each kind in a module of its own."""

from __future__ import annotations

import functools
import math
import pkgutil
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import ConfigError
from retrain.lazy import sklearn
from retrain.models.block_sums import Array
from retrain.models.metric import Metric, RowLoss
from retrain.models.metrics.probability import (
    Brier,
    CalibrationError,
    LogLoss,
    MacroF1,
)
from retrain.models.metrics.ranking import RocAuc
from retrain.models.metrics.regression import (
    AbsoluteError,
    Determination,
    Pinball,
    RootMeanSquaredError,
    SquaredError,
)
from retrain.models.metrics.scorers import ScikitLearnScorer

PINBALL = "pinball_"  # followed by the quantile: pinball_0.9
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
