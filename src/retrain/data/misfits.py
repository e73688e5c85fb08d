"""Single values that can't be what their column is, in columns that have a type already.

A cell of text that doesn't fit is found where it is read; this is the same rule for tables that come with types, such as
Parquet or a database: a 2 among flags, 2.5 or an infinity among codes. The row of such a value goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from retrain.config import ColumnType, DataConfig, Task

AMOUNT, FLAG, CODE = "a finite number", "true/false or 1/0", "a text or a whole number"
KINDS = {ColumnType.boolean: FLAG, ColumnType.categorical: CODE}
_TARGETS = {Task.regression: AMOUNT, Task.multiclass: CODE, Task.binary: FLAG}


def column_kinds(data: DataConfig) -> dict[str, str]:
    """What single values of target and features must be, where their column has a type."""
    kinds = {
        name: KINDS[column.type] for name, column in data.features.items() if column.type in KINDS
    }
    if data.task is not Task.binary or data.positive_label is None:
        kinds[data.target_column] = _TARGETS[data.task]
    elif data.target_column not in kinds:
        kinds[data.target_column] = CODE
    return kinds


def without_misfits(
    frame: pl.DataFrame, kinds: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.Series | None]:
    """The frame with missing cells in place of misfits, and why each row has one; None where no row has.

    A column of which no value fits is left as it is: its type is wrong, not its values.
    """
    reasons: pl.Series | None = None
    for name, kind in kinds.items():
        values = frame[name] if name in frame.columns else None
        if values is None or not values.dtype.is_numeric():
            continue
        known = values.fill_nan(None) if values.dtype.is_float() else values
        wrong = _is_wrong(known, kind)
        if not wrong.any() or (kind != AMOUNT and wrong.sum() == known.len() - known.null_count()):
            continue
        frame = frame.with_columns(known.set(wrong, None))
        why = (f"{name}: " + known.cast(pl.String) + f" is not {kind}").set(~wrong, None)
        reasons = why if reasons is None else reasons.zip_with(reasons.is_not_null(), why)
    return frame, reasons


def _is_wrong(known: pl.Series, kind: str) -> pl.Series:
    if kind == FLAG:
        return ((known != 0) & (known != 1)).fill_null(False)
    if not known.dtype.is_float():
        return pl.Series([False]).new_from_index(0, len(known))
    wrong = known.is_infinite()
    return (wrong if kind == AMOUNT else wrong | (known != known.floor())).fill_null(False)
