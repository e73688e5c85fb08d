"""The time column of a table, whatever type it comes in."""

from __future__ import annotations

import polars as pl

from retrain.data.reading.casting import cast_times
from retrain.data.reading.conversions import to_times
from retrain.data.reading.parts import PROBLEM, add_problem
from retrain.data.reading.table import refuse_undecided
from retrain.data.reading.times import EPOCH_UNITS, read_times
from retrain.errors import DataError

WAY_OUT = (
    "say in `data.source.time_format` how it is written: a strptime format, epoch_s, epoch_ms or "
    "epoch_us"
)


def with_times(
    table: pl.DataFrame, name: str, time_format: str | None, day_first: bool | None
) -> pl.DataFrame:
    """The table with a column as times; rows whose text is none are marked. Raises DataError when
    not one is."""
    values = table[name]
    if values.dtype == pl.String:
        cast = cast_times(values, time_format, day_first)
        if cast.times is not None and cast.times.undecided:
            refuse_undecided(cast.times)
        times = cast.values.cast(pl.Datetime("us"))
        table = add_problem(table, cast.unread, f"{name}: '" + values + "' is not a time")
    else:
        times = parse_times(values, time_format)
    if len(times) and not times.count():
        given = values.drop_nulls().head(1).to_list()
        problems = table[PROBLEM].drop_nulls() if PROBLEM in table.columns else []
        first = f": {problems[0]}" if len(problems) else ""
        raise DataError(
            f"`{name}` can't be read as time (`data.source.time_format`: {time_format}), "
            f"{f'such as {given}' if given else 'it is empty'}{first}",
            hint=WAY_OUT,
        )
    return table.with_columns(times.alias(name))


def parse_times(values: pl.Series, time_format: str | None = None) -> pl.Series:
    """A column as times without a zone, all of it. Raises DataError, with an example, when it can't
    be read as such."""
    text = values
    if values.dtype.is_numeric() and time_format is not None:
        whole = values if time_format in EPOCH_UNITS else values.cast(pl.Int64, strict=False)
        text = whole.cast(pl.String).alias(values.name)
    if text.dtype == pl.String:
        read = read_times(text, time_format)
        if read.unread.any():
            raise DataError(
                f"`{values.name}` can't be read as time (`data.source.time_format`: "
                f"{time_format}), such as "
                f"'{text.filter(read.unread)[0]}'.",
                hint=WAY_OUT,
            )
        return read.values
    found = to_times(values)
    if found is None:
        example = values.drop_nulls().head(1).to_list()
        raise DataError(f"`{values.name}` has type {values.dtype}, such as {example}", hint=WAY_OUT)
    return found.alias(values.name)
