"""Can whole rows of two batches be told apart? A classifier finds changes in how features go together, which none shows alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType
from retrain.data.profiles import to_comparable
from retrain.monitoring.drift import Pair

FEWEST_ROWS = 4  # of a sample: two for each of the two folds


def separate(
    one: pl.DataFrame, other: pl.DataFrame, features: Mapping[str, ColumnType], time: str
) -> Pair:
    """2 AUC - 1 of a small boosted classifier that tells two samples apart, on rows that it was not trained on; 0 for no better
    than chance (a classifier two-sample test; Lopez-Paz and Oquab 2017). Samples that are too small, or share no column with
    a value, can't be told apart: 0 as well."""
    # The variance of the AUC of two samples from one distribution (Mann and Whitney 1947).
    chance = (len(one) + len(other) + 1) / (12 * max(1, len(one)) * max(1, len(other)))
    if min(len(one), len(other)) < FEWEST_ROWS:
        return Pair(0.0, 4 * chance)
    names = [name for name in features if name in one.columns and name in other.columns]
    shown = list(dict.fromkeys([time, *names]))
    rows = pl.concat([one.select(shown), other.select(shown)], how="vertical_relaxed")
    encoded = _encode(rows, {name: features[name] for name in names}, time)
    label = np.repeat([0, 1], [len(one), len(other)])
    fold = np.concatenate([np.arange(len(one)) % 2, np.arange(len(other)) % 2])
    gini = 2 * np.mean([_auc(encoded, label, fold == number) for number in (0, 1)]) - 1
    return Pair(max(0.0, float(gini)), 4 * chance)


def _auc(encoded: NDArray, label: NDArray, training: NDArray) -> float:
    """How well a classifier of the rows `training`, a mask, tells the others apart; .5 where it has nothing to learn from."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    # Boosting can't bin a column without any value ("window shape cannot be larger than input array shape").
    filled = np.isfinite(encoded[training]).any(axis=0)
    if not filled.any():
        return 0.5
    encoded = encoded[:, filled]
    # For so few rows threads cost more than they bring, beside busy neighbours most of the time.
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(
            max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=0
        )
        model.fit(encoded[training], label[training])
        scores = model.predict_proba(encoded[~training])[:, 1]
    return float(roc_auc_score(label[~training], scores))


def _encode(rows: pl.DataFrame, features: Mapping[str, ColumnType], time: str) -> NDArray:
    """Numbers, or the ranks of levels; float64 of shape (rows, features). What is missing or infinite is NaN."""
    encoded = np.full((len(rows), len(features)), np.nan)
    for number, (name, kind) in enumerate(features.items()):
        values = to_comparable(rows, name, kind, time)
        if values.dtype not in (pl.String, pl.Null):
            encoded[:, number] = values.cast(pl.Float64).to_numpy()
        elif values.dtype == pl.String:
            encoded[:, number] = values.rank("dense").cast(pl.Float64).to_numpy()
    encoded[~np.isfinite(encoded)] = np.nan
    return encoded
