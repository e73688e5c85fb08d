"""From columns to the numbers that an estimator takes.

`model.preprocessing` in a file of conf/model/ names a function. It is given the names of the
features by type (`categorical`, `numeric`, `datetime`, `text`, `sparse`; flags count as numeric)
and the values in the YAML, and returns a scikit-learn transformer. That is stored with the model,
so training and serving compute the same. scikit-learn is imported inside the functions: every
command reads their signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import polars as pl
from annotated_types import Ge, Lt

from retrain import encodings, ranges

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from sklearn.compose import ColumnTransformer

Components = Annotated[int, Ge(1), Lt(encodings.HASHED_TEXT_COLUMNS)]


def ordinal(
    maximum_levels: Annotated[int, Ge(2)],
    missing_value: ranges.Finite | None = None,
    text_components: Components = 32,
    **columns: list[str],
) -> ColumnTransformer:
    """For trees: categories as codes, and numbers as they are. Dense float64.

    Codes come first: boosting takes the first columns for categories. Add steps of your own last.
    """
    encoders = {
        "categorical": encodings.level_codes(maximum_levels, missing_value),
        "numeric": "passthrough",
        "datetime": encodings.date_parts(),
        "text": encodings.dense_components(encodings.hashed_words(), text_components),
        "sparse": encodings.dense_components(encodings.hashed_columns(), text_components),
    }
    return encodings.combine(encoders, columns, dense=True)


def one_hot(minimum_frequency: ranges.PositiveCount, **columns: list[str]) -> ColumnTransformer:
    """For linear models and neural networks: a column a frequent level, numbers standardized."""
    return encodings.combine(_wide(minimum_frequency), columns)


def one_hot_periodic(
    minimum_frequency: ranges.PositiveCount,
    periods: dict[str, ranges.Positive],
    **columns: list[str],
) -> ColumnTransformer:
    """As `one_hot`, and a derived feature: numbers that wrap around, by the length of their period.

    `periods: {departure_minute: 1440}` puts a minute before midnight next to one after it.
    """
    from sklearn.preprocessing import FunctionTransformer

    encoders, columns = _wide(minimum_frequency), dict(columns)
    columns["numeric"] = [name for name in columns["numeric"] if name not in periods]
    for name, period in periods.items():
        encoders[f"periodic_{name}"] = FunctionTransformer(on_circle, kw_args={"period": period})
        columns[f"periodic_{name}"] = [name]
    return encodings.combine(encoders, columns)


def on_circle(values: ArrayLike, period: float) -> NDArray[np.float64]:
    """Sine and cosine of numbers of shape (rows, 1): shape (rows, 2), (0, 0) for a missing one."""
    angle = 2 * np.pi * np.asarray(values, dtype=np.float64) / period
    points: NDArray[np.float64] = np.nan_to_num(np.hstack([np.sin(angle), np.cos(angle)]))
    return points


def known_mean(
    rows: pl.DataFrame, history: pl.DataFrame, by: str, value: str, known_at: str
) -> pl.Series:
    """A feature from other rows: the mean of `value` known before, of rows with the same `by`.

    For a source's `read` and for serving alike (docs/extending.md). `known_at` is a time column of
    both: in `history` when a value became known, in `rows` when the prediction is made. Null where
    nothing was known.
    """
    known = history.filter(pl.col(value).is_not_null()).sort(known_at)
    means = known.select(
        by, known_at, (pl.col(value).cum_sum() / pl.col(value).cum_count()).over(by).alias("mean")
    )
    numbered = rows.select(by, known_at).with_row_index("row").sort(known_at)
    joined = numbered.join_asof(
        means, on=known_at, by=by, allow_exact_matches=False, check_sortedness=False
    )
    return joined.sort("row")["mean"]


def _wide(minimum_frequency: int) -> dict[str, Any]:
    return {
        "categorical": encodings.level_columns(minimum_frequency),
        "numeric": encodings.scaled_numbers(),
        "datetime": encodings.scaled_date_parts(),
        "text": encodings.hashed_words(),
        "sparse": encodings.hashed_columns(),
    }
