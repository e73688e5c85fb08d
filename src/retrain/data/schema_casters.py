"""How the columns of a schema are read from text."""

from __future__ import annotations

import re

from retrain.config import ColumnType, DataConfig, Task
from retrain.data.casting import Caster, casters
from retrain.data.dialect import Dialect


def schema_casters(data: DataConfig, dialect: Dialect, time_format: str | None) -> dict[str, Caster]:
    """How the columns of a schema are read from text files of a dialect."""
    order = dialect.day_first
    if order is None and time_format and not time_format.startswith("%Y") and {"%d", "%m"} <= set(_codes(time_format)):
        order = time_format.index("%d") < time_format.index("%m")
    return casters(data, dialect.decimal, time_format, order)


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
    open_target = data.task is Task.regression or (data.task is Task.binary and data.positive_label is None)
    return [*names, data.target_column] if open_target else names
