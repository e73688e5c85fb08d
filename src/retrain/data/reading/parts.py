"""What is read from one file: rows, each with its place, and what is wrong with some of them.

Both stand in columns of our own, which the schema takes out again: a row with a problem goes to
quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retrain.columns import own_column

PROBLEM, PLACE = own_column("problem"), own_column("place")


@dataclass(frozen=True)
class Part:
    """One file, or one member of a zip. Text is not cast yet, and `separator` and `encoding` say
    how it was read."""

    place: str
    frame: pl.DataFrame
    is_text: bool
    separator: str | None = None
    encoding: str | None = None
    sure_encoding: bool = True


def with_places(frame: pl.DataFrame, file: str, rows: pl.Series) -> pl.DataFrame:
    """The frame with the place of each row: `file` as messages name it, and a number in it."""
    name = pl.lit(file, pl.Categorical).alias("file")
    return frame.with_columns(pl.struct(name, rows.cast(pl.Int64).alias("row")).alias(PLACE))


def find_places(frame: pl.DataFrame, rows: Sequence[int]) -> list[str]:
    """Where some rows of a batch lie, for a person who has to mend them."""
    if PLACE not in frame.columns:
        return [f"row {row + 1} of the batch" for row in rows]
    return _written(frame[PLACE].gather(list(rows))).to_list()


def split_problems(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The frame without our columns, and the reason why each row goes to quarantine, null for sound
    rows."""
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    if PROBLEM in frame.columns:
        reasons = add_places(frame[PROBLEM], frame)
    return frame.drop(PROBLEM, PLACE, strict=False), reasons


def add_places(reasons: pl.Series, frame: pl.DataFrame) -> pl.Series:
    """Reasons with the places of their rows, as far as these are known."""
    if PLACE not in frame.columns:
        return reasons
    return reasons + (" (" + _written(frame[PLACE]) + ")").fill_null("")


def add_problem(frame: pl.DataFrame, wrong: pl.Series, why: pl.Series) -> pl.DataFrame:
    """Mark more rows as ones for the quarantine. A row that has a reason already keeps it alone."""
    if not wrong.any():
        return frame
    reasons = why.set(~wrong, None)
    if PROBLEM in frame.columns:
        reasons = frame[PROBLEM].zip_with(frame[PROBLEM].is_not_null(), reasons)
    return frame.with_columns(reasons.alias(PROBLEM))


def _written(places: pl.Series) -> pl.Series:
    fields = places.struct
    return fields.field("file").cast(pl.String) + " " + fields.field("row").cast(pl.String)
