"""How the columns of a schema are read from text."""

from __future__ import annotations

import functools
import re

import polars as pl

from retrain.config import ColumnType, DataConfig, Task
from retrain.data.reading.casting import (
    Cast,
    Caster,
    as_text,
    cast_amounts,
    cast_flags,
    cast_key,
    cast_levels,
    cast_numbers,
    cast_times,
    cast_words,
)
from retrain.data.reading.dialect import Dialect
from retrain.errors import ConfigError


def schema_casters(
    data: DataConfig, dialect: Dialect, time_format: str | None
) -> dict[str, Caster]:
    """By column how the text of a dialect is read.

    Raises ConfigError where `date_formats` names a column that holds no dates by the schema.
    """
    for name in dialect.date_formats:
        if name == data.time_column or name not in date_columns(data):
            time = name == data.time_column
            raise ConfigError(
                f"`data.source.date_formats` names `{name}`",
                hint="say `time_format` for it"
                if time
                else "name features of type datetime alone, in conf/data/",
            )
    order, decimal = dialect.day_first, dialect.decimal
    parts = re.findall("%[dm]", time_format or "")
    if order is None and len(parts) == 2 and not str(time_format).startswith("%Y"):
        order = parts[0] == "%d"

    def times(text: pl.Series) -> Cast:
        return cast_times(text, dialect.date_formats.get(text.name), order)

    numbers = functools.partial(cast_numbers, decimal=decimal)
    flags = functools.partial(cast_flags, decimal=decimal)
    kinds: dict[ColumnType, Caster] = {
        ColumnType.numeric: numbers,
        ColumnType.boolean: flags,
        ColumnType.datetime: times,
        ColumnType.categorical: cast_levels,
        ColumnType.text: as_text,
        ColumnType.sparse: as_text,
    }
    target: dict[Task, Caster] = {
        Task.regression: functools.partial(cast_amounts, decimal=decimal),
        Task.multiclass: cast_words,
        Task.binary: flags if data.positive_label is None else cast_words,
    }
    return (
        dict.fromkeys(data.key_columns, cast_key)
        | {name: kinds[column.type] for name, column in data.features.items()}
        | {data.target_column: target[data.task]}
        | {data.time_column: lambda text: cast_times(text, time_format, order)}
    )


def date_columns(data: DataConfig | None) -> list[str]:
    """The columns of a schema that hold times, that of the rows first."""
    if data is None:
        return []
    others = [name for name, column in data.features.items() if column.type is ColumnType.datetime]
    return list(dict.fromkeys([data.time_column, *others]))


def typed_columns(data: DataConfig) -> list[str]:
    """Columns that the schema wants as something else than text."""
    typed = (ColumnType.numeric, ColumnType.boolean, ColumnType.datetime)
    names = [name for name, column in data.features.items() if column.type in typed]
    words = data.task is Task.multiclass or data.positive_label is not None
    return names if words and data.task is not Task.regression else [*names, data.target_column]
