"""Transformers that scikit-learn lacks. A model that uses one needs this package where it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

PARTS = ("days_since_1970", "year", "month", "day", "weekday", "hour")


class DateParts(TransformerMixin, BaseEstimator):
    """Dates and times to float64 of shape (rows, 6 a column): days since 1970, year, month, day, weekday (Monday is 0) and
    hour; NaN where the date is missing."""

    def fit(self, X: pd.DataFrame, y: None = None) -> DateParts:
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        import pandas as pd

        parts = []
        for name in X.columns:
            times = pd.to_datetime(X[name])
            known = times.notna().to_numpy()
            values = times.dt
            days = (times - pd.Timestamp(0)) / pd.Timedelta(days=1)
            for part in (days, values.year, values.month, values.day, values.weekday, values.hour):
                parts.append(np.where(known, part.to_numpy(dtype=np.float64, na_value=np.nan), np.nan))
        return np.column_stack(parts)

    def get_feature_names_out(self, input_features: None = None) -> np.ndarray:
        return np.array([f"{name}_{part}" for name in self.feature_names_in_ for part in PARTS], dtype=object)


class SparsePairs(TransformerMixin, BaseEstimator):
    """One column of texts like `gene_17:2.5 gene_40:1` to a sparse matrix of shape (rows, n_columns), float64.

    Names are hashed to columns (Weinberger et al. 2009, "Feature hashing for large scale multitask learning"): new ones
    need no new columns. What a row does not name is 0, and a missing text names nothing.
    """

    def __init__(self, n_columns: int = 2**18) -> None:
        self.n_columns = n_columns

    def fit(self, X: pd.DataFrame, y: None = None) -> SparsePairs:
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> csr_matrix:
        from sklearn.feature_extraction import FeatureHasher

        texts = np.asarray(X, dtype=object).ravel()
        rows = (text.split() if isinstance(text, str) else () for text in texts)
        pairs = ([(name, float(value)) for name, _, value in (pair.rpartition(":") for pair in row)] for row in rows)
        return FeatureHasher(self.n_columns, input_type="pair").transform(pairs)

    def get_feature_names_out(self, input_features: None = None) -> np.ndarray:
        return np.array([f"hashed_{number}" for number in range(self.n_columns)], dtype=object)
