"""Columns as the types of the contract, as far as their own type allows it."""

from __future__ import annotations

import polars as pl

from retrain.config import ColumnType

DTYPES = {
    ColumnType.numeric: pl.Float64,
    ColumnType.categorical: pl.String,
    ColumnType.boolean: pl.Boolean,
    ColumnType.datetime: pl.Datetime("us"),
    ColumnType.text: pl.String,
    ColumnType.sparse: pl.String,
}


def to_feature(values: pl.Series, kind: ColumnType) -> pl.Series | None:
    """A column as the contract's type of it, with NaN as null; None when it is of another kind."""
    dtype = DTYPES[kind]
    if holds_nothing(values):
        return pl.Series(values.name, [None] * len(values), dtype=dtype)
    if kind is ColumnType.datetime:
        return to_times(values)
    same_kind = {
        ColumnType.numeric: values.dtype.is_numeric() or values.dtype == pl.Boolean,
        ColumnType.categorical: is_categorical(values.dtype) or whole_numbers(values),
        ColumnType.boolean: holds_flags(values),
        ColumnType.text: values.dtype == pl.String,
        ColumnType.sparse: values.dtype == pl.String,
    }
    if not same_kind[kind]:
        return None
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if kind is ColumnType.categorical and values.dtype.is_float():
        values = values.cast(pl.Int64)
    return values.cast(dtype)


def to_times(values: pl.Series) -> pl.Series | None:
    """Dates and times as microseconds without a zone; None for other types. Times with a zone are turned into UTC, where no
    hour of a change to or from daylight saving is missing or comes twice."""
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return values.cast(pl.Datetime("us"))
    return None


def is_categorical(dtype: pl.DataType) -> bool:
    """Whether a column of this type can hold levels: strings, or whole numbers that stand for them."""
    return dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()


def can_be_kept(dtype: pl.DataType) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Object, pl.Null))


def holds_flags(values: pl.Series) -> bool:
    """Whether a column holds true and false, or numbers that are all 1 or 0."""
    return values.dtype == pl.Boolean or (values.dtype.is_numeric() and _are_flags(values))


def _are_flags(numbers: pl.Series) -> bool:
    known = numbers.fill_nan(None) if numbers.dtype.is_float() else numbers
    return bool(((known == 0) | (known == 1)).all())


def whole_numbers(values: pl.Series) -> bool:
    """Whether floating-point numbers are all whole, as those of codes with gaps are."""
    known = values.fill_nan(None).drop_nulls() if values.dtype.is_float() else None
    return (
        known is not None and bool((known == known.floor()).all()) and not known.is_infinite().any()
    )


def holds_nothing(values: pl.Series) -> bool:
    """Whether every value is missing: a CSV file then says nothing about the type."""
    return values.null_count() == len(values)
