"""Rules of time: no row on both sides, nothing from the future, nothing lost."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retrain.config import EvaluationConfig
from retrain.data.manifest import Batch
from retrain.data.snapshot import time_marks
from retrain.data.windows import Windows, batches_in, block_index, plan_validation, plan_windows
from retrain.errors import DataError

DAY = timedelta(days=1)
MINUTES_OF_A_YEAR = 366 * 24 * 60


def batch(period: str, times: list[datetime]) -> Batch:
    return Batch(period, 1, len(times), 0, 0, 0, min(times), max(times), "content", {})


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Batch], pl.DataFrame]:
    """Batches of one to five weeks each, without overlap, and all their rows."""
    edges = sorted(draw(st.sets(st.integers(0, 50), min_size=2, max_size=8)))
    batches, rows = [], []
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        minutes = st.integers(first * 7 * 24 * 60, last * 7 * 24 * 60 - 1)
        times = [
            datetime(2013, 1, 1) + timedelta(minutes=m)
            for m in draw(st.lists(minutes, min_size=1, max_size=40))
        ]
        batches.append(batch(f"p{number}", times))
        rows += times
    return batches, pl.DataFrame({"time": rows}, schema={"time": pl.Datetime("us")})


def evaluation(share: float, block: timedelta = DAY, minimum_blocks: int = 1) -> EvaluationConfig:
    return EvaluationConfig(
        share_of_newest_batch=share,
        minimum_blocks=minimum_blocks,
        block_hours=int(block / timedelta(hours=1)),
    )


def plan(batches: list[Batch], share: float, block: timedelta) -> Windows:
    try:
        return plan_windows(batches, evaluation(share, block))
    except DataError:
        assume(False)
        raise


@given(
    histories(),
    st.floats(0.05, 0.95),
    st.sampled_from([timedelta(hours=6), DAY, timedelta(days=7)]),
)
def test_every_row_is_on_exactly_one_side(
    history: tuple[list[Batch], pl.DataFrame], share: float, block: timedelta
) -> None:
    batches, rows = history
    windows = plan(batches, share, block)
    training, judging = windows.training.rows(rows, "time"), windows.evaluation.rows(rows, "time")
    assert len(training) + len(judging) == len(rows)
    if len(training) and len(judging):
        assert training["time"].max() < judging["time"].min()


@given(histories(), st.floats(0.05, 0.95))
def test_no_block_is_split_between_training_and_evaluation(
    history: tuple[list[Batch], pl.DataFrame], share: float
) -> None:
    batches, rows = history
    windows = plan(batches, share, DAY)
    blocks = rows.with_columns(block_index("time", DAY).alias("block"))
    training = set(windows.training.rows(blocks, "time")["block"])
    judging = set(windows.evaluation.rows(blocks, "time")["block"])
    assert not training & judging


@given(histories(), st.floats(0.05, 0.95))
def test_validation_lies_inside_the_training_window(
    history: tuple[list[Batch], pl.DataFrame], share: float
) -> None:
    batches, rows = history
    windows = plan(batches, share, DAY)
    try:
        inner = plan_validation(windows)
    except DataError:
        assume(False)
        raise
    assert inner.evaluation.end == windows.training.end
    held = len(inner.training.rows(rows, "time")) + len(inner.evaluation.rows(rows, "time"))
    assert held == len(windows.training.rows(rows, "time"))


@given(histories(), st.floats(0.05, 0.95))
def test_the_batches_of_a_window_hold_all_its_rows(
    history: tuple[list[Batch], pl.DataFrame], share: float
) -> None:
    batches, rows = history
    window = plan(batches, share, DAY).training
    spans = [(b.first_time, b.last_time) for b in batches_in(batches, window)]
    for time in window.rows(rows, "time")["time"]:
        assert any(first <= time <= last for first, last in spans)


def test_the_last_third_of_october_starts_on_the_twenty_second() -> None:
    october = batch("2013-10", [datetime(2013, 10, 1, 5), datetime(2013, 10, 31, 23, 59)])
    september = batch("2013-09", [datetime(2013, 9, 1, 5), datetime(2013, 9, 30, 23)])
    windows = plan_windows([september, october], evaluation(1 / 3))
    assert windows.evaluation.start == datetime(2013, 10, 22)
    assert windows.evaluation.end == datetime(2013, 11, 1)
    assert windows.training.start == datetime(2013, 9, 1)


def test_one_block_can_not_both_train_and_evaluate() -> None:
    with pytest.raises(DataError, match="too few to train on some"):
        plan_windows(
            [batch("2013-01-01", [datetime(2013, 1, 1, 5), datetime(2013, 1, 1, 9)])],
            evaluation(0.5),
        )


def test_no_labelled_rows_is_an_error_that_names_the_key() -> None:
    with pytest.raises(DataError, match=r"data\.as_of"):
        plan_windows([], evaluation(0.5))


def test_the_window_of_short_batches_reaches_back_over_earlier_ones() -> None:
    days = [
        batch(f"2013-01-{day:02}", [datetime(2013, 1, day, 5), datetime(2013, 1, day, 20)])
        for day in range(1, 11)
    ]
    windows = plan_windows(days, evaluation(1 / 3, minimum_blocks=5))
    assert windows.evaluation.start == datetime(2013, 1, 6) and windows.evaluation.end == datetime(
        2013, 1, 11
    )
    assert [b.period for b in batches_in(days, windows.evaluation)] == [
        f"2013-01-{day:02}" for day in range(6, 11)
    ]


def test_small_batches_make_the_window_reach_back_until_it_holds_enough_rows() -> None:
    """Twenty batches of ten days with ten rows each: a third of the newest one is 30 rows."""
    start = datetime(2013, 1, 1)
    batches = [
        batch(
            f"{number:06}",
            [start + timedelta(days=10 * number, hours=2.4 * row) for row in range(100)],
        )
        for number in range(20)
    ]
    asked = dataclasses.replace(evaluation(0.3333), minimum_rows=0)

    def days(minimum_rows: int) -> float:
        window = plan_windows(
            batches, dataclasses.replace(asked, minimum_rows=minimum_rows)
        ).evaluation
        return (window.end - window.start) / DAY

    assert days(0) == days(20) == 3
    assert days(145) == 15
    assert days(10**6) == 80, "40 % of the time, and no more"


def with_marks(period: str, times: list[datetime], classes: dict[str, int] | None = None) -> Batch:
    plain = batch(period, times)
    return dataclasses.replace(plain, marks=time_marks(pl.Series(times)), classes=classes or {})


def held(batches: list[Batch], times: list[datetime], asked: EvaluationConfig) -> int:
    window = plan_windows(batches, asked).evaluation
    return sum(window.start <= time < window.end for time in times)


def test_the_window_reaches_back_by_the_rows_that_there_are_not_as_if_they_came_evenly() -> None:
    """Each month's rows come in its first two days, but for one a day: the last third of it holds
    ten."""
    months, times = [], []
    for month in range(1, 13):
        rows = [datetime(2013, month, 1) + timedelta(minutes=6 * row) for row in range(480)]
        rows += [datetime(2013, month, day, 12) for day in range(3, 29)]
        months.append(with_marks(f"2013-{month:02}", rows))
        times += rows
    asked = dataclasses.replace(evaluation(1 / 3, minimum_blocks=5), minimum_rows=300)
    assert held(months, times, asked) >= 300
    assert held([dataclasses.replace(one, marks=()) for one in months], times, asked) < 300, (
        "as it was"
    )


def test_a_block_without_rows_is_no_block_to_judge_on() -> None:
    weekly = [datetime(2010, 1, 4) + timedelta(days=7 * week) for week in range(150)]
    batches = [
        with_marks(f"{number}", weekly[number * 15 : number * 15 + 15]) for number in range(10)
    ]
    window = plan_windows(batches, evaluation(0.01, DAY, minimum_blocks=5)).evaluation
    assert sum(window.start <= time < window.end for time in weekly) == 5


def test_the_window_reaches_back_for_rows_of_rarer_classes() -> None:
    batches, times = [], []
    for month in range(1, 13):
        rows = [datetime(2013, month, 1) + timedelta(hours=row) for row in range(600)]
        batches.append(with_marks(f"2013-{month:02}", rows, {"sound": 595, "broken": 5}))
        times += rows
    asked = dataclasses.replace(evaluation(1 / 3, minimum_blocks=5), minimum_rare_rows=18)
    assert 18 / 5 * 600 * 0.9 <= held(batches, times, asked) <= 18 / 5 * 600 * 1.1
    none = [dataclasses.replace(one, classes={"sound": 600}) for one in batches]
    assert held(none, times, asked) <= 0.41 * len(times), "and no further than 40 %"


def test_the_window_takes_no_more_than_40_percent_of_the_rows_where_most_are_new() -> None:
    times = [datetime(2013, 1, 1) + timedelta(days=day) for day in range(300)]
    times += [datetime(2013, 10, 28) + timedelta(minutes=72 * row) for row in range(1000)]
    batches = [with_marks("old", times[:300]), with_marks("new", times[300:])]
    asked = dataclasses.replace(evaluation(0.02, minimum_blocks=2), minimum_rows=10**6)
    assert held(batches, times, asked) <= 0.4 * len(times) + 20 + 1000 / 99


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=400))
def test_marks_are_the_times_of_rows_first_and_last_included(minutes: list[int]) -> None:
    times = [datetime(2013, 1, 1) + timedelta(minutes=minute) for minute in minutes]
    marks = time_marks(pl.Series(times))
    assert (
        len(marks) == min(100, len(times))
        and set(marks) <= set(times)
        and list(marks) == sorted(marks)
    )
    assert marks[-1] == max(times) and (len(times) == 1 or marks[0] == min(times))


@settings(deadline=None)
@given(histories(), st.floats(0.05, 0.95), st.integers(0, 60), st.integers(1, 5), st.booleans())
def test_a_new_batch_never_moves_the_window_back_into_what_a_champion_was_trained_on(
    history: tuple[list[Batch], pl.DataFrame],
    share: float,
    minimum_rows: int,
    minimum_blocks: int,
    marked: bool,
) -> None:
    """The champion of a snapshot, before its refit, was trained on all before that window. If a
    later one began earlier, nothing could be compared with it."""
    batches, rows = history
    if marked:
        times = [
            rows.filter(pl.col("time").is_between(one.first_time, one.last_time))["time"]
            for one in batches
        ]
        batches = [
            dataclasses.replace(one, marks=time_marks(found))
            for one, found in zip(batches, times, strict=True)
        ]
    asked = dataclasses.replace(
        evaluation(share, minimum_blocks=minimum_blocks), minimum_rows=minimum_rows
    )
    starts = []
    for count in range(1, len(batches) + 1):
        try:
            starts.append(plan_windows(batches[:count], asked).evaluation.start)
        except DataError:
            continue
    assert starts == sorted(starts)
