"""What `retrain init` guesses from a table, and what it admits not to know."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain.config import ColumnType, PeriodKind, Task
from retrain.data.inference.draft import Draft
from retrain.data.inference.periods import guess_period
from retrain.data.inference.schema import draft_schema
from retrain.errors import DataError

ROWS = 4000


def table(**columns: object) -> pl.DataFrame:
    random = np.random.default_rng(0)
    start = datetime(2023, 1, 1)
    frame = pl.DataFrame(
        {
            "order_id": range(ROWS),
            "sold_at": [start + timedelta(hours=4.5 * row) for row in range(ROWS)],
            "price": random.lognormal(size=ROWS),
            "returning": random.random(ROWS) < 0.3,
            "country": random.choice(["DE", "FR", "NL"], ROWS),
            "late": random.random(ROWS) < 0.2,
        }
    )
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def draft(
    frame: pl.DataFrame,
    target: str = "late",
    time: str = "sold_at",
    period: PeriodKind | None = None,
) -> Draft:
    return draft_schema(frame, target, time, period, None)


def test_an_ordinary_table_raises_no_doubts() -> None:
    made = draft(table())
    assert (made.task, made.metric, made.period, made.key_columns) == (
        Task.binary,
        "log_loss",
        PeriodKind.quarter,
        ["order_id"],
    )
    assert {name: feature.type.name for name, feature in made.features.items()} == {
        "price": "numeric",
        "returning": "boolean",
        "country": "categorical",
    }
    assert made.features["price"].minimum == 0 and not made.features["price"].nullable
    assert made.left_out == {"order_id": "it names the row"} and not made.leaks


@pytest.mark.parametrize(
    ("target", "task", "positive"),
    [
        (np.arange(ROWS) % 2, Task.binary, None),
        (np.where(np.arange(ROWS) % 3, "kept", "returned"), Task.binary, "returned"),
        (np.array(["a", "b", "c", "d"])[np.arange(ROWS) % 4], Task.multiclass, None),
        (np.arange(ROWS) % 5, Task.multiclass, None),
        (np.arange(ROWS) % 40, Task.regression, None),
        (np.arange(ROWS) / 7, Task.regression, None),
    ],
)
def test_the_task_follows_from_the_target(
    target: np.ndarray, task: Task, positive: str | None
) -> None:
    made = draft(table(late=target))
    assert (made.task, made.positive_label) == (task, positive)


@pytest.mark.parametrize(
    ("step", "period"),
    [
        (timedelta(hours=4.5), PeriodKind.quarter),
        (timedelta(hours=1), PeriodKind.month),
        (timedelta(minutes=15), PeriodKind.week),
        (timedelta(minutes=3), PeriodKind.day),
        (timedelta(seconds=12), PeriodKind.hour),
        (timedelta(seconds=1), PeriodKind.rows),
    ],
)
def test_the_period_follows_from_the_times(step: timedelta, period: PeriodKind) -> None:
    made = draft(table(sold_at=[datetime(2023, 1, 1) + step * row for row in range(ROWS)]))
    assert made.period is period
    assert 6 <= made.batches <= 60


def test_years_are_batches_of_their_own() -> None:
    made = draft(table(sold_at=2000 + np.arange(ROWS) // 500))
    assert (made.period, made.batches, made.time_format) == (PeriodKind.quarter, 8, "%Y")
    assert made.block_hours == 24 * 366 or made.block_hours == 24 * 365


def test_leaks_are_found_and_left_out() -> None:
    frame = table()
    late = frame["late"]
    random = np.random.default_rng(1)
    labels = pl.Series([value if row < 3500 else None for row, value in enumerate(late)])
    made = draft(
        frame.with_columns(
            labels.alias("late"),
            pl.when(late).then(30.0).otherwise(pl.Series(random.random(ROWS))).alias("delay_hours"),
            pl.when(labels.is_null())
            .then(None)
            .otherwise(pl.Series(random.random(ROWS)))
            .alias("refund"),
            (pl.col("sold_at") + timedelta(days=2)).alias("delivered_at"),
            (pl.col("sold_at") - timedelta(days=2)).alias("registered_at"),
        )
    )
    assert set(made.leaks) == {"delay_hours", "refund", "delivered_at"}
    assert (
        "almost perfectly" in made.leaks["delay_hours"]
        and "missing exactly where" in made.leaks["refund"]
    )
    assert "lies after `sold_at`" in made.leaks["delivered_at"]
    assert made.features["registered_at"].type is ColumnType.datetime


def test_a_column_that_tells_one_of_several_classes_is_a_leak() -> None:
    kind = np.array(["a", "b", "c"])[np.arange(ROWS) % 3]
    random = np.random.default_rng(2)
    made = draft(
        table(late=random.permutation(kind)).with_columns((pl.col("late") == "b").alias("is_b"))
    )
    assert set(made.leaks) == {"is_b"}


def test_texts_names_and_constants_are_told_apart() -> None:
    random = np.random.default_rng(3)
    words = ["good", "bad", "blue", "never again", "as described", "too small", "arrived late"]
    made = draft(
        table(
            comment=[" ".join(random.choice(words, 8)) for _ in range(ROWS)],
            customer=[f"customer {row}" for row in range(ROWS)],
            shop=["the only one"] * ROWS,
            city=random.choice(
                [f"a city with a rather long name, number {number}" for number in range(40)], ROWS
            ),
        )
    )
    assert made.features["comment"].type is ColumnType.text
    assert made.features["city"].type is ColumnType.categorical
    assert set(made.left_out) == {"order_id", "customer", "shop"}


def test_keys_are_found_among_columns_or_rows_are_numbered() -> None:
    frame = table().drop("order_id")
    assert draft(frame).key_columns == ["sold_at"]
    twice = pl.concat([frame, frame.with_columns(pl.lit("BE").alias("country"))])
    twice = twice.with_columns(
        pl.when(pl.col("country") == "BE")
        .then(pl.lit("BE"))
        .otherwise(pl.lit("DE"))
        .alias("country")
    )
    assert draft(twice).key_columns == ["sold_at", "country"]
    made = draft(pl.concat([frame, frame]))
    assert made.key_columns == ["row_number"] and any("numbered" in doubt for doubt in made.unsure)


def test_a_series_of_its_own_has_the_time_as_feature() -> None:
    made = draft(table().select("sold_at", "price"), target="price")
    assert list(made.features) == ["sold_at"] and made.task is Task.regression


@pytest.mark.parametrize(
    ("frame", "target", "time", "words"),
    [
        (table(), "nothing", "sold_at", "no such column"),
        (table(), "late", "nothing", "no such column"),
        (table().clear(), "late", "sold_at", "no rows"),
        (table(late=[True] * ROWS), "late", "sold_at", "nothing to predict"),
        (
            table(late=[f"text {row}" for row in range(ROWS)]),
            "late",
            "sold_at",
            "neither a number nor",
        ),
        (
            table(sold_at=[None] * 400 + [datetime(2023, 1, 1)] * (ROWS - 400)),
            "late",
            "sold_at",
            "400 rows have no `sold_at`",
        ),
        (table(sold_at=np.random.default_rng(0).random(ROWS)), "late", "sold_at", "--time-format"),
    ],
)
def test_what_can_not_be_is_refused(
    frame: pl.DataFrame, target: str, time: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        draft(frame, target, time)


@pytest.mark.parametrize(
    ("step", "rows", "period"),
    [
        (timedelta(days=1), 3 * 365, PeriodKind.month),
        (timedelta(days=1.4), 3 * 260, PeriodKind.month),  # working days
        (timedelta(days=1), 365, PeriodKind.month),
        (timedelta(days=1), 10 * 365, PeriodKind.month),
        (timedelta(days=1), 90, PeriodKind.week),
        (timedelta(days=7), 3 * 52, PeriodKind.quarter),
        (timedelta(hours=1), 3 * 365 * 24, PeriodKind.month),
        (timedelta(hours=1), 60 * 24, PeriodKind.week),
        (timedelta(minutes=1), 5 * 24 * 60, PeriodKind.hour),
        (timedelta(days=30.5), 40 * 12, PeriodKind.quarter),
        (timedelta(minutes=15), 300, PeriodKind.day),
    ],
)
def test_batches_are_those_of_a_calendar_however_few_rows_there_are(
    step: timedelta, rows: int, period: PeriodKind
) -> None:
    times = pl.Series([datetime(2020, 1, 1) + step * row for row in range(rows)])
    assert guess_period(times) is period


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3000),
    days=st.floats(0.01, 15_000),
    seed=st.integers(0, 100),
)
def test_batches_count_rows_only_where_there_are_hardly_any_hours(
    rows: int, days: float, seed: int
) -> None:
    seconds = np.random.default_rng(seed).integers(0, max(1, int(days * 86400)), rows)
    times = pl.Series([datetime(1990, 1, 1) + timedelta(seconds=int(second)) for second in seconds])
    hours = times.dt.truncate("1h").n_unique()
    assert (guess_period(times) is PeriodKind.rows) == (hours < (3 if rows < 1200 else 6))


def test_a_newest_batch_that_has_only_begun_is_doubted() -> None:
    hourly = table(sold_at=[datetime(2023, 1, 1) + timedelta(hours=2 * row) for row in range(ROWS)])
    assert not any(
        "newest batch" in doubt for doubt in draft(hourly.head(3600)).unsure
    )  # to 27 October
    (doubt,) = (doubt for doubt in draft(hourly.head(3660)).unsure if "newest batch" in doubt)
    assert "2023-11" in doubt and "`as_of: 2023-10`" in doubt


def test_times_of_day_and_ratios_are_no_names_with_values() -> None:
    random = np.random.default_rng(0)
    made = draft(
        table(
            opens=random.choice(["09:30", "10:00", "7:15"], ROWS),
            shift=random.choice(["09:30 17:45", "10:00 18:00"], ROWS),
            screen=random.choice(["16:9", "4:3"], ROWS),
            genes=random.choice(["g1:2.5 g2:1", "g3:4", ""], ROWS),
        )
    )
    kinds = {name: made.features[name].type.name for name in ("opens", "shift", "screen", "genes")}
    assert kinds == {
        "opens": "categorical",
        "shift": "categorical",
        "screen": "categorical",
        "genes": "sparse",
    }
    assert [doubt.split("`")[1] for doubt in made.unsure if "times of day" in doubt] == ["opens"]


def test_zones_in_a_second_column_are_pointed_at() -> None:
    zones = np.random.default_rng(0).choice(["Europe/Berlin", "America/New_York"], ROWS)
    assert any("`zone` holds time zones" in doubt for doubt in draft(table(zone=zones)).unsure)
    zoned = table(zone=zones).with_columns(pl.col("sold_at").dt.replace_time_zone("UTC"))
    assert not any("holds time zones" in doubt for doubt in draft(zoned).unsure)


def test_classes_that_are_hardly_there_are_pointed_at() -> None:
    shares = 0.5 ** np.arange(1, 13)
    kinds = np.random.default_rng(0).choice(
        [f"kind {k}" for k in range(12)], ROWS, p=shares / shares.sum()
    )
    (doubt,) = (doubt for doubt in draft(table(late=kinds)).unsure if "evaluated together" in doubt)
    counts = np.unique(kinds, return_counts=True)[1]
    assert doubt.startswith(f"{sum(counts < 100)} of {len(counts)} classes of `late`")
    few = draft(table(late=np.arange(ROWS) % 100 == 0))
    assert any("Only 40 rows have the rarer value" in doubt for doubt in few.unsure)
    assert not any("to train on" in doubt for doubt in draft(table()).unsure)
    many = np.array([f"class {k}" for k in range(25)])[np.arange(ROWS) % 25]
    assert any("Boosting grows 25 trees" in doubt for doubt in draft(table(late=many)).unsure)


@pytest.mark.filterwarnings("error")
def test_infinite_targets_are_counted_and_nothing_is_guessed_from_them() -> None:
    random = np.random.default_rng(1)
    amounts = random.lognormal(size=ROWS)
    marred = amounts.copy()
    marred[[5, 70, 900]] = np.inf, -np.inf, np.inf
    made = draft(table(late=marred))
    assert made.task is Task.regression
    assert "3 of 4,000 values of `late` are infinite: those rows go to quarantine." in made.unsure
    assert not any("infinite" in doubt for doubt in draft(table(late=amounts)).unsure)
    copied = draft(table(late=marred, price=np.exp(np.where(np.isfinite(marred), marred, 1) / 9)))
    assert "price" in copied.leaks
    with pytest.raises(DataError, match="nothing to predict"):
        draft(table(late=[1.5, np.inf, -np.inf, np.inf] * (ROWS // 4)))
