"""Batches on hold: what is news and no fault, what is too small to judge, and how a hold ends when
things have changed for good."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrain.backtest.fault_injection import InMemory
from retrain.config import Column, ColumnType, DataConfig, MonitoringConfig, PeriodKind, Task
from retrain.data.holds import decide_holds
from retrain.data.manifest import PROFILE, Batch, read_manifest
from retrain.data.profiles import profile_batch
from retrain.pipeline.snapshot import how_to_accept, how_to_hold_again

DATA = DataConfig(
    name="d",
    task=Task.binary,
    source={},
    period=PeriodKind.month,
    time_column="t",
    key_columns=["id"],
    target_column="y",
    features={
        "x": Column(ColumnType.numeric, nullable=True),
        "price": Column(ColumnType.numeric),
        "kind": Column(ColumnType.categorical, nullable=True),
    },
)
Change = Callable[[pl.DataFrame], pl.DataFrame]


def month(number: int, count: int = 1500) -> pl.DataFrame:
    random = np.random.default_rng(number)
    x, start = random.normal(0, 1, count), datetime(2020, 1, 1) + timedelta(days=30.4 * number)
    return pl.DataFrame(
        {
            "id": np.arange(count),
            "t": [start + timedelta(minutes=15 * row) for row in range(count)],
            "x": x,
            "price": np.exp(random.normal(3, 0.4, count)),
            "kind": random.choice(["a", "b", "c"], count),
            "y": random.random(count) < 1 / (1 + np.exp(-1.5 * x)),
        }
    )


def judge(months: Sequence[pl.DataFrame], **monitoring: object) -> list[Batch]:
    batches, profiles = [], {}
    for number, rows in enumerate(months):
        profile = profile_batch(rows, rows.clear(), DATA)
        period, first, last = f"{number:02}", rows["t"].min(), rows["t"].max()
        batches.append(
            Batch(period, 1, len(rows), 0, 0, None, first, last, period, {PROFILE: ""}, until=last)
        )
        profiles[period] = profile
    return list(decide_holds(batches, InMemory(profiles), MonitoringConfig(**monitoring)))


def held(batches: Sequence[Batch]) -> list[int]:
    return [number for number, batch in enumerate(batches) if batch.on_hold]


def changed(change: Change, numbers: Sequence[int], count: int) -> list[pl.DataFrame]:
    return [
        change(month(number)) if number in numbers else month(number) for number in range(count)
    ]


REFORMS: dict[str, Change] = {
    "the relation turns around": lambda rows: rows.with_columns(~pl.col("y")),
    "another unit": lambda rows: rows.with_columns(pl.col("price") * 3),
    "other codes": lambda rows: rows.with_columns(pl.col("kind").str.to_uppercase()),
    "a column that is no longer filled in": lambda rows: rows.with_columns(
        pl.lit(None, pl.Float64).alias("x")
    ),
}


@pytest.mark.parametrize("name", REFORMS)
def test_a_change_for_good_is_on_hold_until_enough_later_batches_agree_with_it(name: str) -> None:
    count = 15
    for newest in range(7, count):
        decided = judge(changed(REFORMS[name], range(7, count), newest + 1))
        assert held(decided) == (list(range(7, newest + 1)) if newest < 10 else []), newest
    assert [batch.confirmed_by for batch in decided[7:11]] == ["10"] * 4
    assert not any(batch.anomalies for batch in decided[11:]), (
        "once accepted, it is no longer strange"
    )
    assert held(judge(changed(REFORMS[name], range(7, count), count), accept_after=None))[:4] == [
        7,
        8,
        9,
        10,
    ]


@pytest.mark.parametrize("name", REFORMS)
def test_a_fault_that_is_mended_in_time_is_never_accepted(name: str) -> None:
    assert held(judge(changed(REFORMS[name], (7, 8, 9), 14))) == [7, 8, 9]
    assert held(judge(changed(REFORMS[name], (7, 9, 11), 14))) == [7, 9, 11], (
        "sound ones between them agree with the past"
    )


def test_faults_that_do_not_agree_with_each_other_stay_on_hold() -> None:
    months = [month(number) for number in range(12)]
    for number, change in zip(
        range(7, 12), [*REFORMS.values(), REFORMS["another unit"]], strict=True
    ):
        months[number] = change(months[number])
    assert held(judge(months)) == [7, 8, 9, 10, 11]
    # What only the first one has wrong is not borne out by the others.
    both = changed(REFORMS["another unit"], range(7, 11), 11)
    both[7] = both[7].with_columns(~pl.col("y"))
    assert held(judge(both)) == [7, 8, 9, 10]


def test_after_a_change_for_good_the_next_fault_is_noticed() -> None:
    months = changed(REFORMS["the relation turns around"], range(7, 16), 16)
    months[14] = months[14].with_columns(pl.col("y").shuffle(seed=1))
    assert held(judge(months)) == [14]


def test_a_person_holds_accepts_and_is_told_the_way_back() -> None:
    months = changed(REFORMS["another unit"], range(7, 12), 12)
    again = judge(months, hold=["07", "08", "09", "10"])
    assert held(again) == [7, 8, 9, 10, 11], "of what is listed nothing follows for others"
    assert "it is listed under `monitoring.hold`" in again[7].why_on_hold
    assert (
        held(judge(months, accept=["07"])) == [] and held(judge(months, hold_anomalies=False)) == []
    )
    assert held(
        judge([month(number) for number in range(8)], hold=["03"], hold_anomalies=False)
    ) == [3]
    accepted = [batch for batch in judge(months) if batch.confirmed_by]
    text = how_to_hold_again(accepted)
    assert (
        "`monitoring.hold` in conf/config.yaml: [07, 08, 09, 10]" in text
        and "`monitoring.accept_after: null`" in text
    )
    assert "`monitoring.hold`" in how_to_accept([again[7]], 3)[0]


def test_what_was_found_once_is_not_found_again_and_is_the_same() -> None:
    class Counting(InMemory):
        def unchanged(self, batch: Batch) -> bool:
            return True

        def put_profile(self, batch, profile):
            put.append(batch.period)
            return super().put_profile(batch, profile)

    months, put = changed(REFORMS["another unit"], range(7, 13), 13), []
    first = judge(months)
    profiles = {}
    for number, rows in enumerate(months):
        profiles[f"{number:02}"] = profile_batch(rows, rows.clear(), DATA)
    memory = Counting(profiles)
    once = decide_holds(first, memory, MonitoringConfig())
    assert list(once) == first and put == []
    assert held(decide_holds(once, memory, MonitoringConfig(accept_after=None))) == list(
        range(7, 13)
    )


def test_two_rows_are_too_few_to_judge_and_to_be_judged_by() -> None:
    months = [month(number) for number in range(9)]
    months[5] = (
        months[5]
        .head(2)
        .with_columns(~pl.col("y"), pl.col("price") * 100, x=pl.lit(None, pl.Float64))
    )
    months[8] = months[8].with_columns(~pl.col("y"))
    assert held(judge(months[:6])) == [] and held(judge(months)) == [8]


def test_few_rows_of_a_month_do_not_turn_its_relation_around() -> None:
    months = [month(number) for number in range(8)]
    for seed in range(10):
        random = months[7].head(30).with_columns(pl.col("y").shuffle(seed=seed))
        assert held(judge([*months[:7], random])) == []


@pytest.mark.parametrize(
    "before", ["constant", "missing", "hardly ever filled in", "zero but for a few rows"]
)
def test_a_column_that_comes_alive_is_news_and_no_other_unit(before: str) -> None:
    asleep = {
        "constant": pl.lit(0.0),
        "missing": pl.lit(None, pl.Float64),
        "hardly ever filled in": pl.when(pl.col("id") % 10 == 0).then(0.0),
        "zero but for a few rows": pl.when(pl.col("id") % 50 == 0).then(pl.col("x")).otherwise(0.0),
    }[before]
    months = [month(number).with_columns(asleep.alias("x")) for number in range(7)]
    alive = month(7).with_columns(
        pl.when(pl.col("id") % 3 > 0).then(pl.col("x") * 5 + 40).otherwise(0.0).alias("x")
    )
    assert held(judge([*months, alive])) == []


def test_a_category_that_gets_more_levels_is_news_and_other_names_for_them_are_not() -> None:
    months = [month(number).with_columns(kind=pl.lit("a")) for number in range(7)]
    assert held(judge([*months, month(7)])) == []
    assert held(judge([*months, month(7).with_columns(kind=pl.lit("A"))])) == [7]


def test_a_season_that_was_there_a_year_ago_is_no_fault() -> None:
    """Batches of two weeks, so that last year's lie further back than neighbours do."""

    def week(number: int, times: float) -> pl.DataFrame:
        rows = month(number, 400).with_columns(price=pl.col("price") * times)
        return rows.with_columns(
            t=datetime(2020, 1, 1) + pl.duration(days=14 * number, minutes=20 * pl.col("id"))
        )

    def year(number: int) -> float:
        return 4.0 if number % 26 == 25 else 1.0

    assert held(judge([week(number, year(number)) for number in range(26)], accept_after=None)) == [
        25
    ]
    weeks = [week(number, year(number)) for number in range(52)]
    assert held(judge(weeks, accept=["25"])) == [], "as New Year's prices before"
    weeks[40] = week(40, 4.0)
    assert held(judge(weeks[:41], accept=["25"])) in ([40], []), (
        "the release is remembered as a yardstick"
    )


def test_what_can_not_be_judged_waits_for_a_person_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retrain.data import holds

    def breaks(*arguments: object) -> list[str]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(holds, "detect_anomalies", breaks)
    decided = judge([month(0), month(1)])
    assert (
        held(decided) == [0, 1]
        and "it can't be compared with earlier batches (ZeroDivisionError" in decided[0].why_on_hold
    )
    assert held(judge([month(0), month(1)], accept=["00", "01"])) == []


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Version 0.1 called things by other names, and its first manifests lacked some."""
    entry = dataclasses.asdict(Batch("01", 1, 5, 0, 0, None, None, None, "c", {}))
    for name in ("anomalies", "accepted", "confirmed_by", "compared_with", "held_by_hand"):
        entry.pop(name)
    old = entry | {"suspicions": ["odd"], "beside": "d"}
    entries = [old, old | {"released": True}, old | {"released": False, "accepted": "02"}]
    entries.append(old | {"suspicions": [], "ordered": True})
    content = {"contract": "d", "label_delay": 0.0, "batches": entries}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    batches = read_manifest(tmp_path).batches
    assert [batch.on_hold for batch in batches] == [True, False, False, True]
    assert batches[2].confirmed_by == "02" and batches[0].compared_with == "d"
