"""Rules of time: no row on both sides, nothing from the future, nothing lost."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrain.config import EvaluationConfig
from retrain.data.manifest import Batch
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
        times = [datetime(2013, 1, 1) + timedelta(minutes=m) for m in draw(st.lists(minutes, min_size=1, max_size=40))]
        batches.append(batch(f"p{number}", times))
        rows += times
    return batches, pl.DataFrame({"time": rows}, schema={"time": pl.Datetime("us")})


def evaluation(share: float, block: timedelta = DAY, minimum_blocks: int = 1) -> EvaluationConfig:
    return EvaluationConfig(share, minimum_blocks, int(block / timedelta(hours=1)))


def plan(batches: list[Batch], share: float, block: timedelta) -> Windows:
    try:
        return plan_windows(batches, evaluation(share, block))
    except DataError:
        assume(False)
        raise


@given(histories(), st.floats(0.05, 0.95), st.sampled_from([timedelta(hours=6), DAY, timedelta(days=7)]))
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
def test_validation_lies_inside_the_training_window(history: tuple[list[Batch], pl.DataFrame], share: float) -> None:
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
def test_the_batches_of_a_window_hold_all_its_rows(history: tuple[list[Batch], pl.DataFrame], share: float) -> None:
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
        plan_windows([batch("2013-01-01", [datetime(2013, 1, 1, 5), datetime(2013, 1, 1, 9)])], evaluation(0.5))


def test_no_labelled_rows_is_an_error_that_names_the_key() -> None:
    with pytest.raises(DataError, match=r"data\.as_of"):
        plan_windows([], evaluation(0.5))


def test_the_window_of_short_batches_reaches_back_over_earlier_ones() -> None:
    days = [batch(f"2013-01-{day:02}", [datetime(2013, 1, day, 5), datetime(2013, 1, day, 20)]) for day in range(1, 11)]
    windows = plan_windows(days, evaluation(1 / 3, minimum_blocks=5))
    assert windows.evaluation.start == datetime(2013, 1, 6) and windows.evaluation.end == datetime(2013, 1, 11)
    assert [b.period for b in batches_in(days, windows.evaluation)] == [f"2013-01-{day:02}" for day in range(6, 11)]


def test_small_batches_make_the_window_reach_back_until_it_holds_enough_rows() -> None:
    """Twenty batches of ten days with ten rows each: a third of the newest one is 30 rows."""
    start = datetime(2013, 1, 1)
    batches = [
        batch(f"{number:06}", [start + timedelta(days=10 * number, hours=2.4 * row) for row in range(100)])
        for number in range(20)
    ]
    asked = dataclasses.replace(evaluation(0.3333), minimum_rows=0)

    def days(minimum_rows: int) -> float:
        window = plan_windows(batches, dataclasses.replace(asked, minimum_rows=minimum_rows)).evaluation
        return (window.end - window.start) / DAY

    assert days(0) == days(20) == 3
    assert days(145) == 15
    assert days(10**6) == 80, "40 % of the time, and no more"
