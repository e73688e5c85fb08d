"""Continuing a fitted model on new rows, for the estimators with which that is honest.

Several of scikit-learn's warm starts go wrong in silence on new data: histogram boosting keeps old
bin indices under new bins, forests and boosting accept other classes than before, linear models
forget everything. Only what is known to work is allowed here, and the rest is refused by name.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retrain.config import Config, Task, feature_types
from retrain.errors import ConfigError, ModelError
from retrain.lazy import hydra, sklearn, threadpoolctl
from retrain.models.block_sums import Array
from retrain.models.fitting import BLAS_THREADS, build_pipeline, to_features, to_target
from retrain.targets import allowed

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from retrain.models.training_set import TrainingSet

# Their trees are added to, each new one fitted to the new rows: as averages, or on what all before
# it get wrong.
MORE_TREES = ("RandomForest", "ExtraTrees", "GradientBoosting")
# By package, the argument of fit that takes the earlier model.
BOOSTERS = {"lightgbm": "init_model", "xgboost": "xgb_model"}
STREAMED_ROWS = 100_000
PARTIAL_FIT = (
    "those with `partial_fit` (SGDClassifier, MLPClassifier, SGDRegressor, MLPRegressor, ...)"
)


class NotContinuable(Exception):
    """The base can't be continued on these rows; the reason is for a person."""


def find_class(config: Config) -> type:
    """The configured estimator's class. Raises ConfigError when there is none of that name."""
    name = config.model.estimator.get("_target_")
    allowed(config.model.estimator, "model.estimator")
    try:
        return hydra.utils.get_class(str(name))
    except Exception as error:
        raise ConfigError(
            f"`model.estimator` names {name!r}, which can't be loaded: {error}"
        ) from error


def check_continuable(config: Config) -> None:
    """Raises ConfigError when the configured estimator can't go on with its weights on new rows."""
    estimator = find_class(config)
    trees = _package(estimator) == "sklearn" and estimator.__name__.startswith(MORE_TREES)
    if not (trees or hasattr(estimator, "partial_fit") or _package(estimator) in BOOSTERS):
        raise ConfigError(
            f"`model.estimator` ({estimator.__name__}) can't honestly be continued on new rows. "
            f"These can: {PARTIAL_FIT}, RandomForest, ExtraTrees, GradientBoosting, LightGBM and "
            "XGBoost.",
            hint="`strategy=residual` adds a correction to any model, `strategy=full` trains it "
            "anew",
        )


def check_streamable(config: Config) -> None:
    """Raises ConfigError when the configured estimator can't be fitted on one part after
    another."""
    estimator = find_class(config)
    if not hasattr(estimator, "partial_fit"):
        raise ConfigError(
            f"`model.estimator` ({estimator.__name__}) needs all its rows at once. These train on "
            f"a stream: {PARTIAL_FIT}.",
            hint="choose one, such as `model=sgd`",
        )


def _package(estimator: type) -> str:
    return estimator.__module__.split(".")[0]


def unknown_classes(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> list[str]:
    """Classes among the rows that the model was not trained on."""
    if config.data.task is Task.regression:
        return []
    known = {str(name) for name in pipeline.classes_}
    return sorted({str(name) for name in np.unique(to_target(rows, config))} - known)


def continue_fit(
    pipeline: Pipeline,
    rows: pl.DataFrame,
    config: Config,
    passes: int,
    trees: int,
) -> Pipeline:
    """A copy of the pipeline whose estimator has gone on with its weights on the rows; its encoding
    stays as it is.

    Raises
    ------
    NotContinuable
        If classes are missing among the rows that trees can't be added without.
    ModelError
        If the estimator refuses the rows.
    """
    continued, target = copy.deepcopy(pipeline), to_target(rows, config)
    encoded = continued[:-1].transform(to_features(rows, feature_types(config)))
    kind = type(continued[-1])
    if not hasattr(kind, "partial_fit") and config.data.task is not Task.regression:
        _need_all(continued, target, 1, f"is missing among the new rows, and {kind.__name__}")
    try:
        with threadpoolctl.threadpool_limits(BLAS_THREADS, user_api="blas"):
            estimator = _continue_estimator(continued[-1], encoded, target, passes, trees)
    except (ValueError, TypeError) as error:
        raise ModelError(f"`model` can't be continued on {len(rows):,} rows: {error}") from error
    continued.steps[-1] = (continued.steps[-1][0], estimator)
    return continued


def _need_all(model: Any, target: Array, rows: int, why: str) -> None:
    """Raises NotContinuable when the target holds fewer rows than that of some class."""
    names, counts = np.unique(target, return_counts=True)
    enough = {str(name) for name, count in zip(names, counts, strict=True) if count >= rows}
    missing = sorted({str(name) for name in model.classes_} - enough)
    if missing:
        raise NotContinuable(f"class {', '.join(missing)} {why} needs all")


def _continue_estimator(
    estimator: Any, encoded: Any, target: Array, passes: int, trees: int
) -> Any:
    package = _package(type(estimator))
    if hasattr(estimator, "partial_fit"):
        for _ in range(passes):
            estimator.partial_fit(encoded, target)
        return estimator
    if package in BOOSTERS:
        earlier = estimator.booster_ if package == "lightgbm" else estimator.get_booster()
        more = sklearn.base.clone(estimator).set_params(n_estimators=trees)
        more.fit(encoded, target, **{BOOSTERS[package]: earlier})
        return copy.deepcopy(
            more
        )  # LightGBM's keeps a handle on the earlier one, which none can store
    estimator.set_params(warm_start=True, n_estimators=len(estimator.estimators_) + trees)
    estimator.fit(encoded, target)
    return estimator.set_params(warm_start=False)


def recalibrate(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> Pipeline:
    """The same model with its probabilities scaled anew on the rows (sigmoid of the scores).

    A model that was recalibrated before is unwrapped first: calibrators don't pile up.
    """
    calibrated, frozen = sklearn.calibration.CalibratedClassifierCV, sklearn.frozen.FrozenEstimator
    inner = pipeline[-1]
    if isinstance(inner, calibrated) and isinstance(inner.estimator, frozen):
        inner = inner.estimator.estimator
    target = to_target(rows, config)
    _need_all(inner, target, 2, "is all but missing among the new rows, and calibration")
    encoded = pipeline[:-1].transform(to_features(rows, feature_types(config)))
    estimator = calibrated(frozen(inner), method="sigmoid", cv=2, ensemble=False)
    return with_estimator(pipeline, estimator.fit(encoded, target))


def with_estimator(pipeline: Pipeline, estimator: Any) -> Pipeline:
    """A Pipeline of the same encoding and another estimator."""
    return sklearn.pipeline.Pipeline([*pipeline.steps[:-1], (pipeline.steps[-1][0], estimator)])


def stream(training_set: TrainingSet, passes: int, encoding_rows: int) -> tuple[Pipeline, int]:
    """A new Pipeline, fitted on one part of the training set after another, and the number of rows.

    Memory is that of the largest batch. The encoding is fitted on the newest batches that hold
    `encoding_rows` rows.
    """
    config, features = training_set.config, feature_types(training_set.config)
    pipeline = with_encoding(training_set, encoding_rows)
    arguments = {} if config.data.task is Task.regression else {"classes": _classes(training_set)}
    total = 0
    for _ in range(passes):
        for part in training_set.parts():
            total += len(part)
            for rows in part.iter_slices(STREAMED_ROWS):
                encoded = pipeline[:-1].transform(to_features(rows, features))
                with threadpoolctl.threadpool_limits(BLAS_THREADS, user_api="blas"):
                    pipeline[-1].partial_fit(encoded, to_target(rows, config), **arguments)
                arguments = {}
    return pipeline, total // passes


def with_encoding(training_set: TrainingSet, encoding_rows: int) -> Pipeline:
    """A new Pipeline whose encoding is fitted on the newest batches that hold `encoding_rows`
    rows, and whose estimator is not."""
    config, batches = training_set.config, training_set.batches
    pipeline, features = build_pipeline(config), feature_types(config)
    first = len(batches) - 1
    while first > 0 and sum(batch.rows for batch in batches[first:]) < encoding_rows:
        first -= 1
    parts = list(training_set.holding(batches[first:]).parts())
    sample = pl.concat(parts, how="diagonal_relaxed").tail(encoding_rows)
    pipeline[:-1].fit(to_features(sample, features), to_target(sample, config))
    return pipeline


def _classes(training_set: TrainingSet) -> Array:
    """Every class of the batches, from the manifest: `partial_fit` wants all at its first call."""
    if training_set.config.data.task is Task.binary:
        return np.array([0, 1], dtype=np.int8)
    return np.array(sorted({name for batch in training_set.batches for name in batch.classes}))
