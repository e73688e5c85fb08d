"""What monitoring a new batch costs, and whether its alarms keep their rate: python
tests/benchmarks/monitoring.py

The batch has a million rows of 100 features; its predecessors are summaries and samples, as many as
asked for. The rate of false alarms is that of the drift report on batches whose rows come from one
distribution, and on batches of a season that moves.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from project.source import NycFlights
from retrain.backtest.corruptions import CORRUPTIONS
from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task, compose
from retrain.data.anomalies import FEWEST_EARLIER, detect_anomalies
from retrain.data.periods import parse_period
from retrain.data.profiles import BatchProfile, from_json, profile_batch
from retrain.data.schema import Schema
from retrain.data.shift import measure_shift
from retrain.monitoring.drift import compare_batches

REPOSITORY = Path(__file__).parents[2]
FEATURES, ROWS = 100, 1_000_000


def schema(numbers: int) -> DataConfig:
    features = {f"x{number}": Column(ColumnType.numeric) for number in range(numbers)}
    return DataConfig(
        name="b",
        task=Task.binary,
        source={},
        period=PeriodKind.month,
        time_column="t",
        key_columns=["id"],
        target_column="y",
        features=features,
    )


def rows(count: int, numbers: int, random: np.random.Generator, shift: float = 0.0) -> pl.DataFrame:
    columns = {f"x{number}": random.normal(shift, 1, count) for number in range(numbers)}
    target = random.random(count) < 1 / (1 + np.exp(-columns["x0"]))
    start = datetime(2024, 1, 1)
    return pl.DataFrame(columns).with_columns(
        id=pl.int_range(count),
        t=pl.lit(start) + pl.int_range(count) * timedelta(seconds=1),
        y=pl.Series(target),
    )


def measure(batches: int) -> float:
    """Seconds to summarize a batch of a million rows, hold it against its predecessors and report
    drift."""
    random, data = np.random.default_rng(0), schema(FEATURES)
    stored = [
        profile_batch(part, part.clear(), data).to_json()
        for part in (rows(20_000, FEATURES, random) for _ in range(min(batches, 12)))
    ]
    stored = [stored[number % len(stored)] for number in range(batches)]
    newest = rows(ROWS, FEATURES, random)
    started = time.perf_counter()
    earlier = [from_json(text) for text in stored[-36:]]
    summary = profile_batch(newest, newest.clear(), data)
    summary = dataclasses.replace(summary, shift=measure_shift(summary, earlier))
    detect_anomalies(summary, earlier)
    compare_batches(summary, earlier[-1], earlier[-24:], ("new", "old"))
    return time.perf_counter() - started


def false_alarms(
    size: int, season: float, histories: int = 150, batches: int = 14
) -> tuple[float, float]:
    """Shares of unchanged histories whose newest batch raises an alarm of drift at 5 %, and is held
    back."""
    random, data = np.random.default_rng(1), schema(8)
    alarms = held = 0
    for _ in range(histories):
        phase, sizes = random.random() * 12, random.integers(size // 2, size * 2, batches)
        summaries: list[BatchProfile] = []
        for number in range(batches):
            shift = season * np.sin(2 * np.pi * (number + phase) / 12)
            part = rows(int(sizes[number]), 8, random, shift)
            summary = profile_batch(part, part.clear(), data)
            summaries.append(dataclasses.replace(summary, shift=measure_shift(summary, summaries)))
        drift = compare_batches(summaries[-1], summaries[-2], summaries[:-1], ("new", "old"))
        alarms += bool(drift.alarms(0.05))
        held += bool(detect_anomalies(summaries[-1], summaries[:-1]))
    return alarms / histories, held / histories


def suspected() -> None:
    """Of the flights' months from the fifth on: how many are suspected as they are, and broken in
    each of the known ways."""
    config = compose(REPOSITORY / "conf")
    source, schema = NycFlights(weather_lag_hours=3), Schema(config.data)
    months = [
        schema.check(source.read(key), parse_period(key, config.data.period)).labelled
        for key in sorted(source.periods())
    ]

    def look(month: pl.DataFrame, earlier: list[BatchProfile]) -> BatchProfile:
        summary = profile_batch(month, month.clear(), config.data)
        return dataclasses.replace(summary, shift=measure_shift(summary, earlier))

    summaries: list[BatchProfile] = []
    for month in months:
        summaries.append(look(month, summaries))
    numbers = range(FEWEST_EARLIER, len(months))
    for name, breaks in {"as they are": lambda rows, config, seed: rows, **CORRUPTIONS}.items():
        found = [
            bool(detect_anomalies(look(breaks(months[n], config, 3), summaries[:n]), summaries[:n]))
            for n in numbers
        ]
        print(f"flights, {name}: {sum(found)} of {len(found)} months held back")


def main() -> None:
    suspected()
    for batches in (12, 120):
        print(
            f"{batches} earlier batches: {measure(batches):.1f} s for a million rows of {FEATURES} "
            "features"
        )
    for size in (300, 3000):
        for season in (0.0, 0.5):
            alarms, held = false_alarms(size, season)
            print(
                f"{size // 2} to {2 * size} rows a batch, season {season}: {alarms:.1%} alarms "
                f"(asked: 5 %), {held:.1%} held back"
            )


if __name__ == "__main__":
    main()
