"""The time column of a table, whatever type it comes in."""

from __future__ import annotations

import polars as pl

from retrain.data.reading.casting import Cast, cast_times, none_of
from retrain.data.reading.conversions import to_times
from retrain.data.reading.parts import PROBLEM, add_problem
from retrain.data.reading.table import refuse_undecided
from retrain.data.reading.time_formats import EPOCH_UNITS
from retrain.errors import DataError

WAY_OUT = (
    "say in `data.source.time_format` how it is written: a strptime format, epoch_s, epoch_ms or "
    "epoch_us"
)


def with_times(
    table: pl.DataFrame, name: str, time_format: str | None, day_first: bool | None
) -> pl.DataFrame:
    """The table with a column as times; rows whose value is none are marked. Raises DataError when
    not one is."""
    values = table[name]
    cast = as_times(values, time_format, day_first)
    if cast.times is not None and cast.times.undecided:
        refuse_undecided(cast.times)
    why = f"{name}: '" + values.cast(pl.String) + "' is not a time"
    table = add_problem(table, cast.unread, why)
    if len(values) and not cast.values.count():
        given = values.drop_nulls().head(1).to_list()
        first = table[PROBLEM].drop_nulls().to_list()[:1] if PROBLEM in table.columns else []
        raise DataError(
            f"`{name}` can't be read as time (`data.source.time_format`: {time_format}), "
            f"{f'such as {given}' if given else 'it is empty'}"
            f"{''.join(f': {why}' for why in first)}",
            hint=WAY_OUT,
        )
    return table.with_columns(cast.values.cast(pl.Datetime("us")).alias(name))


def as_times(
    values: pl.Series, time_format: str | None = None, day_first: bool | None = None
) -> Cast:
    """A column of any type as times without a zone. Raises DataError for a type that can't be one,
    also for numbers without a format."""
    if values.dtype == pl.String:
        return cast_times(values, time_format, day_first)
    if values.dtype.is_numeric() and time_format is not None:
        whole = values if time_format in EPOCH_UNITS else values.cast(pl.Int64, strict=False)
        return cast_times(whole.cast(pl.String), time_format, day_first)
    found = to_times(values)
    if found is None:
        example = values.drop_nulls().head(1).to_list()
        raise DataError(f"`{values.name}` has type {values.dtype}, such as {example}", hint=WAY_OUT)
    return Cast(found, none_of(found), "a time")
