from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.config import PeriodKind
from retrain.data.periods import parse_period
from retrain.errors import DataError

FORMATS = {PeriodKind.day: "%Y-%m-%d", PeriodKind.week: "%G-W%V", PeriodKind.month: "%Y-%m"}


@pytest.mark.parametrize(
    ("key", "kind", "start", "end"),
    [
        ("2024-02-29", PeriodKind.day, datetime(2024, 2, 29), datetime(2024, 3, 1)),
        ("2020-W53", PeriodKind.week, datetime(2020, 12, 28), datetime(2021, 1, 4)),
        ("2013-12", PeriodKind.month, datetime(2013, 12, 1), datetime(2014, 1, 1)),
        ("2013-Q4", PeriodKind.quarter, datetime(2013, 10, 1), datetime(2014, 1, 1)),
    ],
)
def test_a_key_names_its_half_open_span(
    key: str, kind: PeriodKind, start: datetime, end: datetime
) -> None:
    period = parse_period(key, kind)
    assert (period.start, period.end, period.key) == (start, end, key)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(sorted(FORMATS, key=str)),
)
def test_every_moment_lies_in_the_period_that_is_named_after_it(
    moment: datetime, kind: PeriodKind
) -> None:
    period = parse_period(moment.strftime(FORMATS[kind]), kind)
    assert period.start <= moment < period.end
    assert parse_period(period.end.strftime(FORMATS[kind]), kind).start == period.end


@pytest.mark.parametrize("key", ["2013", "2013-13", "2013-1", "january", "2013-01-01", ""])
def test_a_key_of_another_kind_is_refused_with_an_example(key: str) -> None:
    with pytest.raises(DataError, match="write it like '2013-01'"):
        parse_period(key, PeriodKind.month)
