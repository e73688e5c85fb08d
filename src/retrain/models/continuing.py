"""Going on with a fitted model on new rows, for the estimators with which that is honest.

Several of scikit-learn's warm starts go wrong in silence on new data: histogram boosting keeps old bin indices under new
bins, forests and boosting accept other classes than before, linear models forget everything. Only what is known to work
is allowed here, and the rest is refused by name.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retrain.config import Config, Task, feature_types
from retrain.errors import ConfigError, ModelError
from retrain.models.fitting import BLAS_THREADS, build_pipeline, to_features, to_target

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from retrain.data.manifest import Batch
    from retrain.models.strategy import TrainingSet

# Their trees are added to, each new one fitted to the new rows: as averages, or on what all before it get wrong.
MORE_TREES = ("RandomForest", "ExtraTrees", "GradientBoosting")
BOOSTERS = {
    "lightgbm": "init_model",
    "xgboost": "xgb_model",
}  # package -> argument of fit that takes the earlier model
STREAMED_ROWS = 100_000


class NotContinuable(Exception):
    """The base can't be continued on these rows; the reason is for a person."""


def find_class(config: Config) -> type:
    """The configured estimator's class. Raises ConfigError when there is none of that name."""
    from hydra.utils import get_class

    name = config.model.estimator.get("_target_")
    try:
        return get_class(name)
    except Exception as error:
        raise ConfigError(
            f"`model.estimator` names {name!r}, which can't be loaded: {error}"
        ) from error


def check_continuable(config: Config) -> None:
    """Raises ConfigError, with those that can, when the configured estimator can't go on with its weights on new rows."""
    estimator = find_class(config)
    if not (
        _has_partial_fit(estimator) or _adds_trees(estimator) or _package(estimator) in BOOSTERS
    ):
        raise ConfigError(
            f"`model.estimator` ({estimator.__name__}) can't honestly be continued on new rows. These can: estimators with partial_fit "
            f"({', '.join(_names_with_partial_fit(config.data.task))}), RandomForest, ExtraTrees, GradientBoosting, LightGBM and XGBoost. "
            "`strategy=residual` adds a correction to any model, `strategy=full` trains it anew."
        )


def check_streamable(config: Config) -> None:
    """Raises ConfigError, with those that can, when the configured estimator can't learn from one part after the other."""
    estimator = find_class(config)
    if not _has_partial_fit(estimator):
        raise ConfigError(
            f"`model.estimator` ({estimator.__name__}) needs all its rows at once. These learn from a stream: "
            f"{', '.join(_names_with_partial_fit(config.data.task))}, such as `model=sgd`."
        )


def _package(estimator: type) -> str:
    return estimator.__module__.split(".")[0]


def _has_partial_fit(estimator: type) -> bool:
    return hasattr(estimator, "partial_fit")


def _adds_trees(estimator: type) -> bool:
    return _package(estimator) == "sklearn" and estimator.__name__.startswith(MORE_TREES)


def _names_with_partial_fit(task: Task) -> list[str]:
    from sklearn.utils import all_estimators

    kind = "regressor" if task is Task.regression else "classifier"
    needed = "predict" if task is Task.regression else "predict_proba"
    return [
        name
        for name, found in all_estimators(kind)
        if _has_partial_fit(found) and hasattr(found, needed)
    ]


def unknown_classes(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> list[str]:
    """Classes among the rows that the model was not trained on."""
    if config.data.task is Task.regression:
        return []
    known = {str(name) for name in pipeline.classes_}
    return sorted({str(name) for name in np.unique(to_target(rows, config))} - known)


def continue_fit(
    pipeline: Pipeline, rows: pl.DataFrame, config: Config, passes: int, trees: int
) -> Pipeline:
    """A copy of the pipeline whose estimator has gone on with its weights on the rows; its encoding stays as it is.

    Raises NotContinuable when classes are missing among the rows that trees can't be added without, ModelError when the
    estimator refuses the rows.
    """
    from threadpoolctl import threadpool_limits

    continued = copy.deepcopy(pipeline)
    target = to_target(rows, config)
    encoded = continued[:-1].transform(to_features(rows, feature_types(config)))
    kind = type(continued[-1])
    if not _has_partial_fit(kind) and config.data.task is not Task.regression:
        missing = sorted(
            {str(name) for name in continued.classes_} - {str(name) for name in np.unique(target)}
        )
        if missing:
            raise NotContinuable(
                f"class {', '.join(missing)} is missing among the new rows, and {kind.__name__} needs all"
            )
    try:
        with threadpool_limits(BLAS_THREADS, user_api="blas"):
            estimator = _continue_estimator(continued[-1], encoded, target, passes, trees)
    except (ValueError, TypeError) as error:
        raise ModelError(f"`model` can't be continued on {len(rows):,} rows: {error}") from error
    continued.steps[-1] = (continued.steps[-1][0], estimator)
    return continued


def _continue_estimator(
    estimator: Any, encoded: Any, target: np.ndarray, passes: int, trees: int
) -> Any:
    kind = type(estimator)
    if _has_partial_fit(kind):
        for _ in range(passes):
            estimator.partial_fit(encoded, target)
        return estimator
    if _package(kind) in BOOSTERS:
        from sklearn.base import clone

        earlier = estimator.booster_ if _package(kind) == "lightgbm" else estimator.get_booster()
        more = clone(estimator).set_params(n_estimators=trees)
        return more.fit(encoded, target, **{BOOSTERS[_package(kind)]: earlier})
    estimator.set_params(warm_start=True, n_estimators=len(estimator.estimators_) + trees)
    estimator.fit(encoded, target)
    return estimator.set_params(warm_start=False)


def recalibrate(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> Pipeline:
    """The same model with its probabilities scaled anew (sigmoid of the scores; Platt 1999) on the rows.

    A model that was recalibrated before is unwrapped first: calibrators don't pile up.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline

    inner = pipeline[-1]
    if isinstance(inner, CalibratedClassifierCV) and isinstance(inner.estimator, FrozenEstimator):
        inner = inner.estimator.estimator
    target = to_target(rows, config)
    names, counts = np.unique(target, return_counts=True)
    enough = {str(name) for name, count in zip(names, counts, strict=True) if count > 1}
    missing = sorted({str(name) for name in inner.classes_} - enough)
    if missing:
        raise NotContinuable(
            f"class {', '.join(missing)} is all but missing among the new rows, and calibration needs all"
        )
    encoded = pipeline[:-1].transform(to_features(rows, feature_types(config)))
    calibrated = CalibratedClassifierCV(
        FrozenEstimator(inner), method="sigmoid", cv=2, ensemble=False
    )
    return Pipeline(
        [*pipeline.steps[:-1], (pipeline.steps[-1][0], calibrated.fit(encoded, target))]
    )


def stream(training_set: TrainingSet, passes: int, encoding_rows: int) -> tuple[Pipeline, int]:
    """A new pipeline, fitted on one part of the lesson after the other, and the number of its rows.

    Memory is that of the largest batch. The encoding is fitted on the newest batches that hold `encoding_rows` rows.
    """
    from threadpoolctl import threadpool_limits

    config = training_set.config
    pipeline = build_pipeline(config)
    newest: list[Batch] = []
    for batch in reversed(training_set.batches):
        newest.insert(0, batch)
        if sum(other.rows for other in newest) >= encoding_rows:
            break
    sample = pl.concat(list(training_set.holding(newest).parts()), how="diagonal_relaxed").tail(
        encoding_rows
    )
    pipeline[:-1].fit(to_features(sample, feature_types(config)), to_target(sample, config))
    del sample
    arguments = (
        {} if config.data.task is Task.regression else {"classes": _all_classes(training_set)}
    )
    total = 0
    for number in range(passes):
        for part in training_set.parts():
            total += len(part) if not number else 0
            for rows in part.iter_slices(STREAMED_ROWS):
                encoded = pipeline[:-1].transform(to_features(rows, feature_types(config)))
                with threadpool_limits(BLAS_THREADS, user_api="blas"):
                    pipeline[-1].partial_fit(encoded, to_target(rows, config), **arguments)
                arguments = {}
    return pipeline, total


def _all_classes(training_set: TrainingSet) -> np.ndarray:
    """Every class of the lesson's batches, from the manifest: `partial_fit` wants them all at its first call."""
    if training_set.config.data.task is Task.binary:
        return np.array([0, 1], dtype=np.int8)
    return np.array(sorted({name for batch in training_set.batches for name in batch.classes}))
