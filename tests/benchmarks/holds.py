"""What `monitoring.accept_after` gains and costs: python tests/benchmarks/holds.py TABLE.parquet
TARGET TIME PERIOD [TASK]

A history is judged as it is, and with each known fault in 1, 2, ... batches in a row: how many
sound batches are on hold for good, how many batches with a fault are noticed, and how many of those
are accepted since the fault repeats itself.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl

from retrain.backtest.corruptions import CORRUPTIONS
from retrain.backtest.fault_injection import InMemory
from retrain.config import (
    Column,
    ColumnType,
    Config,
    DataConfig,
    MonitoringConfig,
    PeriodKind,
    Task,
    compose,
)
from retrain.data.anomalies import FEWEST_EARLIER
from retrain.data.holds import decide_holds
from retrain.data.manifest import PROFILE, Batch
from retrain.data.profiles import BatchProfile, profile_batch

LENGTHS, ACCEPT_AFTER = (1, 3, 4, 5), (None, 1, 2, 3, 4)
KINDS = {pl.Boolean: ColumnType.boolean, pl.String: ColumnType.categorical}


def split(table: pl.DataFrame, time: str, period: str) -> list[pl.DataFrame]:
    """Batches of a length as polars writes it, or of so many rows ("1000r"), oldest first."""
    table = table.sort(time, maintain_order=True)
    if period.endswith("r"):
        return list(table.iter_slices(int(period[:-1])))
    return [part for _, part in sorted(table.group_by(pl.col(time).dt.truncate(period)))]


def configure(table: pl.DataFrame, target: str, time: str, task: Task) -> Config:
    features = {
        name: Column(KINDS.get(type(dtype), ColumnType.numeric), nullable=True)
        for name, dtype in table.schema.items()
        if name not in (target, time)
    }
    data = DataConfig(
        name="b",
        task=task,
        source={},
        period=PeriodKind.rows,
        time_column=time,
        key_columns=[],
        target_column=target,
        features=features,
    )
    return dataclasses.replace(compose(Path("conf")), data=data)


def entry(number: int, rows: pl.DataFrame, time: str, content: str) -> Batch:
    first, last = rows[time].min(), rows[time].max()
    return Batch(
        f"{number:04}",
        1,
        len(rows),
        0,
        0,
        None,
        first,
        last,
        content,
        {PROFILE: ""},
        until=last + timedelta(0),
    )


def judge(
    parts: list[pl.DataFrame], summaries: list[BatchProfile], time: str, accept_after: int | None
) -> tuple[Batch, ...]:
    batches = [entry(number, rows, time, str(number)) for number, rows in enumerate(parts)]
    memory = InMemory(
        {batch.period: summary for batch, summary in zip(batches, summaries, strict=True)}
    )
    return decide_holds(batches, memory, MonitoringConfig(accept_after=accept_after))


def main() -> None:
    path, target, time, period, *rest = sys.argv[1:]
    table = pl.read_parquet(path)
    config = configure(table, target, time, Task[rest[0]] if rest else Task.binary)
    parts = split(table, time, period)
    sound = [profile_batch(rows, rows.clear(), config.data) for rows in parts]
    print(f"{path}, {period}: {len(parts)} batches")
    for accept_after in ACCEPT_AFTER:
        decided = judge(parts, sound, time, accept_after)
        held = [batch.period for batch in decided if batch.on_hold]
        late = [batch.period for batch in decided if batch.confirmed_by]
        print(
            f"  as they are, accept_after {accept_after}: {len(held)} on hold {held[:12]}, "
            f"{len(late)} accepted {late[:12]}"
        )
    for batch in judge(parts, sound, time, None):
        if batch.anomalies:
            print(f"    {batch.period} {batch.first_time}: {'; '.join(batch.anomalies)[:230]}")
    if "--faults" not in rest:
        return
    starts = range(FEWEST_EARLIER + 2, len(parts) - max(LENGTHS), max(1, len(parts) // 6))
    for kind, breaks in CORRUPTIONS.items():
        broken = {}
        for number in {start + more for start in starts for more in range(max(LENGTHS))}:
            rows = breaks(parts[number], config, number)
            broken[number] = profile_batch(rows, rows.clear(), config.data)
        for accept_after in ACCEPT_AFTER[2:4]:
            cells = []
            for length in LENGTHS:
                noticed = accepted = 0
                for start in starts:
                    mixed = [
                        broken[n] if start <= n < start + length else sound[n]
                        for n in range(start + length + 1)
                    ]
                    decided = judge(parts[: start + length + 1], mixed, time, accept_after)[
                        start : start + length
                    ]
                    noticed += sum(bool(batch.anomalies) for batch in decided)
                    accepted += sum(bool(batch.confirmed_by) for batch in decided)
                cells.append(f"{noticed}/{len(starts) * length} noticed, {accepted} accepted")
            print(f"  {kind}, accept_after {accept_after}: " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
