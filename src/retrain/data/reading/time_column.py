"""The time column of a table, whatever type it comes in."""

from __future__ import annotations

import polars as pl

from retrain.data.reading.casting import cast_times
from retrain.data.reading.conversions import to_times
from retrain.data.reading.table import PROBLEM, add_problem, refuse_undecided
from retrain.data.reading.times import EPOCH_UNITS, read_times
from retrain.errors import DataError


def is_time(values: pl.Series) -> bool:
    return values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime)


def with_times(
    table: pl.DataFrame, name: str, time_format: str | None, day_first: bool | None
) -> pl.DataFrame:
    """The table with a column as times; rows whose text is none are marked. Raises DataError when not one is."""
    values = table[name]
    if values.dtype == pl.String:
        cast = cast_times(values, time_format, day_first)
        if cast.times is not None and cast.times.undecided:
            refuse_undecided(cast.times)
        times = cast.values.cast(pl.Datetime("us"))
        if cast.unread is not None:
            table = add_problem(table, cast.unread, f"{name}: '" + values + "' is not a time")
    else:
        times = parse_times(values, time_format)
    problem = PROBLEM in table.columns and table[PROBLEM].is_not_null().any()
    if times.null_count() == len(times) and len(times):
        why = (
            f"such as {values.drop_nulls().head(1).to_list()}"
            if values.null_count() < len(values)
            else "it is empty"
        )
        first = f": {table[PROBLEM].drop_nulls()[0]}" if problem else ""
        raise DataError(
            f"`{name}` can't be read as time (`data.source.time_format`: {time_format}), {why}{first}. Say how it is written: a "
            "strptime format, epoch_s, epoch_ms or epoch_us."
        )
    return table.with_columns(times.alias(name))


def parse_times(values: pl.Series, time_format: str | None = None) -> pl.Series:
    """A column as times without a zone, all of it. Raises DataError, with an example, when it can't be read as such."""
    if values.dtype == pl.String:
        read = read_times(values, time_format)
        if read.unread.any():
            example = values.filter(read.unread)[0]
            raise DataError(
                f"`{values.name}` can't be read as time (`data.source.time_format`: {time_format}), such as '{example}'."
            )
        return read.values
    if not is_time(values) and time_format is not None and values.dtype.is_numeric():
        if time_format in EPOCH_UNITS:
            try:
                values = pl.select(
                    pl.from_epoch(values, time_unit=EPOCH_UNITS[time_format])
                ).to_series()
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    f"`{values.name}` can't be read as {time_format}: {str(error).splitlines()[0]}"
                ) from error
        else:
            return parse_times(
                values.cast(pl.Int64, strict=False).cast(pl.String).alias(values.name), time_format
            )
    found = to_times(values)
    if found is None:
        raise DataError(
            f"`{values.name}` has type {values.dtype}, such as {values.drop_nulls().head(1).to_list()}: say in "
            "`data.source.time_format` how it becomes a time (a strptime format, epoch_s, epoch_ms or epoch_us)."
        )
    return found.alias(values.name)
