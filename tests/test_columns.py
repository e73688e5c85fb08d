"""Columns of the data may be called what our own things are called: neither is taken for the
other."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY

from retrain.columns import own_column
from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task, compose
from retrain.data.inference.schema import draft_schema
from retrain.data.periods import parse_period
from retrain.data.profiles import profile_batch
from retrain.data.schema import REASON, Schema
from retrain.data.snapshot import SnapshotStore, content_digest
from retrain.data.source import Source
from retrain.data.sources import Files
from retrain.data.update import count_changes, update_snapshot
from retrain.errors import ConfigError, DataError
from retrain.gate.compare import compare
from retrain.gate.estimates import BLOCK, TARGET, score_column
from retrain.gate.guardrails import Slices
from retrain.monitoring.domain_classifier import separate

OURS = [
    "window",
    "block",
    "target",
    "challenger",
    "incumbent",
    "baseline",
    "worsening",
    "slice",
    "len",
    "count",
    "literal",
]
JANUARY = parse_period("2013-01", PeriodKind.month)


def data(
    features: dict[str, Column], keys: tuple[str, ...] = ("id",), **changes: object
) -> DataConfig:
    return DataConfig(
        name="words",
        source={},
        period=PeriodKind.month,
        time_column="when",
        key_columns=list(keys),
        target_column="y",
        features=features,
        **changes,
    )


def rows(count: int = 40, **columns: object) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "id": range(count),
            "when": [datetime(2013, 1, 1) + timedelta(hours=number) for number in range(count)],
            "y": [number % 2 == 0 for number in range(count)],
        }
    )
    return frame.with_columns(**columns)


class OneBatch(Source):
    """January, from a frame."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows

    def periods(self) -> list[str]:
        return ["2013-01"]

    def fingerprint(self, period: str) -> str:
        return content_digest(self.rows)

    def read(self, period: str) -> pl.DataFrame:
        return self.rows


@pytest.mark.parametrize("name", OURS)
def test_a_feature_with_one_of_our_words_is_sliced_and_leaves_the_comparison_as_it_is(
    name: str,
) -> None:
    generator = np.random.default_rng(0)
    target = generator.integers(0, 2, 2000)
    ours = pl.DataFrame(
        {
            TARGET: target,
            BLOCK: np.repeat(np.arange(20), 100),
            score_column("challenger"): np.where(target == 1, 0.01, 0.99),
            score_column("incumbent"): np.where(target == 1, 0.8, 0.2),
        }
    )
    models = ["challenger", "incumbent"]
    plain = compare(ours, models)
    levels = pl.Series(name, generator.choice(["a", "b"], 2000))
    judged = ours.with_columns(levels)
    compared = compare(judged, models)
    assert compared.scores == plain.scores and compared.differences == plain.differences
    compared = dataclasses.replace(compared, rows_judged=judged)
    result = Slices(None, None, 0.1, "relative", 0.95, 200, 5).evaluate(compared)
    assert result.figures["slices"] == 2 and f"{name}=a" in result.reason


@pytest.mark.parametrize(
    "name", [*OURS, "old", "new", "quarantine_reason", "quarantine_row", "index", "check_output"]
)
def test_a_batch_keeps_and_describes_columns_with_our_words(name: str, tmp_path: Path) -> None:
    levels = pl.Series(name, ["a", "b", "b", None] * 10)
    schema = Schema(data({name: Column(ColumnType.categorical)}, maximum_quarantine_share=0.5))
    checked = schema.check(rows().with_columns(levels), JANUARY)
    assert checked.labelled[name].to_list() == ["a", "b", "b"] * 10
    assert checked.quarantined[REASON].to_list() == [f"{name}: missing"] * 10
    summary = profile_batch(checked.labelled, checked.unlabelled, schema.data)
    assert summary.features[name].levels == {"b": 20, "a": 10}
    changed = rows().with_columns(levels.fill_null("a"))
    assert count_changes(rows().with_columns(levels), changed, ["id"]).changed == 10
    assert count_changes(changed, changed.head(39), ["when", name]).removed == 1


@pytest.mark.parametrize("name", OURS)
def test_a_target_and_a_key_may_have_our_words_too(name: str) -> None:
    table = (
        rows(400).rename({"y": name, "id": "key"}).with_columns(pl.Series("size", range(400)) % 7)
    )
    made = draft_schema(table, name, "when", None, None)
    assert made.task is Task.binary and made.key_columns == ["key"]
    batch = (
        table.head(200)
        .rename({name: "kind", "key": name})
        .with_columns(pl.col("kind").cast(pl.String))
    )
    named = data({"size": Column(ColumnType.numeric)}, (name,), task=Task.multiclass)
    named = dataclasses.replace(named, target_column="kind")
    checked = Schema(named).check(batch, JANUARY)
    assert profile_batch(checked.labelled, checked.unlabelled, named).target.levels == {
        "false": 100,
        "true": 100,
    }


def test_the_time_itself_may_be_a_feature_of_what_is_compared_whole() -> None:
    features = {"size": ColumnType.numeric, "when": ColumnType.datetime}
    batches = [rows(200, size=pl.lit(float(number)) + pl.int_range(200) % 5) for number in (0, 10)]
    assert separate(batches[0], batches[1], features, "when").distance > 0.9


@pytest.mark.parametrize(
    ("name", "words"),
    [(own_column("window"), "__retrain_"), ("^a.*$", "pattern"), ("*", "pattern")],
)
def test_a_name_that_can_not_be_told_from_ours_is_refused_wherever_it_comes_in(
    name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
        with (tmp_path / "conf/data/files.yaml").open("a") as file:
            file.write(f"  '{name}': {{type: numeric}}\n")
        compose(tmp_path / "conf", ["data=files"])
    with pytest.raises(DataError, match=words):
        Schema(data({"a": Column(ColumnType.numeric)})).check(
            rows(a=pl.lit(1.0)).with_columns(pl.lit(1).alias(name)), JANUARY
        )
    with pytest.raises(DataError, match=words):
        draft_schema(rows(400).with_columns(pl.lit(1).alias(name)), "y", "when", None, None)


def test_rows_are_numbered_under_a_name_that_the_table_does_not_have(tmp_path: Path) -> None:
    table = (
        rows(60).drop("id").with_columns(pl.col("when").dt.date(), row_number=pl.int_range(60) % 3)
    )
    table.write_parquet(tmp_path / "t.parquet")
    made = draft_schema(table, "y", "when", PeriodKind.month, None)
    assert made.numbers_rows and made.key_columns == ["row_number_2"]

    def read(number_rows: bool | str) -> pl.DataFrame:
        source = Files(str(tmp_path / "t.parquet"), number_rows=number_rows)
        source.bind(data({}))
        return source.read("2013-01")

    assert read("row_number_2")["row_number_2"].to_list() == list(range(60))
    with pytest.raises(DataError, match="`row_number` itself"):
        read(True)


def test_a_snapshot_of_an_earlier_version_is_read_with_its_own_name_of_the_reason(
    tmp_path: Path,
) -> None:
    """Earlier versions wrote the reason into `quarantine_reason`."""
    frame = rows(a=pl.Series([1.0, None] * 20))
    config = data({"a": Column(ColumnType.numeric)}, maximum_quarantine_share=0.9)
    store, source = SnapshotStore(tmp_path / "snapshot"), OneBatch(frame)
    update_snapshot(config, source, store, tmp_path / "index.json")
    path = tmp_path / "snapshot/batch=2013-01/quarantine.parquet"
    pl.read_parquet(path).rename({REASON: "quarantine_reason"}).write_parquet(path)
    source.rows = frame.with_columns(pl.lit(1.0).alias("a"))
    change = update_snapshot(config, source, store, tmp_path / "index.json")
    assert str(change.row_changes["2013-01"]) == "0 rows added, 0 removed, 20 changed"
    assert store.everything(change.manifest.batches[0]).columns == ["when", "id", "a", "y"]
