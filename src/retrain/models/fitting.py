"""From config to a scikit-learn Pipeline, and from batches to what it is fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retrain.config import ColumnType, Config, Task, feature_types, instantiate
from retrain.data.reading.conversions import DTYPES
from retrain.errors import ConfigError, ModelError, RetrainError
from retrain.lazy import pandas as pd
from retrain.lazy import sklearn, threadpoolctl
from retrain.models.block_sums import Array
from retrain.models.iterations import can_choose, choose_iterations, few_rows
from retrain.models.parameters import check_part

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Sums over rows are split by thread in BLAS, and so differ in the last bit with the number of
# cores.
BLAS_THREADS = 1


def build_pipeline(config: Config) -> Pipeline:
    """An unfitted Pipeline `preprocessing -> estimator` with the configured seed.

    Raises ConfigError naming the key when a `_target_` can't be built from its arguments.
    """
    columns = columns_by_type(feature_types(config))
    preprocessing = instantiate(config.model.preprocessing, "model.preprocessing", **columns)
    estimator = instantiate(config.model.estimator, "model.estimator")
    check_part(preprocessing, "model.preprocessing", ("fit", "transform"))
    check_part(estimator, "model.estimator", ("fit", "predict"))
    given = config.model.estimator
    parameters = estimator.get_params(deep=False)
    if "categorical_features" in parameters and "categorical_features" not in given:
        estimator.set_params(categorical_features=_codes(preprocessing, columns["categorical"]))
    _check_estimator(config, estimator)
    pipeline = sklearn.pipeline.Pipeline(
        [("preprocessing", preprocessing), ("estimator", estimator)]
    )
    unseeded = [
        name
        for name, value in pipeline.get_params().items()
        if name.endswith("random_state") and value is None
    ]
    return pipeline.set_params(**dict.fromkeys(unseeded, config.seed))


def _codes(preprocessing: Any, categorical: Sequence[str]) -> list[int] | None:
    """Which of the encoded columns are codes of categories: the first ones, None where none is.

    Raises ConfigError where they stand elsewhere: boosting would take numbers for categories.
    """
    if not categorical:
        return None
    steps = getattr(preprocessing, "transformers", [])
    coded = [place for place, (_, encoder, _) in enumerate(steps) if _gives_codes(encoder)]
    if steps and not coded:
        return None
    if coded != [0] or list(steps[0][2]) != list(categorical):
        raise ConfigError(
            "`model.preprocessing` doesn't begin with the codes of all categorical columns, so "
            "`model.estimator` can't know which columns are categories.",
            hint="put the step `categorical` first in the function that `model.preprocessing` "
            "names, or name the places under `model.estimator.categorical_features`",
        )
    return list(range(len(categorical)))


def _gives_codes(encoder: Any) -> bool:
    last = encoder.steps[-1][1] if hasattr(encoder, "steps") else encoder
    return isinstance(last, sklearn.preprocessing.OrdinalEncoder)


def _check_estimator(config: Config, estimator: Any) -> None:
    """Raises ConfigError for an estimator of another task, or one that can't choose its rounds."""
    named, below = config.model.estimator["_target_"], config.model.choose_iterations_below
    classifies = hasattr(estimator, "predict_proba")
    if config.data.task is Task.regression and classifies:
        raise ConfigError(
            f"`model.estimator` ({named}) is a classifier, and `data.task` is regression.",
            hint="choose another `model`, or name a regressor under `for_regression` as "
            "conf/model/hist_gradient_boosting.yaml does",
        )
    if config.data.task is not Task.regression and not classifies:
        raise ConfigError(
            f"`model.estimator` ({named}) gives no probabilities (`predict_proba`), which the "
            "comparison needs.",
            hint="choose one that does, or wrap it in sklearn.calibration.CalibratedClassifierCV",
        )
    if below and not can_choose(estimator):
        raise ConfigError(
            f"`model.choose_iterations_below` is {below}, but only histogram boosting of "
            f"scikit-learn can choose how often it goes on, not `model.estimator` ({named}).",
            hint="set it to 0",
        )


def columns_by_type(features: Mapping[str, ColumnType]) -> dict[str, list[str]]:
    """The names of the features by type, for a preprocessing to choose an encoding for each. Flags
    count as numbers."""
    columns: dict[str, list[str]] = {
        kind.name: [] for kind in ColumnType if kind is not ColumnType.boolean
    }
    for name, kind in features.items():
        columns["numeric" if kind is ColumnType.boolean else kind.name].append(name)
    return columns


def to_features(rows: pl.DataFrame, features: Mapping[str, ColumnType]) -> pd.DataFrame:
    """The raw columns of some features as pandas; missing values are NaN.

    Numbers and flags are float64, categories and texts strings, times datetime64[us].

    A column that the rows lack is missing in every row: that is what a model would meet in
    production. MLflow infers no signature from polars, and its servers hand a pandas frame to the
    model.
    """
    columns = []
    for name, kind in features.items():
        dtype: Any = pl.Float64 if kind is ColumnType.boolean else DTYPES[kind]
        column = pl.col(name) if name in rows.columns else pl.lit(None).alias(name)
        columns.append(column.cast(dtype))
    return rows.select(columns).to_pandas()


def to_target(rows: pl.DataFrame, config: Config) -> Array:
    """The target as scikit-learn takes it, shape (rows,): int8, 1 for positive; strings; or
    float64."""
    target = rows[config.data.target_column]
    if config.data.task is Task.multiclass:
        return target.to_numpy().astype(str)
    return target.cast(pl.Int8 if config.data.task is Task.binary else pl.Float64).to_numpy()


def to_codes(target: Array, classes: Sequence[str], task: Task) -> Array:
    """The target as metrics take it, float64 of shape (rows,): each class as its place in
    `classes`."""
    if task is not Task.multiclass:
        return target.astype(np.float64)
    return np.searchsorted(np.asarray(classes), target).astype(np.float64)


def fit(
    pipeline: Pipeline, rows: pl.DataFrame, config: Config, weights: Array | None = None
) -> Pipeline:
    """Fit on raw rows. The same rows, config and versions give the same predictions, bit for bit.

    Parameters
    ----------
    weights
        How much each row counts, shape (rows,).

    Raises
    ------
    ModelError
        If the estimator refuses its parameters or the rows, whatever it raises.
    """
    target = to_target(rows, config)
    try:
        with threadpoolctl.threadpool_limits(BLAS_THREADS, user_api="blas"):
            frame = to_features(rows, feature_types(config))
            # A column without any value would stop some estimators; a constant one changes nothing.
            for name in frame.columns[frame.isna().all()]:
                constants: dict[str, Any] = {"f": 0.0, "M": np.datetime64(0, "us")}
                frame[name] = constants.get(frame[name].dtype.kind, "missing")
            _count_levels_where_needed(pipeline, frame)
            few = few_rows(target, config.data.task is not Task.regression)
            if few < config.model.choose_iterations_below:
                times = rows[config.data.time_column].to_numpy()
                _choose_iterations(pipeline, frame, target, times, weights)
            step = pipeline.steps[-1][0]
            pipeline.fit(
                frame, target, **({} if weights is None else {f"{step}__sample_weight": weights})
            )
    except (RetrainError, MemoryError):
        raise
    except Exception as error:  # every library has its own
        why = " ".join(str(error).split()).rstrip(".")
        if not isinstance(error, (ValueError, TypeError)):
            why = f"{type(error).__name__}: {why}"
        raise ModelError(
            f"`model` ({config.model.estimator['_target_']}) can't be fitted on {len(rows):,} "
            f"rows: {why}.",
            hint="mend conf/model/ or the override",
        ) from error
    estimator = pipeline[-1]
    if "n_jobs" in inspect.signature(type(estimator)).parameters:
        # Threads add up trees in the order in which they end, so predictions would differ in the
        # last bit.
        estimator.set_params(n_jobs=None)
    return pipeline


def _choose_iterations(
    pipeline: Pipeline, frame: pd.DataFrame, target: Array, times: Array, weights: Array | None
) -> None:
    """Give the estimator as many iterations as did best on later training rows, where those can
    tell."""
    order = np.argsort(times, kind="stable")
    encoded = pipeline[:-1].fit_transform(frame, target)[order]
    weights = None if weights is None else weights[order]
    chosen = choose_iterations(pipeline[-1], encoded, target[order], times[order], weights)
    if chosen is not None:
        pipeline[-1].set_params(max_iter=chosen)


def _count_levels_where_needed(pipeline: Pipeline, frame: pd.DataFrame) -> None:
    """Take limits away that change nothing: scikit-learn's encoders count levels one by one in
    Python to find the rarest, a tenth of a whole fit, also where none has to go."""
    steps = []
    for name, encoder, columns in getattr(pipeline[0], "transformers", ()):
        limit = getattr(encoder, "max_categories", None)
        limited = limit is not None and getattr(encoder, "min_frequency", None) is None
        named = isinstance(columns, list) and set(columns) <= set(frame.columns)
        if limited and named and (frame[columns].nunique(dropna=False) <= limit).all():
            encoder = sklearn.base.clone(encoder).set_params(max_categories=None)
        steps.append((name, encoder, columns))
    if steps:
        pipeline[0].set_params(transformers=steps)


def known_classes(pipeline: Pipeline) -> list[str]:
    """The classes that a classifier was trained on, sorted as strings; empty for a regressor."""
    return sorted(str(name) for name in getattr(pipeline, "classes_", ()))


def predict(
    pipeline: Pipeline,
    rows: pl.DataFrame,
    features: Mapping[str, ColumnType],
    classes: Sequence[str] = (),
) -> Array:
    """What a model predicts for raw rows, float64.

    Parameters
    ----------
    features
        Those that it was trained on.
    classes
        Sorted labels, where there are several: what is predicted for each of them.

    Returns
    -------
    Of a regressor the values, shape (rows,). Of a classifier the probability of the
    positive class, shape (rows,), or of each of `classes`, shape (rows, classes), 0 for those that
    it does not know.

    Raises
    ------
    ModelError
        If the model can't score the rows, or a result isn't a number, or no probability.
    """
    classifies = hasattr(pipeline, "predict_proba")
    try:
        with threadpoolctl.threadpool_limits(BLAS_THREADS, user_api="blas"):
            frame = to_features(rows, features)
            result = pipeline.predict_proba(frame) if classifies else pipeline.predict(frame)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"A model can't score these rows: {error}.",
            hint="if the source no longer delivers a column that the champion was trained on, "
            "deliver it until a challenger without it has been promoted, or start over under "
            "another `tracking.registered_model`",
        ) from error
    scores = np.asarray(result, dtype=np.float64)
    if not classifies:
        if not np.isfinite(scores).all():
            raise ModelError("The model predicted values that are not finite numbers.")
        return scores
    known = [str(name) for name in pipeline.classes_]
    if classes:
        scores = np.zeros((len(rows), len(classes)))
        scores[:, [list(classes).index(name) for name in known]] = result
    elif "1" not in known or len(known) > 2:
        raise ModelError(
            f"The model predicts the classes {', '.join(known)}, and nothing says which of them to "
            "score.",
            hint="name them all, sorted: `classes=[...]`",
        )
    else:
        scores = scores[:, known.index("1")]
    if not np.all((scores >= 0) & (scores <= 1 + 1e-9)):
        raise ModelError("The model predicted probabilities that are not between 0 and 1.")
    return scores
