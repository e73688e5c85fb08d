"""Drift against the data's own history: silent where nothing or only the season has changed, loud
and named where something has."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task
from retrain.data.anomalies import detect_anomalies
from retrain.data.distances import SHRINKAGE, distance, relation, unseen_share
from retrain.data.profiles import (
    GROUPS,
    BatchProfile,
    from_json,
    profile_batch,
    profile_column,
    sample_rows,
)
from retrain.data.shift import measure_shift
from retrain.monitoring.domain_classifier import separate
from retrain.monitoring.drift import FEATURES, TARGET, Pair, calibrate, compare_batches

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
        "z": Column(ColumnType.numeric),
        "color": Column(ColumnType.categorical),
    },
)


def rows(seed: int, count: int = 2000, shift: float = 0.0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    x, z = random.normal(shift, 1, count), random.normal(0, 1, count)
    return pl.DataFrame(
        {
            "id": np.arange(count),
            "t": [datetime(2024, 1, 1) + timedelta(minutes=row) for row in range(count)],
            "x": x,
            "z": z,
            "color": random.choice(["red", "green", "blue"], count, p=[0.5, 0.3, 0.2]),
            "y": random.random(count) < 1 / (1 + np.exp(-z)),
        }
    )


def look(frame: pl.DataFrame) -> BatchProfile:
    return profile_batch(frame, frame.clear(), DATA)


HISTORY = [look(rows(seed)) for seed in range(10)]


def against_history(frame: pl.DataFrame, history: list[BatchProfile] = HISTORY):
    return compare_batches(look(frame), history[-1], history, ("new", "old"))


def test_an_unchanged_batch_of_any_size_raises_no_alarm() -> None:
    for seed, count in ((50, 200), (51, 2000), (52, 20_000)):
        assert against_history(rows(seed, count)).alarms(0.05) == []


@pytest.mark.parametrize(
    ("change", "family", "feature"),
    [
        (pl.col("x") + 0.5, FEATURES, "x"),
        (pl.col("z") * 1.6, FEATURES, "z"),
        (
            pl.when(pl.col("id") % 3 == 0).then(pl.lit("blue")).otherwise("color").alias("color"),
            FEATURES,
            "color",
        ),
        (pl.when(pl.col("id") % 3 == 0).then(None).otherwise("x").alias("x"), FEATURES, "x"),
        ((pl.col("y") | (pl.col("id") % 4 == 0)).alias("y"), TARGET, None),
    ],
)
def test_a_change_is_found_and_named(change: pl.Expr, family: str, feature: str | None) -> None:
    drift = against_history(rows(50).with_columns(change))
    assert drift.alarms(0.05) == [family]
    if feature:
        assert min(drift.features, key=lambda name: drift.features[name].p_value) == feature


def test_a_season_that_comes_back_is_no_alarm_but_the_same_step_without_one_is() -> None:
    seasons = [look(rows(seed, shift=0.5 * (seed % 2))) for seed in range(10)]
    assert against_history(rows(50, shift=0.0), seasons).alarms(0.05) == []
    assert against_history(rows(50, shift=0.5)).alarms(0.05) == [FEATURES]


def test_without_a_history_there_is_no_alarm() -> None:
    drift = against_history(rows(50, shift=3), HISTORY[:3])
    assert drift.alarms(0.05) == [] and drift.features["x"].distance > 0.8


def test_the_p_value_is_the_share_of_unchanged_pairs_that_lie_as_far_apart() -> None:
    """Logarithms of normal size: of a thousand new ones, five in a hundred lie above the 5 %
    limit."""
    random = np.random.default_rng(0)
    below = 0
    for _ in range(1000):
        values = np.exp(random.normal(-2, 0.4, 21))
        change = calibrate(Pair(values[0], 0.0), [Pair(value, 0.0) for value in values[1:]])[0]
        below += change.p_value < 0.05
    assert 30 <= below <= 70


def test_news_are_named() -> None:
    changed = rows(50).with_columns(
        pl.lit(None, pl.Float64).alias("x"), pl.lit(1.0).alias("z"), pl.lit("pink").alias("color")
    )
    news = against_history(changed).schema_changes
    assert any("`x` has vanished" in line for line in news)
    assert any("`z` has become constant" in line for line in news)
    assert any(
        line == "`color` has levels that no batch had before, in 100% of the rows" for line in news
    )
    fewer = dataclasses.replace(look(rows(50)), features={"x": look(rows(50)).features["x"]})
    assert (
        "`z` is gone" in compare_batches(fewer, HISTORY[-1], HISTORY, ("new", "old")).schema_changes
    )
    assert (
        "`z` is new"
        in compare_batches(look(rows(50)), fewer, HISTORY, ("new", "old")).schema_changes
    )


def test_a_column_that_comes_alive_is_news() -> None:
    asleep = [
        look(rows(seed).with_columns(x=pl.lit(None, pl.Float64), z=pl.lit(1.0)))
        for seed in range(6)
    ]
    news = compare_batches(look(rows(50)), asleep[-1], asleep, ("new", "old")).schema_changes
    assert [line.split("`")[1] for line in news if "has come alive" in line] == ["x", "z"]
    assert not any("come alive" in line for line in against_history(rows(50)).schema_changes)


def test_the_distance_of_numbers_is_that_of_kolmogorov_and_smirnov() -> None:
    from scipy.stats import ks_2samp

    random = np.random.default_rng(0)
    for other in (random.normal(0.3, 1, 5000), random.integers(0, 4, 5000).astype(float)):
        one = random.normal(0, 1, 5000)
        columns = [profile_column(pl.Series(values), None, None) for values in (one, other)]
        assert distance(*columns) == pytest.approx(ks_2samp(one, other).statistic, abs=1 / 128)


def test_the_distance_of_levels_is_half_the_sum_of_the_differences() -> None:
    one = profile_column(pl.Series(["a"] * 6 + ["b"] * 4), None, None)
    other = profile_column(pl.Series(["a"] * 3 + ["b"] * 3 + ["c"] * 4), None, None)
    assert distance(one, other) == pytest.approx(0.4)
    assert unseen_share(other, [one]) == pytest.approx(0.4)


def test_the_relation_to_the_target_is_1_as_before_0_shuffled_and_minus_1_turned_round() -> None:
    def slope(frame: pl.DataFrame) -> float:
        product, square = relation(look(frame), HISTORY, "z")
        return product / square

    drawn_to_the_mean = (2000 / GROUPS + SHRINKAGE) / (
        2000 / GROUPS
    )  # what small groups of earlier batches said
    assert slope(rows(50, 8000)) == pytest.approx(drawn_to_the_mean, abs=0.1)
    assert slope(rows(50, 8000).with_columns(pl.col("y").shuffle(1))) == pytest.approx(0, abs=0.1)
    assert slope(rows(50, 8000).with_columns(~pl.col("y"))) == pytest.approx(
        -drawn_to_the_mean, abs=0.1
    )


def test_whole_rows_show_what_no_column_shows_alone() -> None:
    kinds = {"x": ColumnType.numeric, "z": ColumnType.numeric, "color": ColumnType.categorical}
    one, same = rows(1, 1000), rows(2, 1000)
    together = same.with_columns(
        pl.Series("x", np.sort(same["x"].to_numpy())), pl.Series("z", np.sort(same["z"].to_numpy()))
    )
    assert against_history(together.with_columns(y=same["y"].shuffle(1))).alarms(0.05) == []
    unchanged, changed = separate(one, same, kinds, "t"), separate(one, together, kinds, "t")
    assert unchanged.distance < 3 * unchanged.noise**0.5 < 0.3 < changed.distance


@pytest.mark.parametrize("value", [None, 3.0, 1.7e308])
def test_columns_with_no_value_or_one_or_the_largest_ones_are_compared(value: float | None) -> None:
    """Boosting can't bin a column that is empty, also where it is empty in one half of the rows
    only."""
    one, other = rows(1), rows(2)
    features = {"x": ColumnType.numeric, "z": ColumnType.numeric, "color": ColumnType.categorical}
    empty = [frame.with_columns(x=pl.lit(value, pl.Float64)) for frame in (one, other)]
    assert separate(*empty, features, "t").distance < 0.2
    shifted = empty[1].with_columns(pl.col("z") + 3)
    assert separate(empty[0], shifted, features, "t").distance > 0.8
    halves = [
        frame.with_columns(x=pl.when(pl.col("id") % 2 == 0).then(value)) for frame in (one, other)
    ]
    assert separate(*halves, features, "t").distance < 0.2
    assert (
        compare_batches(
            look(empty[0]), look(empty[1]), [look(frame) for frame in empty * 2], ("a", "b")
        ).schema_changes
        == []
    )


def test_samples_of_no_rows_one_row_or_no_filled_column_are_not_told_apart() -> None:
    features = {"x": ColumnType.numeric, "color": ColumnType.categorical, "t": ColumnType.datetime}
    one, other = rows(1), rows(2)
    for count in (0, 1, 3):
        assert separate(one, other.head(count), features, "t").distance == 0
        assert separate(one.head(count), other.head(count), features, "t").distance == 0
    nothing = [
        frame.with_columns(x=pl.lit(None, pl.Float64), color=pl.lit(None, pl.String))
        for frame in (one, other)
    ]
    assert (
        separate(*nothing, {"x": ColumnType.numeric, "color": ColumnType.categorical}, "t").distance
        == 0
    )
    assert separate(one, other, {}, "t").distance == 0


@pytest.mark.parametrize("largest", [1e300, 1.7976931348623157e308])
def test_numbers_at_the_ends_of_what_a_float_holds_survive_the_file(largest: float) -> None:
    data = dataclasses.replace(DATA, task=Task.regression)
    summaries: list[BatchProfile] = []
    for seed in range(6):
        frame = rows(seed, 200).with_columns(
            x=pl.when(pl.col("x") > 0).then(largest).otherwise(-largest),
            z=pl.col("z") * 1e-310,
            y=pl.col("z") * largest,
        )
        summary = profile_batch(frame, frame.clear(), data)
        summary = dataclasses.replace(summary, shift=measure_shift(summary, summaries))
        assert from_json(summary.to_json()) == summary
        detect_anomalies(summary, summaries)
        summaries.append(summary)


def test_a_sample_is_drawn_from_rows_with_and_without_a_label() -> None:
    frame = rows(1, 5001)
    sample = sample_rows(
        frame.head(1), frame.tail(5000).with_columns(y=pl.lit(None, pl.Boolean)), DATA
    )
    assert len(sample) == 1000 and sample["y"].null_count() >= 999 and sample["t"].is_sorted()
