"""Transformers that scikit-learn lacks. This file travels with each model that holds one of its
classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction import FeatureHasher
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

if TYPE_CHECKING:
    from retrain.models.block_sums import Array


PARTS = ("days_since_1970", "year", "month", "day", "weekday", "hour")


def _checked(transformer: BaseEstimator, X: Any, fitting: bool) -> Any:
    """The frame, or anything else as an array of two dimensions; as many columns, of the same
    names, as in `fit`."""
    if not hasattr(X, "columns"):
        X = check_array(X, dtype=None, ensure_all_finite="allow-nan")
    elif fitting and not len(X):
        raise ValueError(
            f"Found array with 0 sample(s) while {type(transformer).__name__} needs at least one."
        )
    # Earlier versions kept no names, and scikit-learn warns of names that it can't compare.
    named = fitting or hasattr(transformer, "feature_names_in_")
    validate_data(transformer, X if named else np.asarray(X), reset=fitting, skip_check_array=True)
    return X


class DateParts(TransformerMixin, BaseEstimator):
    """Dates and times to float64 of shape (rows, 6 a column): days since 1970, year, month, day,
    weekday (Monday is 0) and hour; NaN where the date is missing."""

    def fit(self, X: pd.DataFrame, y: None = None) -> Self:
        _checked(self, X, fitting=True)
        return self

    def transform(self, X: pd.DataFrame) -> Array:
        check_is_fitted(self, "n_features_in_")
        frame = pd.DataFrame(_checked(self, X, fitting=False))
        parts = []
        for name in frame.columns:
            times = pd.to_datetime(frame[name])
            known = times.notna().to_numpy()
            values = times.dt
            days = (times - pd.Timestamp(0)) / pd.Timedelta(days=1)
            for part in (days, values.year, values.month, values.day, values.weekday, values.hour):
                parts.append(
                    np.where(known, part.to_numpy(dtype=np.float64, na_value=np.nan), np.nan)
                )
        return np.column_stack(parts)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        names = _check_feature_names_in(self, input_features)
        return np.array([f"{name}_{part}" for name in names for part in PARTS], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True  # a missing date
        return tags


class SparsePairs(TransformerMixin, BaseEstimator):
    """One column of texts like `gene_17:2.5 gene_40:1` to a sparse matrix of shape (rows,
    n_columns), float64.

    Names are hashed to columns (Weinberger et al. 2009, "Feature hashing for large scale multitask
    learning"): new ones need no new columns. What a row does not name is 0, and a missing text
    names nothing.
    """

    def __init__(self, n_columns: int = 2**18) -> None:
        self.n_columns = n_columns

    def fit(self, X: pd.DataFrame, y: None = None) -> Self:
        _checked(self, X, fitting=True)
        return self

    def transform(self, X: pd.DataFrame) -> csr_matrix:
        check_is_fitted(self, "n_features_in_")
        texts = np.asarray(_checked(self, X, fitting=False), dtype=object).ravel()
        rows = (text.split() if isinstance(text, str) else () for text in texts)
        pairs = (
            [(name, float(value)) for name, _, value in (pair.rpartition(":") for pair in row)]
            for row in rows
        )
        return FeatureHasher(self.n_columns, input_type="pair").transform(pairs)

    def get_feature_names_out(self, input_features: None = None) -> Array:
        return np.array([f"hashed_{number}" for number in range(self.n_columns)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True  # a missing text
        return tags
