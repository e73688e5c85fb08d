"""Columns that tell the target, in whatever shape, are found, and honest ones are left in peace,
however strong."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from retrain.config import ColumnType, Task
from retrain.data.inference.explained import explained_share
from retrain.data.inference.leaks import SUSPICIOUS, Leaks, find_leaks

ROWS = 2000
NUMERIC, TIME = ColumnType.numeric, ColumnType.datetime


def leaks(
    task: Task, target: object, keys: tuple[str, ...] = ("time",), **columns: object
) -> Leaks:
    """What is found in a table of hourly rows."""
    hours = [datetime(2023, 1, 1) + timedelta(hours=row) for row in range(len(target))]
    frame = pl.DataFrame({"time": hours, "target": pl.Series(target)} | columns)
    kinds = {name: TIME if frame[name].dtype.is_temporal() else NUMERIC for name in columns}
    kinds |= {name: ColumnType.categorical for name in columns if frame[name].dtype == pl.String}
    return find_leaks(frame, kinds, "target", "time", task, keys)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("rows", [500, 20_000])
def test_a_limit_of_a_column_is_a_leak_at_every_base_rate(share: float, rows: int) -> None:
    """Such as late = delay > 15: the limit lies inside one of a hundred quantiles, and still tells
    everything."""
    delay = np.random.default_rng(0).gumbel(10, 20, rows).round(1)
    low, high = np.quantile(delay, [0.3, 0.3 + min(share, 0.6)])
    late = delay > np.quantile(delay, 1 - share)
    made = leaks(Task.binary, late, minutes=delay, hours=(delay / 60).round(4), other=-(delay**3))
    assert set(made.why) == {"minutes", "hours", "other"}
    assert "almost perfectly" in made.why["hours"]
    assert set(leaks(Task.binary, (delay > low) & (delay < high), delay=delay).why) == {"delay"}
    unknown = pl.Series(np.where(late, delay, np.nan)).fill_nan(None)
    assert set(leaks(Task.binary, late, delay_if_late=unknown).why) == {"delay_if_late"}


@settings(max_examples=40, deadline=None)
@given(
    skew=st.floats(0.1, 3),
    rows=st.integers(300, 3000),
    shape=st.sampled_from([np.copy, np.log, np.sqrt, np.negative, np.reciprocal, np.log1p]),
    scale=st.floats(1e-6, 1e6),
    digits=st.sampled_from([3, 4, None]),
    missing=st.floats(0, 0.4),
)
def test_every_monotone_copy_of_an_amount_is_a_leak_however_skewed_and_rounded(
    skew: float, rows: int, shape: object, scale: float, digits: int | None, missing: float
) -> None:
    random = np.random.default_rng(rows)
    amount = random.lognormal(sigma=skew, size=rows)
    rounded = (
        amount if digits is None else np.array([float(f"{value:.{digits}g}") for value in amount])
    )
    copy = pl.Series(
        np.where(random.random(rows) < missing, np.nan, shape(rounded) * scale)
    ).fill_nan(None)
    assert explained_share(copy, pl.Series(amount), Task.regression) > SUSPICIOUS[Task.regression]


@pytest.mark.parametrize("rows", [500, 2000, 100_000])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_an_honest_predictor_with_an_auc_of_98_is_no_leak(rows: int, share: float) -> None:
    for seed in range(3 if rows > 10_000 else 10):
        random = np.random.default_rng(seed)
        late = random.random(rows) < share
        normal = late * np.sqrt(2) * norm.ppf(0.98) + random.normal(size=rows)
        steep = 10 * random.normal(size=rows)
        drawn = random.random(rows) < 1 / (1 + np.exp(-(steep + 10 * norm.ppf(share))))
        limit = SUSPICIOUS[Task.binary]
        assert explained_share(pl.Series(normal), pl.Series(late), Task.binary) < limit
        assert explained_share(pl.Series(steep), pl.Series(drawn), Task.binary) < limit


@pytest.mark.parametrize("rows", [500, 2000, 100_000])
@pytest.mark.parametrize("skew", [0.3, 1.5])
def test_an_honest_predictor_with_an_r2_of_96_is_no_leak(rows: int, skew: float) -> None:
    for seed in range(3 if rows > 10_000 else 10):
        random = np.random.default_rng(seed)
        amount = random.lognormal(sigma=skew, size=rows)
        honest = np.log(amount) + 0.2 * skew * random.normal(size=rows)
        assert (
            explained_share(pl.Series(honest), pl.Series(amount), Task.regression)
            < SUSPICIOUS[Task.regression]
        )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(100, 2000),
    classes=st.integers(2, 12),
    levels=st.integers(2, 2000),
)
def test_chance_tells_nothing(seed: int, rows: int, classes: int, levels: int) -> None:
    """Neither do names that each row has for itself."""
    random = np.random.default_rng(seed)
    outcome = random.integers(0, classes, rows)
    numbers, names = (
        pl.Series(random.normal(size=rows)),
        pl.Series(random.integers(0, levels, rows)).cast(pl.String),
    )
    for values in (numbers, names):
        for target, task in (
            (outcome, Task.multiclass),
            (outcome, Task.regression),
            (random.lognormal(size=rows), Task.regression),
        ):
            assert explained_share(values, pl.Series(target), task) < 0.5


def test_yesterdays_value_is_known_today_and_a_copy_of_todays_is_not() -> None:
    """A price that hardly moves is told almost perfectly by its own past, also of each of several
    shops."""
    random = np.random.default_rng(0)
    price = np.exp(np.cumsum(0.01 * random.normal(size=ROWS)))
    columns = {"yesterday": np.r_[price[0], price[:-1]], "in_cents": (100 * price).round()}
    assert set(leaks(Task.regression, price, **columns).why) == {"in_cents"}
    shops = {name: [value for value in column for _ in "ab"] for name, column in columns.items()}
    both = np.column_stack([price, price[::-1]]).ravel()
    shops["yesterday"] = np.r_[both[:2], both[:-2]]
    shops["in_cents"] = 100 * both
    made = leaks(Task.regression, both, keys=("time", "shop"), shop=["a", "b"] * ROWS, **shops)
    assert set(made.why) == {"in_cents"}


def test_a_column_that_grows_with_time_is_no_leak_of_what_changes_slowly() -> None:
    slow = np.sin(np.arange(ROWS) / 300)
    made = leaks(
        Task.regression, slow, day=np.arange(ROWS) // 24, number=np.arange(ROWS), copy=slow * 7
    )
    assert set(made.why) == {"copy"}


def test_what_lies_between_two_moments_is_known_when_the_second_has_come() -> None:
    random = np.random.default_rng(0)
    minutes = random.lognormal(3, 1, ROWS)
    start = pl.Series([datetime(2023, 1, 1) + timedelta(hours=row) for row in range(ROWS)])
    ended = start + pl.Series(minutes * 60e6).cast(pl.Int64).cast(pl.Duration("us"))
    distance = minutes * random.lognormal(sigma=0.3, size=ROWS)
    tip = random.random(ROWS) < 0.3
    made = leaks(Task.binary, tip, ended=ended, minutes=minutes.round(1), distance=distance)
    assert set(made.why) == {"ended", "minutes"}
    assert "between `time` and `ended`" in made.why["minutes"]


def test_one_of_several_classes_is_told_by_a_flag_or_a_fee_and_limits_are_only_doubted() -> None:
    """That petals of iris setosa are short is a finding; that only refunds have a refund's fee is
    none."""
    random = np.random.default_rng(0)
    kind = random.choice(["kept", "refund", "swap"], ROWS, p=[0.8, 0.1, 0.1])
    refund = kind == "refund"
    made = leaks(
        Task.multiclass,
        kind,
        fee=np.where(refund, random.lognormal(size=ROWS), 0.0),
        reason=np.where(refund, "too small", random.choice(["", "a gift"], ROWS)),
        refunded_at=pl.Series(np.where(refund, 1.5, np.nan)).fill_nan(None),
        weight=random.normal(size=ROWS) + 10 * refund,
        honest=random.normal(size=ROWS) + refund,
    )
    assert set(made.why) == {"fee", "reason", "refunded_at"}
    assert all("class `refund`" in why for why in made.why.values())
    assert len(made.doubts) == 1 and "`weight`" in made.doubts[0]


def test_two_columns_that_make_up_the_target_are_leaks() -> None:
    random = np.random.default_rng(0)
    casual, registered = random.poisson(50, ROWS), random.poisson(300, ROWS)
    price, quantity = random.lognormal(size=ROWS).round(2), random.integers(1, 9, ROWS)
    made = leaks(
        Task.regression, casual + registered, casual=casual, registered=registered, price=price
    )
    assert set(made.why) == {"casual", "registered"} and "is the target" in made.why["casual"]
    gaps = pl.Series(np.where(casual > 50, np.nan, registered)).fill_nan(None)
    made = leaks(
        Task.regression,
        casual + registered,
        casual=casual,
        registered=gaps,
        gone=pl.Series([None] * ROWS, dtype=pl.Float64),
    )
    assert set(made.why) == {"casual", "registered"}
    made = leaks(Task.regression, price * quantity, casual=casual, price=price, quantity=quantity)
    assert set(made.why) == {"price", "quantity"}
    made = leaks(Task.regression, registered - casual, casual=casual, registered=registered)
    assert set(made.why) == {"casual", "registered"}
    made = leaks(Task.regression, (price / quantity * 1e4).round(1), price=price, quantity=quantity)
    assert not made.why and "`price` / `quantity` is the target" in made.doubts[0]
    noisy = casual + registered + random.normal(size=ROWS)
    assert not leaks(Task.regression, noisy, casual=casual, registered=registered).why


def test_a_table_in_turns_is_not_seen_in_one_of_them_only() -> None:
    """A large table is looked at in part: not in each second row, which may be the one machine that
    tells."""
    random = np.random.default_rng(0)
    rows = 100_000  # twice as many as are looked at
    late, chance = random.random((2, rows)) < 0.4
    told_in_turn = np.where(np.arange(rows) % 2 == 0, late, chance)
    assert not leaks(Task.binary, late, told_in_turn=told_in_turn.astype(float)).why
