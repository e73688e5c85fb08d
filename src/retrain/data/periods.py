"""Calendar arithmetic of batch keys: `2013-01-31`, `2013-W05`, `2013-01`, `2013-Q1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from retrain.config import PeriodKind
from retrain.errors import DataError

_EXAMPLES = {
    PeriodKind.day: "2013-01-31",
    PeriodKind.week: "2013-W05",
    PeriodKind.month: "2013-01",
    PeriodKind.quarter: "2013-Q1",
}


@dataclass(frozen=True, order=True)
class Period:
    """The half-open span [start, end) of a batch; ordered by time."""

    start: datetime
    end: datetime
    key: str


def parse_period(key: str, kind: PeriodKind) -> Period:
    """The period that a key names. Raises DataError with an example when it isn't a key of that kind."""
    try:
        start = _start(key, kind)
    except ValueError:
        raise DataError(f"{key!r} is not a {kind.name}: write it like {_EXAMPLES[kind]!r}.") from None
    return Period(start, _end(start, kind), key)


def _start(key: str, kind: PeriodKind) -> datetime:
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
    if kind is PeriodKind.day:
        return start + timedelta(days=1)
    if kind is PeriodKind.week:
        return start + timedelta(weeks=1)
    months = 1 if kind is PeriodKind.month else 3
    total = start.month - 1 + months
    return datetime(start.year + total // 12, total % 12 + 1, 1)
