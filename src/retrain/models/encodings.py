"""Encodings of columns that scikit-learn has no class for, or a chain of several.
`src/project/features.py` chooses among them.

Each copes with unseen levels and with missing values when it predicts. Apart from dates and sparse
columns they are scikit-learn's own classes: a stored model then loads without any code of this
project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrain.errors import ConfigError
from retrain.lazy import numpy as np
from retrain.lazy import sklearn

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

HASHED_TEXT_COLUMNS = 2**16
# Each of these columns has an encoder of its own: a text is one column for scikit-learn, not
# several.
ONE_BY_ONE = ("text", "sparse")


def combine(
    encoders: Mapping[str, Any], columns: Mapping[str, Sequence[str]], dense: bool = False
) -> sklearn.compose.ColumnTransformer:
    """Columns of each type, encoded, side by side in the order of `encoders`.

    Parameters
    ----------
    encoders
        Name of a step -> transformer, or `"passthrough"`.
    columns
        Name of a step -> names of its columns. Steps without columns are left out; `text` and
        `sparse` become a step for each column.
    dense
        Whether the output is a dense array in any case; else sparse where that saves memory.

    Raises
    ------
    ConfigError
        For columns that no encoder is named for: they would be missing in the model without a word.
    """
    left = [kind for kind, names in columns.items() if names and kind not in encoders]
    if left:
        raise ConfigError(
            f"`model.preprocessing` has no encoder for `{'`, `'.join(left)}`, only for "
            f"{', '.join(encoders)}."
        )
    steps: list[tuple[str, Any, list[str]]] = []
    for kind, encoder in encoders.items():
        names = list(columns.get(kind, ()))
        if kind in ONE_BY_ONE:
            steps += [(f"{kind}_{name}", sklearn.base.clone(encoder), [name]) for name in names]
        elif names:
            steps.append((kind, encoder, names))
    return sklearn.compose.ColumnTransformer(steps, sparse_threshold=0 if dense else 0.3)


def level_codes(
    maximum_levels: int, missing_value: float | None = None
) -> sklearn.preprocessing.OrdinalEncoder:
    """Categories to codes: the most frequent levels, and one code for all others.

    Unseen and missing ones become `missing_value`, by default NaN.
    """
    missing = np.nan if missing_value is None else missing_value
    return sklearn.preprocessing.OrdinalEncoder(
        max_categories=maximum_levels,
        handle_unknown="use_encoded_value",
        unknown_value=missing,
        encoded_missing_value=missing,
    )


def level_columns(minimum_frequency: int) -> Pipeline:
    """Categories to a 0/1 column for each level seen so often, and one for all rarer and unseen
    ones."""
    encoder = sklearn.preprocessing.OneHotEncoder(
        min_frequency=minimum_frequency, handle_unknown="infrequent_if_exist"
    )
    return _chain(**_filled("missing"), encode=encoder)


def scaled_numbers() -> Pipeline:
    """Numbers to standard deviations from their mean. Missing ones become the median, with a column
    that says so."""
    imputer = sklearn.impute.SimpleImputer(
        strategy="median", add_indicator=True, keep_empty_features=True
    )
    return _chain(impute=imputer, scale=sklearn.preprocessing.StandardScaler())


def date_parts() -> Any:
    """Dates to days since 1970, year, month, day, weekday and hour: six numbers each, NaN where the
    date is missing."""
    from retrain.models.transformers import DateParts

    return DateParts()


def scaled_date_parts() -> Pipeline:
    """The parts of dates as scaled numbers."""
    return _chain(parts=date_parts(), numbers=scaled_numbers())


def hashed_words() -> Pipeline:
    """One text to word counts of unit length, by the hashing trick: new words need no new columns.
    Missing is empty."""
    return _chain(
        **_filled(""),
        flat=sklearn.preprocessing.FunctionTransformer(np.ravel),
        hash=sklearn.feature_extraction.text.HashingVectorizer(
            n_features=HASHED_TEXT_COLUMNS, alternate_sign=False
        ),
    )


def hashed_columns() -> Pipeline:
    """One pack of sparse columns to hashed columns, each divided by its largest value: zeros stay
    zeros."""

    from retrain.models.transformers import SparsePairs

    return _chain(hash=SparsePairs(), scale=sklearn.preprocessing.MaxAbsScaler())


def dense_components(encoder: Pipeline, components: int) -> Pipeline:
    """A sparse encoding reduced to so many dense columns: truncated SVD, of words latent semantic
    analysis."""
    return _chain(hash=encoder, reduce=sklearn.decomposition.TruncatedSVD(components))


def _filled(value: str) -> dict[str, Any]:
    """A missing text is NaN in a file and None in a request to a server: both become the same."""
    return {
        name: sklearn.impute.SimpleImputer(
            missing_values=missing, strategy="constant", fill_value=value
        )
        for name, missing in (("nan", np.nan), ("none", None))
    }


def _chain(**steps: Any) -> Pipeline:

    return sklearn.pipeline.Pipeline(list(steps.items()))
