"""Out-of-core training: time and peak memory of strategy `streaming` against the number of rows.

    python tests/benchmarks/streaming.py                     # 3, 10 and 30 million rows, some
    minutes python tests/benchmarks/streaming.py --rows 3000000

The rows are flights drawn with replacement, a million a batch. Every size is trained in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time as clock
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from project.source import NycFlights
from retrain.config import compose
from retrain.data.manifest import Manifest
from retrain.data.schema import CheckedBatch
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.models.training import train

CONF = Path(__file__).parents[2] / "conf"
ROWS_A_BATCH = 1_000_000


def write(folder: Path, rows: int) -> None:
    """A snapshot of so many rows."""
    config = compose(CONF, ["model=sgd", "strategy=streaming"])
    source = NycFlights(weather_lag_hours=3)
    flights = pl.concat([source.read(month) for month in source.periods()]).drop_nulls("late")
    numeric = [
        name for name, column in config.data.features.items() if column.type.name == "numeric"
    ]
    flights = flights.with_columns(pl.col(numeric).cast(pl.Float64))
    store = SnapshotStore(folder)
    batches = []
    for number in range(rows // ROWS_A_BATCH):
        start = datetime(1990 + number // 12, number % 12 + 1, 1)
        time = pl.lit(start).cast(pl.Datetime("us")) + pl.duration(
            seconds=pl.int_range(ROWS_A_BATCH)
        )
        drawn = flights.sample(ROWS_A_BATCH, with_replacement=True, seed=number)
        drawn = drawn.with_columns(time.alias("scheduled_departure"))
        empty = drawn.clear()
        batch = store.stage(
            f"{start:%Y-%m}", 1, str(number), CheckedBatch(drawn, empty, empty), config.data
        )
        batches.append(batch)
    store.commit(Manifest("benchmark", tuple(batches)))


def learn(folder: Path) -> dict:
    config = compose(CONF, ["model=sgd", "strategy=streaming"])
    store = SnapshotStore(folder)
    started = clock.perf_counter()
    training = train(
        config, store.manifest(), store, Window(datetime.min, datetime.max - timedelta(days=1))
    )
    seconds = clock.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"rows": training.record.rows, "seconds": seconds, "gigabytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure out-of-core training.")
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000_000, 10_000_000, 30_000_000])
    parser.add_argument("--snapshot", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.snapshot:
        print(json.dumps(learn(options.snapshot)))
        return
    print(f"{'rows':>12}{'seconds':>10}{'seconds a million':>20}{'peak GB':>10}")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows)
            command = [sys.executable, __file__, "--snapshot", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
        million = found["seconds"] / found["rows"] * 1e6
        print(
            f"{found['rows']:>12,}{found['seconds']:>10.1f}{million:>20.2f}"
            f"{found['gigabytes']:>10.2f}"
        )


if __name__ == "__main__":
    main()
