"""`retrain history --at`: who served at a moment, and by which figures."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from retrain.commands.history import parse_moment, served_at
from retrain.errors import ConfigError
from retrain.registry.entries import Entry

FIGURES = {
    "rmse/challenger": 1234.5678,
    "rmse/incumbent": 1300.0,
    "rmse/minus_incumbent_low": -90.25,
    "rmse/minus_incumbent_high": -40.5,
    "mae/challenger": 0.000123456,
    "decay": 0.1,
}


def entry(seq: int, version: int, previous: int | None, time: str, **more: object) -> Entry:
    fields = dict(
        kind="verdict", verdict="promote", reason="because", champion=version, previous=previous
    )
    fields |= dict(
        trained_until="2013-03-01T00:00:00",
        challenger=version,
        challenger_trained_until="",
        incumbent=previous,
    )
    fields |= dict(
        comparison="c",
        snapshot="s",
        newest_batch="2013-03",
        git_commit=None,
        run_id="r",
        time=time,
        seq=seq,
    )
    return Entry(**(fields | more))


TWO = [
    entry(0, 1, None, "2024-05-01T12:00:00.000+00:00"),
    entry(1, 2, 1, "2024-05-02T23:30:00.000+00:00", figures=FIGURES),
]


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2013-11-15", datetime(2013, 11, 15, 23, 59, 59, 999999, UTC)),
        ("20131115", datetime(2013, 11, 15, 23, 59, 59, 999999, UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        ("2013-11-15T00:00", datetime(2013, 11, 15, tzinfo=UTC)),
        ("2013-11-15 12:30", datetime(2013, 11, 15, 12, 30, tzinfo=UTC)),
        ("2013-11-15T12:00Z", datetime(2013, 11, 15, 12, tzinfo=UTC)),
        ("2013-11-15T01:00+02:00", datetime(2013, 11, 14, 23, tzinfo=UTC)),
        ("2013-11-15T23:00-05:30", datetime(2013, 11, 16, 4, 30, tzinfo=UTC)),
    ],
)
def test_a_date_means_the_end_of_its_day_and_a_time_itself_in_its_zone(
    text: str, moment: datetime
) -> None:
    assert parse_moment(text) == moment and parse_moment(text).utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "last march",
        "03/04/2013",
        "15.11.2013",
        "2013-11",
        "2013",
        "2013-W46",
        "2013-02-30",
        "131115",
        "0001-01-01T00:00+05:00",
    ],
)
def test_what_could_mean_several_moments_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="end of that day in UTC"):
        parse_moment(text)


def said(moment: str, metric: str = "rmse", entries: list[Entry] = TWO) -> str:
    return "\n".join(" ".join(line) for line in served_at(entries, parse_moment(moment), metric))


def test_the_zone_decides_who_served() -> None:
    assert "Champion version 1" in said(
        "2024-05-02T23:45+02:00"
    ) and "2024-05-02 21:45 UTC" in said("2024-05-02T23:45+02:00")
    assert "Champion version 2" in said("2024-05-02T21:45-02:00")
    assert "Champion version 2" in said(
        "20240502"
    ) and "2024-05-02 23:59 UTC, the end of that day" in said("20240502")


def test_the_zone_counts_also_in_replayed_history() -> None:
    replayed = [
        entry(0, 1, None, "2024-05-01T12:00:00.000+00:00", evaluation_end="2013-03-01T00:00:00")
    ]
    assert "Champion version 1" in said("2013-03-01T02:00+02:00", entries=replayed)
    assert "Champion" not in said("2013-03-01T01:00+02:00", entries=replayed)


@pytest.mark.parametrize("metric, first", [("rmse", "rmse"), ("mae", "mae")])
def test_figures_of_any_task_are_shown_the_data_set_s_own_metric_first(
    metric: str, first: str
) -> None:
    text = said("2999-01-01", metric)
    assert (
        "rmse 1235, incumbent 1300, difference [-90.25, -40.5]" in text and "mae 0.0001235" in text
    )
    assert f"Figures {first} " in text


def test_what_a_person_brought_back_is_explained_by_its_own_verdict() -> None:
    back = dataclasses.replace(
        TWO[1],
        kind="rollback",
        verdict="",
        figures={},
        previous=3,
        seq=3,
        time="2024-05-04T00:00:00+00:00",
    )
    entries = [*TWO, entry(2, 3, 2, "2024-05-03T00:00:00.000+00:00"), back]
    assert "rmse 1235" in said("2999-01-01", entries=entries)
