"""What a backtest keeps of its models: exact, never changed, and not what a revised batch was told
before."""

from __future__ import annotations

import dataclasses
import threading
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY

from retrain.backtest import model_cache
from retrain.backtest.model_cache import FitJob, ModelCache, read_batch, train_and_store
from retrain.config import Column, ColumnType, Config, PeriodKind, compose, feature_types
from retrain.data.snapshot import SnapshotStore
from retrain.data.source import Source
from retrain.data.update import update_snapshot
from retrain.data.windows import Window
from retrain.models.fitting import predict
from retrain.models.metrics import find_metric
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model
from retrain.models.training import fit as fit_recipe
from retrain.targets import allow

DAYS, ROWS = 12, 60


class Days(Source):
    """Days of a number that tells the target, and a level of its own each."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.late: set[str] = set()  # of whose labels one has come

    def periods(self) -> list[str]:
        return [f"2024-01-{day:02}" for day in range(1, DAYS + 1)]

    def fingerprint(self, period: str) -> str:
        return f"{period} {period in self.changed} {period in self.late}"

    def read(self, period: str) -> pl.DataFrame:
        day = int(period[-2:])
        x = np.random.default_rng(day).normal(0, 1, ROWS)
        start = datetime(2024, 1, day)
        return pl.DataFrame(
            {
                "id": np.arange(ROWS) + 1000 * day,
                "t": [start + timedelta(minutes=20 * row) for row in range(ROWS)],
                "x": -x if period in self.changed else x,
                "kind": [f"day {day}"] * ROWS,
                "y": [
                    value if row == 0 or period not in self.late else None
                    for row, value in enumerate((x > 0).tolist())
                ],
            }
        )


@pytest.fixture
def config() -> Config:
    composed = compose(
        REPOSITORY / "conf", ["model=logistic_regression", "evaluation.minimum_rows=0"]
    )
    data = dataclasses.replace(
        composed.data,
        name="days",
        period=PeriodKind.day,
        as_of=None,
        time_column="t",
        key_columns=["id"],
        target_column="y",
        features={"x": Column(ColumnType.numeric), "kind": Column(ColumnType.categorical)},
        block_hours=24,
    )
    evaluation = dataclasses.replace(composed.evaluation, minimum_blocks=1, block_hours=24)
    return dataclasses.replace(composed, data=data, evaluation=evaluation)


class World:
    """A snapshot of the days, and the stored fits beside it."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root, self.config, self.source = root, config, Days()
        self.snapshot, self.cache = root / "snapshot", root / "cache"
        self.update()

    def update(self) -> None:
        change = update_snapshot(
            self.config.data, self.source, SnapshotStore(self.snapshot), self.root / "index.json"
        )
        self.batches = change.manifest.batches
        model_cache._read.cache_clear()

    def job(self, number: int = 5, **changes: object) -> FitJob:
        job = FitJob(self.config, self.batches[: number + 1], number, False, self.batches)
        return dataclasses.replace(job, **changes)


@pytest.fixture
def world(tmp_path: Path, config: Config) -> World:
    return World(tmp_path, config)


def test_a_revised_batch_is_predicted_anew(world: World) -> None:
    train_and_store(world.job(), world.cache, world.snapshot)
    assert ModelCache(world.cache, world.snapshot).get(world.job()) is not None
    before = ModelCache(world.cache, world.snapshot).get(world.job()).scores("2024-01-10")
    world.source.changed.add("2024-01-10")
    world.update()
    models = ModelCache(world.cache, world.snapshot)
    assert models.get(world.job()) is None
    train_and_store(world.job(), world.cache, world.snapshot)
    after = models.get(world.job()).scores("2024-01-10")
    assert np.abs(before - after).max() > 0.1, "the numbers of that day have changed their sign"


def test_the_loss_of_stored_predictions_is_that_of_the_model(world: World) -> None:
    """One confident miss in a thousand rows decides about a log loss, and single precision makes it
    certain."""
    train_and_store(world.job(), world.cache, world.snapshot)
    fit = ModelCache(world.cache, world.snapshot).get(world.job())
    job, batch = world.job(), world.batches[9]
    training = fit_recipe(
        world.config,
        list(job.batches[:-1]),
        job.window,
        lambda b: read_batch(world.config, world.snapshot, b),
        None,
    )
    rows = read_batch(world.config, world.snapshot, batch)
    told = predict(
        training.pipeline, rows, {"x": ColumnType.numeric, "kind": ColumnType.categorical}, []
    )
    stored, loss = fit.scores(batch.period), find_metric("log_loss", world.config.data.task)
    late = rows["y"].to_numpy().astype(np.float64)
    assert stored.dtype == np.float64 and np.array_equal(stored, told)
    assert loss.value(late, stored) == pytest.approx(loss.value(late, told), abs=1e-12)


def test_backtests_at_the_same_time_do_not_disturb_each_other(world: World) -> None:
    first, more = world.job(predicts=world.batches[:9]), world.job()
    train_and_store(first, world.cache, world.snapshot)
    reader = ModelCache(world.cache, world.snapshot).get(first)
    before = reader.scores("2024-01-08")
    threads = [
        threading.Thread(target=train_and_store, args=(more, world.cache, world.snapshot))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(reader.scores("2024-01-08"), before), (
        "what one has found another one leaves in place"
    )
    models = ModelCache(world.cache, world.snapshot)
    assert models.get(more) is not None and models.get(first) is not None
    assert not list(world.cache.rglob(".unfinished-*"))


def test_a_batch_with_few_labels_is_looked_at_in_all_its_rows(world: World) -> None:
    world.source.late.add("2024-01-10")
    world.update()
    job = world.job()
    train_and_store(job, world.cache, world.snapshot)
    fit = ModelCache(world.cache, world.snapshot).get(job)
    assert len(fit.scores("2024-01-10")) == 1 and len(fit.sample_scores()["2024-01-10"]) == ROWS
    assert len(SnapshotStore(world.snapshot).sample(world.batches[9])) == ROWS


def test_fits_of_one_model_that_predict_other_rows_lie_side_by_side(world: World) -> None:
    jobs = [
        world.job(predicts=world.batches[:8]),
        world.job(serves=False),
        world.job(keep_model=True),
    ]
    assert len({job.folder for job in jobs}) == 3 and len({job.model for job in jobs}) == 1
    for job in jobs:
        train_and_store(job, world.cache, world.snapshot)
    models = ModelCache(world.cache, world.snapshot)
    first, later, kept = (models.get(job) for job in jobs)
    assert first == later == kept
    assert np.array_equal(first.scores("2024-01-08"), kept.scores("2024-01-08"))
    continued = world.job(7, parent=jobs[2].model)
    train_and_store(continued, world.cache, world.snapshot)
    assert models.get(continued).model != world.job(7).model


def test_a_strategy_with_a_window_reads_its_window_alone_and_knows_its_levels_alone(
    world: World,
) -> None:
    sliding = dataclasses.replace(
        world.config, strategy={"_target_": "retrain.models.strategies.SlidingWindow", "batches": 2}
    )
    allow(sliding.strategy)
    read: list[str] = []

    def reading(batch):
        read.append(batch.period)
        return read_batch(sliding, world.snapshot, batch)

    window = Window(datetime(2024, 1, 1), datetime(2024, 1, 9))
    training = fit_recipe(sliding, list(world.batches[:8]), window, reading, None)
    assert read == ["2024-01-07", "2024-01-08"] and training.record.rows == 2 * ROWS
    rows = pl.concat([read_batch(sliding, world.snapshot, batch) for batch in world.batches[5:9]])
    assert training.new_levels(rows) == {"kind": 2 * ROWS}, (
        "the days before the window are as new as that after it"
    )


def test_a_continued_model_reads_its_new_rows_alone_and_older_ones_until_no_level_is_missing(
    world: World,
) -> None:
    sgd = compose(REPOSITORY / "conf", ["model=sgd", "strategy=warm_start"])
    warm = dataclasses.replace(world.config, model=sgd.model, strategy=sgd.strategy)
    read: list[str] = []

    def reading(batch):
        read.append(batch.period)
        return read_batch(warm, world.snapshot, batch)

    until = datetime(2024, 1, 9)
    first = fit_recipe(
        warm, list(world.batches[:8]), Window(datetime(2024, 1, 1), until), reading, None
    )
    parent = ParentModel(Model(first.pipeline, feature_types(warm)), until, first.record)
    read.clear()
    window = Window(datetime(2024, 1, 1), datetime(2024, 1, 10))
    continued = fit_recipe(warm, list(world.batches[:9]), window, reading, parent)
    assert continued.continued and read == ["2024-01-09"]
    read.clear()
    days = {place: read_batch(warm, world.snapshot, world.batches[place]) for place in (5, 9)}
    assert continued.new_levels(days[5]) == {}
    assert read == ["2024-01-09", "2024-01-08", "2024-01-07", "2024-01-06"]
    assert continued.new_levels(days[9]) == {"kind": ROWS}
