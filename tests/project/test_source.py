"""The default data: what is known at planning time, and no more."""

from __future__ import annotations

import polars as pl
import pytest

from project.source import NycFlights
from retrain.config import Config, PeriodKind
from retrain.data.periods import parse_period
from retrain.data.schema import REASON, Schema


@pytest.fixture(scope="module")
def source() -> NycFlights:
    return NycFlights(weather_lag_hours=3)


def test_twelve_months_with_the_published_number_of_flights(source: NycFlights) -> None:
    assert sorted(source.periods()) == [f"2013-{month:02}" for month in range(1, 13)]
    assert sum(len(source.read(period)) for period in source.periods()) == 336_776
    assert sum(source.read(period)["late"].null_count() for period in source.periods()) == 9_430


def test_nothing_known_after_departure_is_a_column(source: NycFlights) -> None:
    after = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
    assert not after & set(source.read("2013-01").columns)


def test_the_weather_is_that_of_three_hours_before(source: NycFlights) -> None:
    at_departure, before = NycFlights(weather_lag_hours=0).read("2013-01"), source.read("2013-01")
    keys = ["carrier", "flight", "origin", "scheduled_departure"]
    early = (
        before.filter(pl.col("scheduled_departure").dt.hour() == 12).select(*keys, "temp").head(1)
    )
    nine = at_departure.filter(
        (pl.col("scheduled_departure").dt.hour() == 9)
        & (pl.col("scheduled_departure").dt.date() == early["scheduled_departure"].dt.date()[0])
        & (pl.col("origin") == early["origin"][0])
    )
    assert nine["temp"].unique().to_list() == early["temp"].to_list()


def test_a_gust_of_a_thousand_miles_an_hour_goes_to_quarantine(
    source: NycFlights, config: Config
) -> None:
    checked = Schema(config.data).check(
        source.read("2013-02"), parse_period("2013-02", PeriodKind.month)
    )
    assert len(checked.quarantined) == 32
    assert checked.quarantined["wind_speed"].min() > 1_000
    assert checked.quarantined[REASON].str.starts_with("wind_speed").all()
