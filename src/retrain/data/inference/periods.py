"""Into which batches `retrain init` cuts a table, and how long its blocks are."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl

from retrain.config import PeriodKind
from retrain.data.periods import period_keys

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
    sizes = {kind: _sizes(times.sort(), kind) for kind in EVERY}
    own = times.n_unique()  # times that are few stand for periods themselves
    for kind in EVERY:
        if len(sizes[kind]) == own <= MOST_BATCHES and sizes[kind].median() >= SMALL_BATCH:
            return kind
    for most, least in ((MOST_BATCHES, FAIR_BATCH), (MOST_SMALL_BATCHES, SMALL_BATCH)):
        for kind in PREFERRED:
            if FEWEST_BATCHES <= len(sizes[kind]) <= most and sizes[kind].median() >= least:
                return kind
    few_rows = len(times) < FEWEST_BATCHES * FAIR_BATCH
    for fewest, least in ((FEWEST_BATCHES, TINY_BATCH), (3 if few_rows else FEWEST_BATCHES, 1)):
        for kind in EVERY:  # the longest
            if len(sizes[kind]) >= fewest and sizes[kind].median() >= least:
                return kind
    return PeriodKind.rows


def _sizes(ordered: pl.Series, kind: PeriodKind) -> pl.Series:
    """Rows of each batch, of times in order."""
    return ordered.dt.truncate(EVERY[kind]).rle().struct.field("len")


def rows_per_batch(rows: int) -> int:
    """About a dozen batches, of a round number of rows."""
    wanted = max(50, rows / 12)
    step = 10 ** max(1, int(math.log10(wanted)) - 1)
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
    steps = times.unique().sort().diff().drop_nulls()
    step = steps.median() if len(steps) else timedelta(0)
    return 24 * max(1, math.ceil((step or timedelta(0)) / timedelta(days=1)))
