"""From config to a scikit-learn Pipeline, and from batches to what it is fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrain.config import ColumnType, Config, feature_types, instantiate
from retrain.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

# Sums over rows are split by thread in BLAS, and so differ in the last bit with the number of cores.
BLAS_THREADS = 1


def build_pipeline(config: Config) -> Pipeline:
    """An unfitted Pipeline `preprocessing -> estimator` with the configured seed.

    Raises ConfigError naming the key when a `_target_` can't be built from its arguments.
    """
    from sklearn.pipeline import Pipeline

    features = config.data.features
    categorical = [name for name, column in features.items() if column.type is ColumnType.categorical]
    numeric = [name for name in features if name not in categorical]
    preprocessing = instantiate(
        config.model.preprocessing, "model.preprocessing", categorical=categorical, numeric=numeric
    )
    estimator = instantiate(config.model.estimator, "model.estimator")
    given = config.model.estimator
    parameters = estimator.get_params(deep=False)
    if "categorical_features" in parameters and "categorical_features" not in given:
        # Preprocessing puts the categories first.
        estimator.set_params(categorical_features=[True] * len(categorical) + [False] * len(numeric))
    if not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"`model.estimator` ({given['_target_']}) gives no probabilities (`predict_proba`), which the comparison needs. "
            "Choose one that does, or wrap it in sklearn.calibration.CalibratedClassifierCV."
        )
    pipeline = Pipeline([("preprocessing", preprocessing), ("estimator", estimator)])
    unseeded = [
        name for name, value in pipeline.get_params().items() if name.endswith("random_state") and value is None
    ]
    return pipeline.set_params(**dict.fromkeys(unseeded, config.seed))


def to_features(rows: pl.DataFrame, features: Mapping[str, ColumnType]) -> pd.DataFrame:
    """The raw columns of some features as pandas, numbers and flags as float64, categories as strings; missing values are NaN.

    A column that the rows lack is missing in every row: that is what a model would meet in production.
    MLflow infers no signature from polars, and its servers hand a pandas frame to the model.
    """
    columns = []
    for name, kind in features.items():
        dtype = pl.String if kind is ColumnType.categorical else pl.Float64
        column = pl.col(name) if name in rows.columns else pl.lit(None).alias(name)
        columns.append(column.cast(dtype))
    return rows.select(columns).to_pandas()


def to_target(rows: pl.DataFrame, config: Config) -> np.ndarray:
    """The target as int8 of shape (rows,), 1 for positive."""
    return rows[config.data.target_column].cast(pl.Int8).to_numpy()


def fit(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> Pipeline:
    """Fit on raw rows. The same rows, config and versions give the same predictions, bit for bit.

    Raises ModelError when scikit-learn refuses the parameters or the rows.
    """
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(BLAS_THREADS, user_api="blas"):
            pipeline.fit(to_features(rows, feature_types(config)), to_target(rows, config))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"`model` can't be fitted on {len(rows):,} rows: {error} Mend conf/model/ or the override."
        ) from error
    estimator = pipeline[-1]
    if "n_jobs" in inspect.signature(type(estimator)).parameters:
        # Threads add up trees in the order in which they end, so predictions would differ in the last bit.
        estimator.set_params(n_jobs=None)
    return pipeline


def predict(pipeline: Pipeline, rows: pl.DataFrame, features: Mapping[str, ColumnType]) -> np.ndarray:
    """Probability of the positive class, float64 of shape (rows,). `features` are those that the model was trained on.

    Raises ModelError when the model can't score the rows, or a result isn't a number in [0, 1].
    """
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(BLAS_THREADS, user_api="blas"):
            probabilities = pipeline.predict_proba(to_features(rows, features))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"A model can't score these rows: {error}. If the source no longer delivers a column that the champion was trained on, "
            "deliver it until a challenger without it has been promoted, or start over under another `tracking.registered_model`."
        ) from error
    positive = list(pipeline.classes_).index(1)
    scores = np.asarray(probabilities[:, positive], dtype=np.float64)
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ModelError("The model gave probabilities that are not numbers between 0 and 1; nothing was promoted.")
    return scores
