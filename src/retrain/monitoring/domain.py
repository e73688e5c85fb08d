"""Can whole rows of two batches be told apart? A classifier finds changes in how features go together, which none shows alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType
from retrain.data.summary import to_comparable
from retrain.monitoring.drift import Pair


def separate(one: pl.DataFrame, other: pl.DataFrame, features: Mapping[str, ColumnType], time: str) -> Pair:
    """2 AUC - 1 of a small boosted classifier that tells two samples apart, on rows that it was not trained on; 0 for no better
    than chance (a classifier two-sample test; Lopez-Paz and Oquab 2017)."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    names = [name for name in features if name in one.columns and name in other.columns]
    columns = list(dict.fromkeys([time, *names]))  # the time itself may be a feature
    rows = pl.concat([one.select(columns), other.select(columns)], how="vertical_relaxed")
    encoded = _encode(rows, {name: features[name] for name in names}, time)
    label = np.repeat([0, 1], [len(one), len(other)])
    fold = np.concatenate([np.arange(len(one)) % 2, np.arange(len(other)) % 2])
    scores = np.zeros(len(rows))
    with threadpool_limits(
        1
    ):  # for so few rows threads cost more than they bring, beside busy neighbours most of the time
        for number in (0, 1):
            model = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=0)
            model.fit(encoded[fold == number], label[fold == number])
            scores[fold != number] = model.predict_proba(encoded[fold != number])[:, 1]
    gini = 2 * np.mean([roc_auc_score(label[fold == number], scores[fold == number]) for number in (0, 1)]) - 1
    # The variance of the AUC of two samples from one distribution (Mann and Whitney 1947).
    chance = (len(rows) + 1) / (12 * max(1, len(one)) * max(1, len(other)))
    return Pair(max(0.0, float(gini)), 4 * chance)


def _encode(rows: pl.DataFrame, features: Mapping[str, ColumnType], time: str) -> NDArray:
    columns = []
    for name, kind in features.items():
        values = to_comparable(rows, name, kind, time)
        codes = values.rank("dense") if values.dtype == pl.String else values
        columns.append(codes.cast(pl.Float64).to_numpy())
    return np.column_stack(columns)
