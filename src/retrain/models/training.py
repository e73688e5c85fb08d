"""One fit: what a strategy asks for of the history inside a window of time, read, checked and
trained on."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrain.config import ColumnType, Config, Task, build, feature_types
from retrain.data.manifest import CONTENT_DIGITS, Batch, Manifest
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in
from retrain.models.block_sums import Array
from retrain.models.digests import model_digest, recipe_digest
from retrain.models.fitting import build_pipeline, known_classes, to_codes, to_features, to_target
from retrain.models.from_scratch import FitResult
from retrain.models.metrics import baseline_score
from retrain.models.parent import ParentModel
from retrain.models.storable import check_storable
from retrain.models.strategies import run_strategy
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet
from retrain.types import ModelRecord

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class FittedModel(FitResult):
    """A strategy's result, and what it was trained on.

    A continued model has been trained on what its parent was trained on, and on `rows` more.

    Attributes
    ----------
    record
        Its training rows and what shaped it; `version` is 0 until it is registered.
    baseline
        The best constant prediction for the training rows, shape () or (classes,).
    fit_seconds
        How long the strategy took, without reading.
    seen
        The batches that it was trained on, and those of its parents, to be read anew.
    """

    record: ModelRecord
    baseline: Array
    fit_seconds: float
    seen: TrainingSet

    def new_levels(self, rows: pl.DataFrame) -> dict[str, int]:
        """By category, how many rows hold a level that the training rows did not.

        Batches are read one at a time, the newest first, until no level is missing: mostly one.
        """
        types = feature_types(self.seen.config)
        missing = {
            name: rows[name].drop_nulls().unique()
            for name, kind in types.items()
            if kind is ColumnType.categorical
        }
        for part in dataclasses.replace(self.seen, batches=self.seen.batches[::-1]).parts():
            missing = {
                name: levels.filter(~levels.is_in(part[name].unique().implode()))
                for name, levels in missing.items()
            }
            if not any(map(len, missing.values())):
                break
        counts = {
            name: int(rows[name].is_in(levels.implode()).sum()) for name, levels in missing.items()
        }
        return {name: count for name, count in counts.items() if count}


def train(
    config: Config,
    manifest: Manifest,
    store: SnapshotStore,
    window: Window,
    base: ParentModel | None = None,
) -> FittedModel:
    """Fit the configured recipe on what the strategy asks for of the labelled rows in the
    window."""
    columns = Schema(config.data).columns

    def read(batch: Batch) -> pl.DataFrame:
        return store.read([batch.period], columns)

    fitted = fit(config, batches_in(manifest.labelled, window), window, read, base)
    record = dataclasses.replace(
        fitted.record,
        snapshot=manifest.digest,
        recipe=recipe_digest(config, manifest.digest),
        model_digest=model_digest(config),
    )
    return dataclasses.replace(fitted, record=record)


def fit(
    config: Config,
    batches: Sequence[Batch],
    window: Window,
    read: Callable[[Batch], pl.DataFrame],
    base: ParentModel | None,
) -> FittedModel:
    """Fit the configured recipe on what the strategy asks for of some batches. No other is read.

    Parameters
    ----------
    read
        Gives the rows of one batch.
    """
    strategy = build(Strategy, config.strategy, "strategy")
    strategy.check(config)
    kept: dict[str, pl.DataFrame] = {}

    def read_once(batch: Batch) -> pl.DataFrame:
        if batch.period not in kept:
            kept[batch.period] = read(batch)
        return kept[batch.period]

    training_set = TrainingSet(
        config, batches, window, read if strategy.streams else read_once, base
    )
    _prepare(strategy, training_set)
    started = time.perf_counter()
    result = run_strategy(strategy, training_set)
    seconds = time.perf_counter() - started
    used = training_set.holding(result.batches)
    record = _record(result, used)
    seen = [batch for batch in batches if batch.period in record.contents]
    return FittedModel(
        **vars(result),
        record=record,
        baseline=_baseline(result.pipeline, used),
        fit_seconds=seconds,
        seen=TrainingSet(config, batches_in(seen, window), window, read),
    )


def _prepare(strategy: Strategy, training_set: TrainingSet) -> None:
    """A recipe that can't be built or stored fails here. Neither imports nor reading count as time
    to fit."""
    build_pipeline(training_set.config)
    chosen = training_set.holding(strategy.select(training_set.batches, training_set.base))
    if chosen.batches:
        if not strategy.streams:
            chosen.rows  # noqa: B018
        check_storable(training_set.config, training_set.holding(chosen.batches[-1:]).rows)


def _record(result: FitResult, used: TrainingSet) -> ModelRecord:
    """What a model was trained on: the rows used, and where it was continued, its parent's."""
    base, window = used.base, used.window
    contents = {batch.period: batch.content[:CONTENT_DIGITS] for batch in used.batches}
    start = max(used.batches[0].span[0], window.start)
    lineage: tuple[int, ...] = ()
    if result.continued and base is not None and base.record is not None:
        contents = base.record.contents | contents
        start, lineage = min(start, datetime.fromisoformat(base.record.trained_from)), base.lineage
    return ModelRecord(
        0,
        start.isoformat(),
        window.end.isoformat(),
        list(contents),
        contents,
        rows=result.rows,
        continued_from=list(lineage),
        strategy_choice=result.choice,
    )


def _baseline(pipeline: Pipeline, used: TrainingSet) -> Array:
    data, classes = used.config.data, known_classes(pipeline)
    target = np.concatenate([to_target(rows, used.config) for rows in used.parts()])
    codes = to_codes(target, classes, data.task)
    return baseline_score(codes, data.metric, data.task, len(classes))


def with_selected_strategy(config: Config, choice: str) -> Config:
    """The config with the strategy that won in place of the choice between several: a refit must
    not choose again."""
    if not choice:
        return config
    return dataclasses.replace(config, strategy=config.strategy["strategies"][choice])


def measure_latency(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> dict[str, float]:
    """Milliseconds to score one row and a thousand rows (or all, if they are fewer), medians of
    some calls."""
    features = to_features(rows, feature_types(config))
    score = pipeline.predict if config.data.task is Task.regression else pipeline.predict_proba

    def median_of(count: int, calls: int) -> float:
        part, seconds = features.head(count), []
        for _ in range(calls):
            started = time.perf_counter()
            score(part)
            seconds.append(time.perf_counter() - started)
        return 1000 * statistics.median(seconds)

    return {"latency_one_row_ms": median_of(1, 11), "latency_1000_rows_ms": median_of(1000, 5)}
