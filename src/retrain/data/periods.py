"""Calendar arithmetic of batch keys: `2013-01-31T05`, `2013-01-31`, `2013-W05`, `2013-01`,
`2013-Q1`; `000017` counts rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from retrain.config import PeriodKind
from retrain.errors import ConfigError, DataError
from retrain.lazy import polars as pl

_EXAMPLES = {
    PeriodKind.hour: "2013-01-31T05",
    PeriodKind.day: "2013-01-31",
    PeriodKind.week: "2013-W05",
    PeriodKind.month: "2013-01",
    PeriodKind.quarter: "2013-Q1",
    PeriodKind.rows: "000017",
}


@dataclass(frozen=True, order=True)
class Period:
    """The half-open span [start, end) of a batch; ordered by time."""

    start: datetime
    end: datetime
    key: str


def parse_period(key: str, kind: PeriodKind) -> Period:
    """The period that a key names. Raises DataError with an example when it isn't a key of that
    kind."""
    try:
        start = _start(key, kind)
        end = _end(start, kind)
    except (ValueError, OverflowError):  # the calendar ends
        raise DataError(
            f"{key!r} is not a {kind.name}: write it like {_EXAMPLES[kind]!r}."
        ) from None
    return Period(start, end, key)


def period_keys(times: pl.Expr, kind: PeriodKind) -> pl.Expr:
    """The key of the period that each time lies in, as strings. Not for periods that count rows."""
    if kind is PeriodKind.quarter:
        return pl.format("{}-Q{}", times.dt.year(), times.dt.quarter())
    formats = {
        PeriodKind.hour: "%Y-%m-%dT%H",
        PeriodKind.day: "%Y-%m-%d",
        PeriodKind.week: "%G-W%V",
        PeriodKind.month: "%Y-%m",
    }
    return times.dt.strftime(formats[kind])


def parse_delay(text: str | None) -> float:
    """Seconds of a duration like `12h`, `30d` or `2w`. Raises ConfigError for anything else."""
    if text is None:
        return 0.0
    match = re.fullmatch(r"(\d{1,5})([hdw])", text.strip())
    if not match:
        raise ConfigError(
            f"`data.label_delay` is {text!r}, but must be a number of hours, days or weeks, of at "
            "most five digits: 12h, 30d, 2w."
        )
    return int(match[1]) * {"h": 3600.0, "d": 86400.0, "w": 604800.0}[match[2]]


def _start(key: str, kind: PeriodKind) -> datetime:
    if kind is PeriodKind.rows:
        # Batches that count rows may begin and end at any time: only their order is known.
        if not re.fullmatch(r"\d{6}", key):
            raise ValueError(key)
        return datetime.min + timedelta(seconds=int(key))
    if kind is PeriodKind.hour:
        return datetime.strptime(key, "%Y-%m-%dT%H")
    if kind is PeriodKind.day:
        return datetime.strptime(key, "%Y-%m-%d")
    if kind is PeriodKind.week:
        if not re.fullmatch(r"\d{4}-W\d{2}", key):
            raise ValueError(key)
        return datetime.strptime(key + "-1", "%G-W%V-%u")
    if kind is PeriodKind.month:
        if not re.fullmatch(r"\d{4}-\d{2}", key):
            raise ValueError(key)
        return datetime.strptime(key, "%Y-%m")
    match = re.fullmatch(r"(\d{4})-Q([1-4])", key)
    if not match:
        raise ValueError(key)
    return datetime(int(match[1]), 3 * int(match[2]) - 2, 1)


def _end(start: datetime, kind: PeriodKind) -> datetime:
    if kind is PeriodKind.rows:
        return datetime.max
    if kind in (PeriodKind.hour, PeriodKind.day):
        return start + timedelta(hours=1 if kind is PeriodKind.hour else 24)
    if kind is PeriodKind.week:
        return start + timedelta(weeks=1)
    months = 1 if kind is PeriodKind.month else 3
    total = start.month - 1 + months
    return datetime(start.year + total // 12, total % 12 + 1, 1)
