"""Encodings of raw columns, chosen by a model's YAML. Each copes with unseen levels and missing values at prediction.

Only scikit-learn's own transformers are used: a stored model then loads without any code of this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer


def ordinal(
    categorical: list[str], numeric: list[str], maximum_levels: int, missing_value: float | None = None
) -> ColumnTransformer:
    """Categories as codes, most frequent `maximum_levels` apart and the rest together; numbers as they are.

    Output is float64 of shape (rows, len(categorical) + len(numeric)), categories first. Unseen and missing categories
    become `missing_value`, NaN by default. For trees.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    missing = np.nan if missing_value is None else missing_value
    encoder = OrdinalEncoder(
        max_categories=maximum_levels,
        handle_unknown="use_encoded_value",
        unknown_value=missing,
        encoded_missing_value=missing,
    )
    return ColumnTransformer([("categorical", encoder, categorical), ("numeric", "passthrough", numeric)])


def one_hot(categorical: list[str], numeric: list[str], minimum_frequency: int) -> ColumnTransformer:
    """A column for each level seen `minimum_frequency` times, one for all rarer and unseen ones; numbers standardized.

    Missing numbers become the median, with a column that says so. For linear models.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    # A missing category is NaN in a file and None in a request to a server; both must be the same level.
    categories = Pipeline(
        [
            ("nan", SimpleImputer(missing_values=np.nan, strategy="constant", fill_value="missing")),
            ("none", SimpleImputer(missing_values=None, strategy="constant", fill_value="missing")),
            ("encode", OneHotEncoder(min_frequency=minimum_frequency, handle_unknown="infrequent_if_exist")),
        ]
    )
    numbers = Pipeline([("impute", SimpleImputer(strategy="median", add_indicator=True)), ("scale", StandardScaler())])
    return ColumnTransformer([("categorical", categories, categorical), ("numeric", numbers, numeric)])
