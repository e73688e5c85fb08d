"""Into which batches `retrain init` cuts a table, and how long its blocks are."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from retrain.config import PeriodKind
from retrain.data.periods import period_keys
from retrain.data.scalars import as_float

EVERY = {
    PeriodKind.quarter: "1q",
    PeriodKind.month: "1mo",
    PeriodKind.week: "1w",
    PeriodKind.day: "1d",
    PeriodKind.hour: "1h",
}
PREFERRED = (PeriodKind.month, PeriodKind.week, PeriodKind.quarter, PeriodKind.day, PeriodKind.hour)
FEWEST_BATCHES, MOST_BATCHES, MOST_SMALL_BATCHES = 6, 72, 180
FAIR_BATCH, SMALL_BATCH, TINY_BATCH = (
    200,
    20,
    5,
)  # rows: a third of it says something; a month of working days; a week


def guess_period(times: pl.Series) -> PeriodKind:
    """The calendar period that a person would choose: months, or what comes nearest to them with
    batches neither too small nor too many. A number of rows only where even hours are too few: such
    batches have numbers for names."""
    ordered, own = times.sort(), times.n_unique()
    sizes = {
        kind: ordered.dt.truncate(every).rle().struct.field("len") for kind, every in EVERY.items()
    }
    usual = {kind: as_float(rows.median()) for kind, rows in sizes.items()}
    for kind in EVERY:  # times that are few stand for periods themselves
        if len(sizes[kind]) == own <= MOST_BATCHES and usual[kind] >= SMALL_BATCH:
            return kind
    few = 3 if len(times) < FEWEST_BATCHES * FAIR_BATCH else FEWEST_BATCHES
    for kinds, fewest, most, least in (
        (PREFERRED, FEWEST_BATCHES, MOST_BATCHES, FAIR_BATCH),
        (PREFERRED, FEWEST_BATCHES, MOST_SMALL_BATCHES, SMALL_BATCH),
        (EVERY, FEWEST_BATCHES, len(times), TINY_BATCH),  # the longest
        (EVERY, few, len(times), 1),
    ):
        for kind in kinds:
            if fewest <= len(sizes[kind]) <= most and usual[kind] >= least:
                return kind
    return PeriodKind.rows


def rows_per_batch(rows: int) -> int:
    """About a dozen batches, of a round number of rows."""
    wanted = max(50, rows / 12)
    step = int(10 ** max(1, int(math.log10(wanted)) - 1))
    return max(step, int(wanted // step * step))


def batch_keys(
    table: pl.DataFrame, time: str, kind: PeriodKind, per_batch: int | None
) -> pl.Series:
    """The batch of each row of a table in order of time."""
    if per_batch is not None:
        numbers = np.minimum(
            np.arange(len(table)) // per_batch, max(0, len(table) // per_batch - 1)
        )
        return pl.Series("batch", numbers)
    return table.select(period_keys(pl.col(time), kind).alias("batch")).to_series()


def guess_block_hours(times: pl.Series, kind: PeriodKind) -> int:
    """Hours of a block whose rows move together: a day, an hour where batches are hours, or the
    step between the times."""
    if kind is PeriodKind.hour:
        return 1
    step = times.unique().sort().dt.epoch("s").diff().median()
    return 24 * max(1, math.ceil(as_float(step or 0) / 86_400))
