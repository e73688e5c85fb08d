"""How the columns of a schema are read from text."""

from __future__ import annotations

import re

from retrain.config import ColumnType, DataConfig, Task
from retrain.data.reading.casting import Caster, casters
from retrain.data.reading.dialect import Dialect
from retrain.errors import ConfigError


def schema_casters(
    data: DataConfig, dialect: Dialect, time_format: str | None
) -> dict[str, Caster]:
    """How the columns of a schema are read from text files of a dialect.

    Raises ConfigError where `date_formats` names a column that holds no dates by the schema.
    """
    for name in dialect.date_formats:
        if name == data.time_column or name not in date_columns(data):
            way_out = (
                "say `time_format` for it"
                if name == data.time_column
                else "it names features of type datetime"
            )
            raise ConfigError(
                f"`data.source.date_formats` names `{name}`: {way_out}. Mend it in conf/data/."
            )
    order = dialect.day_first
    if (
        order is None
        and time_format
        and not time_format.startswith("%Y")
        and {"%d", "%m"} <= set(_codes(time_format))
    ):
        order = time_format.index("%d") < time_format.index("%m")
    return casters(data, dialect.decimal, time_format, order, dialect.date_formats)


def _codes(time_format: str) -> list[str]:
    return re.findall(r"%\w", time_format)


def date_columns(data: DataConfig | None) -> list[str]:
    """The columns of a schema that hold times, that of the rows first."""
    if data is None:
        return []
    others = [name for name, column in data.features.items() if column.type is ColumnType.datetime]
    return list(dict.fromkeys([data.time_column, *others]))


def typed_columns(data: DataConfig) -> list[str]:
    """Columns that the contract wants as something else than text."""
    typed = (ColumnType.numeric, ColumnType.boolean, ColumnType.datetime)
    names = [name for name, column in data.features.items() if column.type in typed]
    open_target = data.task is Task.regression or (
        data.task is Task.binary and data.positive_label is None
    )
    return [*names, data.target_column] if open_target else names
