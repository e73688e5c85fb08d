"""Columns that have a type already, as the types of the schema; single values that can't be what
their column is.

A cell of text that doesn't fit is found where it is read (`casting`). This is the same rule for
tables that come with types, such as Parquet or a database: the row of a 2 among flags, of 2.5 or an
infinity among codes goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from retrain.config import ColumnType, DataConfig, Task
from retrain.data.reading.casting import without_case

DTYPES: dict[ColumnType, pl.DataType] = {
    ColumnType.numeric: pl.Float64(),
    ColumnType.categorical: pl.String(),
    ColumnType.boolean: pl.Boolean(),
    ColumnType.datetime: pl.Datetime("us"),
    ColumnType.text: pl.String(),
    ColumnType.sparse: pl.String(),
}
AMOUNT, FLAG, CODE = "a finite number", "true/false or 1/0", "a text or a whole number"
KINDS = {ColumnType.boolean: FLAG, ColumnType.categorical: CODE}
TARGET_KINDS = {Task.regression: AMOUNT, Task.multiclass: CODE, Task.binary: FLAG}


def to_feature(values: pl.Series, kind: ColumnType) -> pl.Series | None:
    """A column as the schema's type of it, with NaN as null; None when it is of another kind."""
    known, dtype = without_nan(values), values.dtype
    if values.null_count() == len(values):  # says nothing about the type
        return pl.Series(values.name, [None], DTYPES[kind]).new_from_index(0, len(values))
    if kind is ColumnType.datetime:
        return to_times(values)
    if kind is ColumnType.categorical and dtype.is_float() and not _is_wrong(known, CODE).any():
        return known.cast(pl.Int64).cast(pl.String)
    fits = {
        ColumnType.numeric: dtype.is_numeric() or dtype == pl.Boolean,
        ColumnType.categorical: is_categorical(dtype),
        ColumnType.boolean: dtype == pl.Boolean
        or (dtype.is_numeric() and not _is_wrong(known, FLAG).any()),
    }
    return known.cast(DTYPES[kind]) if fits.get(kind, dtype == pl.String) else None


def to_target(values: pl.Series, task: Task, positive_label: str | None) -> pl.Series | None:
    """A target as its task needs it; None when its type can't be that."""
    if task is Task.binary and positive_label is not None and values.null_count() < len(values):
        words, positive = compared_words(values, positive_label)
        return words == positive
    if task is Task.multiclass and values.dtype == pl.Boolean:
        return values.cast(pl.String)
    if task is Task.regression and values.dtype == pl.Boolean:
        return None
    kinds = {
        Task.binary: ColumnType.boolean,
        Task.multiclass: ColumnType.categorical,
        Task.regression: ColumnType.numeric,
    }
    return to_feature(values, kinds[task])


def to_times(values: pl.Series) -> pl.Series | None:
    """Dates and times as microseconds without a zone; None for other types. Times with a zone are
    turned into UTC, where no hour of a change to or from daylight saving is missing or comes
    twice."""
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return values.cast(pl.Datetime("us")) if is_time(values.dtype) else None


def is_time(dtype: pl.DataType) -> bool:
    return dtype == pl.Date or isinstance(dtype, pl.Datetime)


def is_categorical(dtype: pl.DataType) -> bool:
    """Whether a column of this type can hold levels: strings, or whole numbers that stand for
    them."""
    return dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()


def without_nan(values: pl.Series) -> pl.Series:
    """NaN as null, which means missing everywhere."""
    return values.fill_nan(None) if values.dtype.is_float() else values


def compared_words(values: pl.Series, label: str) -> tuple[pl.Series, str]:
    """The words of a target of two classes, and its positive label, as they are compared: by value,
    so that 2.0 is 2, and whatever their capitals, unless nothing else tells the two apart."""
    texts = without_nan(values).cast(pl.String)
    words = {text: without_case(text) for text in texts.drop_nulls().unique()}
    if len(words) == 2 and label in words and len(set(words.values())) == 1:
        return texts, label
    return texts.replace_strict(words, return_dtype=pl.String), without_case(label)


def column_kinds(data: DataConfig) -> dict[str, str]:
    """What single values of target and features must be, where their column has a type."""
    kinds = {name: KINDS[one.type] for name, one in data.features.items() if one.type in KINDS}
    words = data.task is Task.binary and data.positive_label is not None
    return kinds | {data.target_column: CODE if words else TARGET_KINDS[data.task]}


def without_misfits(
    frame: pl.DataFrame, kinds: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.Series]:
    """The frame with missing cells in place of misfits, and why each row has one, null where it has
    none.

    A column of which no value fits is left as it is: its type is wrong, not its values.
    """
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    for name, kind in kinds.items():
        if name not in frame.columns or not frame.schema[name].is_numeric():
            continue
        known = without_nan(frame[name])
        wrong = _is_wrong(known, kind)
        if not wrong.any() or (kind != AMOUNT and wrong.sum() == known.count()):
            continue
        frame = frame.with_columns(known.set(wrong, None))
        why = (f"{name}: " + known.cast(pl.String) + f" is not {kind}").set(~wrong, None)
        reasons = first_of(reasons, why)
    return frame, reasons


def first_of(*reasons: pl.Series) -> pl.Series:
    """For each row the first of several reasons; null where it has none."""
    return pl.select(pl.coalesce(*reasons)).to_series()


def _is_wrong(known: pl.Series, kind: str) -> pl.Series:
    if kind == FLAG:
        return ((known != 0) & (known != 1)).fill_null(False)
    if not known.dtype.is_float():
        return pl.Series([False]).new_from_index(0, len(known))
    wrong = known.is_infinite()
    return (wrong if kind == AMOUNT else wrong | (known != known.floor())).fill_null(False)
