"""Dates as Excel stores them: days since the end of 1899, which a file that was saved with the
wrong cell format shows."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from retrain.errors import DataError

DAY_ZERO = datetime(1899, 12, 30)
FIRST, LAST = 25_569, 80_000  # 1970 and 2119


def refuse_serial_dates(numbers: pl.Series) -> None:
    """Raises DataError for numbers that are all dates of Excel, as far as anybody can tell."""
    known = numbers.drop_nulls()
    if known.is_empty() or not known.is_between(FIRST, LAST).all():
        return
    first = float(known[0])
    meant = DAY_ZERO + timedelta(seconds=round(first * 86_400))
    raise DataError(
        f"`--time {numbers.name}` holds numbers such as {first:g}, which look like dates of Excel "
        f"(days since 1899-12-30): {meant}.",
        hint="give the column a date format in Excel, such as yyyy-mm-dd hh:mm, and save the file "
        "as CSV again",
    )
