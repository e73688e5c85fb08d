from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest

from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task
from retrain.data.periods import parse_period
from retrain.data.reading.conversions import to_times
from retrain.data.schema import REASON, SUSPICIOUSLY_CONSTANT, Schema
from retrain.errors import DataError

JANUARY = parse_period("2013-01", PeriodKind.month)
DATA = DataConfig(
    name="test",
    source={},
    period=PeriodKind.month,
    time_column="time",
    key_columns=["id"],
    target_column="target",
    features={
        "amount": Column(ColumnType.numeric, minimum=0, maximum=100),
        "note": Column(ColumnType.numeric, nullable=True),
        "kind": Column(ColumnType.categorical, levels=["a", "b"]),
        "flag": Column(ColumnType.boolean),
    },
    maximum_quarantine_share=0.3,
)


def rows(count: int = 10) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": range(count),
            "time": [datetime(2013, 1, 1 + number) for number in range(count)],
            "amount": [float(number) for number in range(count)],
            "note": [None] * count,
            "kind": ["a", "b"] * (count // 2),
            "flag": [True, False] * (count // 2),
            "target": [number % 2 for number in range(count)],
            "unused": ["x"] * count,
        }
    )


def many(edit: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Enough rows for a constant target to be suspicious."""
    minutes = [
        datetime(2013, 1, 1) + timedelta(minutes=number) for number in range(SUSPICIOUSLY_CONSTANT)
    ]
    tens = pl.concat([rows()] * (SUSPICIOUSLY_CONSTANT // 10))
    return edit(tens.with_columns(pl.Series("id", range(len(tens))), pl.Series("time", minutes)))


def change(column: str, row: int, value: object) -> pl.DataFrame:
    frame = rows()
    values = frame[column].to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values))


def test_a_sound_batch_keeps_other_columns_as_they_are_and_gets_the_types_of_the_schema() -> None:
    """An older champion may have been trained on a column that the schema no longer names."""
    checked = Schema(DATA).check(rows().with_columns(pl.lit([1]).alias("nested")), JANUARY)
    assert (
        len(checked.labelled) == 10
        and checked.unlabelled.is_empty()
        and checked.quarantined.is_empty()
    )
    assert checked.labelled.columns == [
        "time",
        "id",
        "amount",
        "note",
        "kind",
        "flag",
        "target",
        "unused",
    ]
    assert (
        checked.labelled.schema["note"] == pl.Float64
        and checked.labelled.schema["target"] == pl.Boolean
    )


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", -1.0, "amount: below the minimum 0"),
        ("amount", 101.0, "amount: above the maximum 100"),
        ("amount", None, "amount: missing"),
        ("amount", float("nan"), "amount: missing"),
        ("note", float("inf"), "note: infinite"),
        ("kind", "c", "kind: not one of its levels"),
        ("flag", None, "flag: missing"),
        ("time", None, "time: missing"),
        ("time", datetime(2031, 1, 4), "time: outside the period 2013-01"),
    ],
)
def test_a_broken_row_is_quarantined_with_its_reason(
    column: str, value: object, reason: str
) -> None:
    checked = Schema(DATA).check(change(column, 3, value), JANUARY)
    assert checked.quarantined["id"].to_list() == [3]
    assert checked.quarantined[REASON][0].startswith(reason)
    assert len(checked.labelled) == 9 and 3 not in checked.labelled["id"]


def test_a_row_with_two_faults_names_both() -> None:
    frame = change("amount", 3, -1.0).with_columns(
        pl.when(pl.col("id") == 3).then(pl.lit("z")).otherwise("kind").alias("kind")
    )
    (reason,) = Schema(DATA).check(frame, JANUARY).quarantined[REASON]
    assert reason.count(";") == 1 and "amount" in reason and "kind" in reason


def test_rows_without_label_are_kept_apart() -> None:
    checked = Schema(DATA).check(change("target", 4, None), JANUARY)
    assert checked.unlabelled["id"].to_list() == [4]
    assert len(checked.labelled) == 9


def test_an_infinite_amount_goes_to_quarantine_and_too_many_refuse_the_batch() -> None:
    schema = Schema(replace(DATA, task=Task.regression))
    amounts = rows().with_columns(target=pl.col("id") * 1.5)
    infinite = pl.when(pl.col("id") == 3).then(math.inf).otherwise("target").alias("target")
    checked = schema.check(amounts.with_columns(infinite), JANUARY)
    assert checked.quarantined["id"].to_list() == [3]
    assert checked.quarantined[REASON].to_list() == ["target: inf is not a finite number"]
    assert len(checked.labelled) == 9 and checked.labelled["target"].is_finite().all()
    with pytest.raises(
        DataError,
        match=r"(?s)100\.0% of its rows .* target: -inf is not a finite number.*quarantine_share",
    ):
        schema.check(rows().with_columns(target=pl.lit(-math.inf)), JANUARY)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda: rows().clear(), "it has no rows"),
        (lambda: rows().drop("amount"), "it has no column `amount` (`data.features`)"),
        (
            lambda: rows().with_columns(pl.col("amount").cast(pl.String)),
            "`amount` has type String, and the schema says numeric",
        ),
        (
            lambda: rows().with_columns(pl.col("time").cast(pl.String)),
            "time column `time` has type String",
        ),
        (
            lambda: rows().with_columns(pl.lit(2).alias("target")),
            "and the schema says true/false or 1/0",
        ),
        (lambda: many(lambda frame: frame.with_columns(pl.lit(1).alias("target"))), "is constant"),
        (
            lambda: rows().with_columns(pl.lit(7).alias("id")),
            "10 of its 10 rows share their key, such as {'id': 7}",
        ),
        (
            lambda: rows().with_columns(pl.col("time").dt.offset_by("1mo")),
            "most often time: outside the period 2013-01",
        ),
        (lambda: rows().with_columns(amount=-pl.col("amount")), "of its rows break the schema"),
    ],
)
def test_a_batch_that_breaks_the_schema_as_a_whole_is_refused(
    broken: Callable[[], pl.DataFrame], words: str
) -> None:
    with pytest.raises(DataError, match="Batch 2013-01 is refused") as error:
        Schema(DATA).check(broken(), JANUARY)
    assert words in str(error.value) and "dvc repro" in str(error.value)


def test_a_small_batch_may_hold_one_class() -> None:
    checked = Schema(DATA).check(rows().with_columns(pl.lit(0.0).alias("target")), JANUARY)
    assert checked.labelled["target"].to_list() == [False] * 10


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_no_hour_of_a_change_to_or_from_daylight_saving_is_lost_or_doubled(zone: str) -> None:
    """Every hour of a year, in its local time: in UTC they are as many, in the same order."""
    hours = pl.datetime_range(
        datetime(2013, 1, 1), datetime(2013, 12, 31, 23), "1h", time_zone="UTC", eager=True
    )
    naive = to_times(hours.dt.convert_time_zone(zone).alias("time"))
    assert naive.dtype == pl.Datetime("us") and naive.n_unique() == 8760 and naive.is_sorted()
    assert naive[0] == datetime(2013, 1, 1)


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        (Task.binary, [1.0, 0.0, None], [True, False, None]),
        (Task.multiclass, [3, 1, None], ["3", "1", None]),
        (Task.multiclass, ["b", "a", "b"], ["b", "a", "b"]),
        (Task.regression, [1, 2, None], [1.0, 2.0, None]),
        (Task.regression, [1.5, float("nan"), 2.5], [1.5, None, 2.5]),
    ],
)
def test_a_target_becomes_what_its_task_says(task: Task, given: list, expected: list) -> None:
    data = DataConfig(**(vars(DATA) | {"task": task}))
    checked = Schema(data).check(rows(4).head(3).with_columns(pl.Series("target", given)), JANUARY)
    assert checked.everything.sort("id")["target"].to_list() == expected


def test_dates_and_texts_are_columns_too() -> None:
    features = {
        "opened": Column(ColumnType.datetime),
        "comment": Column(ColumnType.text, nullable=True),
    }
    data = DataConfig(**(vars(DATA) | {"features": features}))
    frame = rows().with_columns(
        pl.col("time").dt.date().alias("opened"), pl.lit("good value").alias("comment")
    )
    checked = Schema(data).check(frame, JANUARY)
    assert (
        checked.labelled.schema["opened"] == pl.Datetime("us")
        and checked.labelled["comment"][0] == "good value"
    )
    with pytest.raises(DataError, match="`opened` has type String, and the schema says datetime"):
        Schema(data).check(frame.with_columns(pl.lit("soon").alias("opened")), JANUARY)


def test_a_changed_rule_changes_the_digest() -> None:
    other = DataConfig(
        **(
            vars(DATA)
            | {"features": DATA.features | {"amount": Column(ColumnType.numeric, minimum=1)}}
        )
    )
    assert Schema(DATA).digest != Schema(other).digest
