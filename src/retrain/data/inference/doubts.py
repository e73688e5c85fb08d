"""What a person should look at after `retrain init`, beside the guesses for single columns."""

from __future__ import annotations

import re
from zoneinfo import available_timezones

import polars as pl

from retrain.columns import own_column
from retrain.config import Task
from retrain.data.inference.draft import Draft
from retrain.data.inference.periods import FEWEST_BATCHES
from retrain.data.scalars import as_float

MANY_VALUES = 50  # of a number that may stand for classes
ZONE = r"(Z|[+-]\d{2}:?\d{2}| (UTC|GMT))$"
OFFSET = re.compile(r"^(UTC|GMT)?[+-]\d{1,2}(:?\d{2})?$")
MOST_ZONES = 1000
UNFINISHED = 0.25  # of the usual rows of a batch
FEW_ROWS = 1500
MANY_CLASSES = 20
RARE_CLASS = 100  # rows: a third of a batch's then holds too few of them to be judged by
_COUNT = own_column("count")


def add_doubts(
    draft: Draft, table: pl.DataFrame, target: str, batch: pl.Series, times: pl.Series
) -> None:
    """`batch` names the batch of each row, `times` is the column of times as it was given."""
    _doubt_task(draft, table[target])
    _doubt_size(draft, table)
    _doubt_newest(draft, batch)
    _doubt_zones(draft, table, times)


def _doubt_task(draft: Draft, target: pl.Series) -> None:
    if draft.task is Task.multiclass and target.dtype.is_integer():
        draft.unsure.append(
            f"`{target.name}` holds whole numbers: classes (multiclass), or an amount (regression)?"
        )
    if draft.task is Task.regression and target.n_unique() <= MANY_VALUES:
        draft.unsure.append(
            f"`{target.name}` has {target.n_unique()} different values: an amount (regression), or "
            "classes?"
        )
    if draft.positive_label is not None:
        draft.unsure.append(
            f"`{draft.positive_label}`, the rarer value of `{target.name}`, counts as positive."
        )
    if (
        draft.task is Task.multiclass
        and (classes := target.drop_nulls().n_unique()) >= MANY_CLASSES
    ):
        draft.unsure.append(
            f"Boosting grows {classes} trees at each step, one a class: `model: random_forest` is "
            "many times quicker, and "
            "`logistic_regression` as well; with few rows a class also often better (`retrain "
            "train model=...` shows it)."
        )
    if draft.task is not Task.regression:
        _doubt_rare_classes(draft, target)


def _doubt_rare_classes(draft: Draft, target: pl.Series) -> None:
    counts = (
        target.drop_nulls()
        .cast(pl.String)
        .alias("class")
        .value_counts(name=_COUNT)
        .sort(_COUNT, "class")
    )
    rare = counts.filter(counts[_COUNT] < RARE_CLASS)
    if len(rare) and draft.task is Task.binary:
        rows = int(as_float(rare[_COUNT].min()))
        draft.unsure.append(
            f"Only {rows:,} row{' has' if rows == 1 else 's have'} the rarer value of "
            f"`{target.name}`: hardly enough to train on."
        )
    elif len(rare):
        names = ", ".join(f"`{name}`" for name in rare["class"].head(3))
        draft.unsure.append(
            f"{len(rare)} of {len(counts)} classes of `{target.name}` have fewer than {RARE_CLASS} "
            f"rows ({names}{', ...' if len(rare) > 3 else ''}): hardly enough to train on, and "
            "evaluated together. Are they needed, or one class `other`?"
        )


def _doubt_size(draft: Draft, table: pl.DataFrame) -> None:
    if draft.numbers_rows:
        draft.unsure.append(
            "No columns tell the rows apart, so they are numbered: a corrected batch must keep "
            "their order."
        )
    if draft.batches < FEWEST_BATCHES:
        draft.unsure.append(
            f"There are {draft.batches} batches only; a shorter period would let more arrive."
        )
    if len(table) < FEW_ROWS:
        draft.unsure.append(
            f"{len(table):,} row{' is' if len(table) == 1 else 's are'} few to evaluate on: "
            "intervals are wide, so only large "
            "differences can be seen "
            "(`retrain gate-check` says how large)."
        )


def _doubt_newest(draft: Draft, batch: pl.Series) -> None:
    """A newest batch that has only begun to arrive."""
    usual = as_float(batch.value_counts(name=_COUNT)[_COUNT].median())
    if (
        draft.rows_per_batch is None
        and draft.batches > 2
        and draft.newest_rows < UNFINISHED * usual
    ):
        before, newest = batch.cast(pl.String).unique().sort()[-2:]
        draft.unsure.append(
            f"The newest batch, {newest}, has {draft.newest_rows:,} rows where others have "
            f"{usual:,.0f}: if it is not "
            f"complete yet, set `as_of: {before}` until it is."
        )


def _doubt_zones(draft: Draft, table: pl.DataFrame, times: pl.Series) -> None:
    """Times without a zone, and their zones in another column."""
    zoned = times.dtype == pl.String and times.head(1000).str.contains(ZONE).any()
    if zoned or getattr(times.dtype, "time_zone", None):
        return
    zones = available_timezones()
    for name in (
        name for name, dtype in table.schema.items() if dtype == pl.String and name != times.name
    ):
        levels = table[name].drop_nulls().unique()
        if 2 <= len(levels) <= MOST_ZONES and all(
            level in zones or OFFSET.match(level) for level in levels
        ):
            draft.unsure.append(
                f"`{name}` holds time zones, and `{times.name}` is taken as it stands, so that "
                "rows of several zones are not "
                "in the order of time: give it a zone of its own (2024-01-31T09:30+01:00) if hours "
                "matter."
            )
