"""Encodings of raw columns, chosen by a model's YAML. Each copes with unseen levels and missing values at prediction.

Each is given the names of the features by type (flags count as numbers), and the values in the YAML.

All but the parts of a date and packs of sparse columns are scikit-learn's own transformers: a stored model then loads without any code of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Lt

from retrain.ranges import Finite, PositiveCount

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

HASHED_TEXT_COLUMNS = 2**16


def ordinal(
    categorical: list[str],
    numeric: list[str],
    datetime: list[str],
    text: list[str],
    sparse: list[str],
    maximum_levels: Annotated[int, Ge(2)],
    missing_value: Finite | None = None,
    text_components: Annotated[int, Ge(1), Lt(HASHED_TEXT_COLUMNS)] = 32,
) -> ColumnTransformer:
    """Categories as codes, the most frequent `maximum_levels` apart and the rest together; numbers as they are. For trees.

    Output is dense float64: categories first, numbers, the parts of dates, then `text_components` for each text and each
    pack of sparse columns (a truncated SVD of its hashed words, which is latent semantic analysis, or columns). Unseen and missing categories become `missing_value`, NaN by
    default.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import TruncatedSVD
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    missing = np.nan if missing_value is None else missing_value
    encoder = OrdinalEncoder(
        max_categories=maximum_levels,
        handle_unknown="use_encoded_value",
        unknown_value=missing,
        encoded_missing_value=missing,
    )
    steps: list[tuple[str, Any, Sequence[str]]] = [
        ("categorical", encoder, categorical),
        ("numeric", "passthrough", numeric),
        *_dates(datetime),
    ]
    for kind, names, hashed in (("text", text, _hashed_words), ("sparse", sparse, _hashed_columns)):
        for name in names:
            dense = Pipeline([("hash", hashed()), ("reduce", TruncatedSVD(text_components))])
            steps.append((f"{kind}_{name}", dense, [name]))
    return ColumnTransformer([step for step in steps if step[2]], sparse_threshold=0)


def one_hot(
    categorical: list[str],
    numeric: list[str],
    datetime: list[str],
    text: list[str],
    sparse: list[str],
    minimum_frequency: PositiveCount,
) -> ColumnTransformer:
    """A column for each level seen `minimum_frequency` times, one for all rarer and unseen ones; numbers standardized.

    Missing numbers become the median, with a column that says so; texts become hashed words, weighted to unit length, packs
    of sparse columns hashed columns between -1 and 1. For linear models and neural networks; sparse where that saves memory.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    # A missing category is NaN in a file and None in a request to a server; both must be the same level.
    categories = Pipeline(
        [
            (
                "nan",
                SimpleImputer(missing_values=np.nan, strategy="constant", fill_value="missing"),
            ),
            ("none", SimpleImputer(missing_values=None, strategy="constant", fill_value="missing")),
            (
                "encode",
                OneHotEncoder(
                    min_frequency=minimum_frequency, handle_unknown="infrequent_if_exist"
                ),
            ),
        ]
    )

    def numbers() -> Pipeline:
        imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        return Pipeline([("impute", imputer), ("scale", StandardScaler())])

    steps: list[tuple[str, Any, Sequence[str]]] = [
        ("categorical", categories, categorical),
        ("numeric", numbers(), numeric),
    ]
    for name, parts, chosen in _dates(datetime):
        steps.append((name, Pipeline([("parts", parts), ("numbers", numbers())]), chosen))
    steps += [(f"text_{name}", _hashed_words(), [name]) for name in text]
    steps += [(f"sparse_{name}", _hashed_columns(), [name]) for name in sparse]
    return ColumnTransformer([step for step in steps if step[2]])


def _dates(names: Sequence[str]) -> list[tuple[str, Any, Sequence[str]]]:
    """The step for dates, none without such columns."""
    from retrain.models.transformers import DateParts

    return [("datetime", DateParts(), names)] if names else []


def _hashed_words() -> Pipeline:
    """One text column to word counts of unit length, by the hashing trick: new words need no new columns. Missing is empty."""
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    return Pipeline(
        [
            ("nan", SimpleImputer(missing_values=np.nan, strategy="constant", fill_value="")),
            ("none", SimpleImputer(missing_values=None, strategy="constant", fill_value="")),
            ("flat", FunctionTransformer(np.ravel)),
            ("hash", HashingVectorizer(n_features=HASHED_TEXT_COLUMNS, alternate_sign=False)),
        ]
    )


def _hashed_columns() -> Pipeline:
    """One pack of sparse columns to sparse numbers, each hashed column divided by its largest: zeros stay zeros."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MaxAbsScaler

    from retrain.models.transformers import SparsePairs

    return Pipeline([("hash", SparsePairs()), ("scale", MaxAbsScaler())])
