"""Can whole rows of two batches be told apart? A classifier finds changes in how features go
together, which none shows alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType, Config, feature_types
from retrain.data.profiles import to_comparable
from retrain.lazy import sklearn, threadpoolctl
from retrain.monitoring.cache import Cache
from retrain.monitoring.drift import Pair

FEWEST_ROWS = 4  # of a sample: two for each of the two folds


def separate_once(
    config: Config,
    samples: Callable[[], tuple[pl.DataFrame, pl.DataFrame]],
    names: tuple[str, str],
    cache: Cache,
) -> Pair:
    """Whether the samples of a later and an earlier batch can be told apart; remembered by the
    `names` of their contents."""
    features = feature_types(config)
    key = hashlib.sha256(f"{sorted(features)} {names[0]} {names[1]}".encode()).hexdigest()[:16]

    def fresh() -> list[float]:
        later, earlier = samples()
        pair = separate(earlier, later, features, config.data.time_column)
        return [pair.distance, pair.noise]

    return Pair(*cache.get(f"rows {key}", fresh))


def separate(
    one: pl.DataFrame, other: pl.DataFrame, features: Mapping[str, ColumnType], time: str
) -> Pair:
    """2 AUC - 1 of a small boosted classifier that tells two samples apart, on rows that it was not
    trained on; 0 for no better than chance (a classifier two-sample test; Lopez-Paz and Oquab
    2017). Samples that are too small, or share no column with a value, can't be told apart: 0 as
    well."""
    # The variance of the AUC of two samples from one distribution (Mann and Whitney 1947).
    chance = (len(one) + len(other) + 1) / (12 * max(1, len(one)) * max(1, len(other)))
    if min(len(one), len(other)) < FEWEST_ROWS:
        return Pair(0.0, 4 * chance)
    shared = {
        name: kind
        for name, kind in features.items()
        if name in one.columns and name in other.columns
    }
    columns = list(dict.fromkeys([time, *shared]))
    rows = pl.concat([one.select(columns), other.select(columns)], how="vertical_relaxed")
    encoded = _encode(rows, shared, time)
    label = np.repeat([0, 1], [len(one), len(other)])
    fold = np.concatenate([np.arange(len(one)) % 2, np.arange(len(other)) % 2])
    gini = 2 * np.mean([_auc(encoded, label, fold == number) for number in (0, 1)]) - 1
    return Pair(max(0.0, float(gini)), 4 * chance)


def _auc(encoded: NDArray[Any], label: NDArray[Any], training: NDArray[Any]) -> float:
    """How well a classifier of the rows `training`, a mask, tells the others apart; .5 where it has
    no value to go by."""
    # Boosting can't bin a column without any value.
    encoded = encoded[:, np.isfinite(encoded[training]).any(axis=0)]
    if not encoded.shape[1]:
        return 0.5
    # For so few rows threads cost more than they bring, beside busy neighbours most of the time.
    with threadpoolctl.threadpool_limits(1):
        model = sklearn.ensemble.HistGradientBoostingClassifier(
            max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=0
        )
        model.fit(encoded[training], label[training])
        scores = model.predict_proba(encoded[~training])[:, 1]
    return float(sklearn.metrics.roc_auc_score(label[~training], scores))


def _encode(rows: pl.DataFrame, features: Mapping[str, ColumnType], time: str) -> NDArray[Any]:
    """Numbers, or the ranks of levels; float64 of shape (rows, features). What is missing or
    infinite is NaN."""
    encoded = np.full((len(rows), len(features)), np.nan)
    for number, (name, kind) in enumerate(features.items()):
        values = to_comparable(rows, name, kind, time)
        if values.dtype == pl.String:
            values = values.rank("dense")
        encoded[:, number] = values.cast(pl.Float64).to_numpy()
    encoded[~np.isfinite(encoded)] = np.nan
    return encoded
