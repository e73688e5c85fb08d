"""One fit: a strategy's choice of history inside a window of time, read, checked and learnt from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType, Config, Task, build, feature_types, to_container
from retrain.data.manifest import CONTENT_DIGITS, Batch, Manifest
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in
from retrain.models.fitting import build_pipeline, known_classes, to_codes, to_target
from retrain.models.metrics import baseline_score
from retrain.models.storable import check_storable
from retrain.models.strategies import run_strategy
from retrain.models.strategy import ParentModel, Strategy, TrainingSet
from retrain.renamed import with_original_names

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class FittedModel:
    """A fitted Pipeline and what it was fitted on. `window` is the span that its rows may lie in.

    A continued model has been trained on what its base was trained on, and on `rows` more.
    """

    pipeline: Pipeline
    batches: tuple[str, ...]
    window: Window
    rows: int
    baseline: NDArray  # the best constant prediction for the training rows, shape () or (classes,)
    fit_seconds: float
    contents: dict[str, str] = field(default_factory=dict)  # content digest of each batch
    levels: dict[str, pl.Series] = field(
        default_factory=dict
    )  # of each category, those that it was trained on
    note: str = ""
    choice: str = ""  # which of several strategies won
    lineage: tuple[int, ...] = ()  # the versions that it was continued from, newest first

    def new_levels(self, rows: pl.DataFrame) -> dict[str, int]:
        """By category, how many rows hold a level that the training rows did not."""
        counts = {
            name: int((~rows[name].drop_nulls().is_in(known.implode())).sum())
            for name, known in self.levels.items()
        }
        return {name: count for name, count in counts.items() if count}


def train(
    config: Config,
    manifest: Manifest,
    store: SnapshotStore,
    window: Window,
    base: ParentModel | None = None,
) -> FittedModel:
    """Fit the configured recipe on what the strategy asks for of the labelled rows in the window."""
    columns = Schema(config.data).columns

    def read(batch: Batch) -> pl.DataFrame:
        return store.read([batch.period], columns)

    return fit(config, batches_in(manifest.labelled, window), window, read, base)


def fit(
    config: Config,
    batches: Sequence[Batch],
    window: Window,
    read: Callable[[Batch], pl.DataFrame],
    base: ParentModel | None,
    with_levels: bool = True,
) -> FittedModel:
    """Fit the configured recipe on what the strategy asks for of some batches. `read` gives the rows of one of them.

    No other batch is read. Without `with_levels` nothing is noted about levels: a continued model's are those of older batches,
    which would be read for them.
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
    build_pipeline(
        config
    )  # a recipe that can't be built fails here, and imports don't count as time to fit
    chosen = training_set.holding(strategy.select(batches, base))
    if not strategy.streams and chosen.batches:
        chosen.rows  # noqa: B018 - nor does reading
    if chosen.batches:
        check_storable(config, training_set.holding(chosen.batches[-1:]).rows)
    started = time.perf_counter()
    fit_result = run_strategy(strategy, training_set)
    seconds = time.perf_counter() - started
    used = training_set.holding(fit_result.batches)
    contents = {batch.period: batch.content[:CONTENT_DIGITS] for batch in used.batches}
    start = max(used.batches[0].first_time, window.start)
    lineage: tuple[int, ...] = ()
    if fit_result.continued and base is not None and base.record is not None:
        contents = base.record.contents | contents
        start, lineage = min(start, datetime.fromisoformat(base.record.trained_from)), base.lineage
    return FittedModel(
        fit_result.pipeline,
        tuple(contents),
        Window(start, window.end),
        fit_result.rows,
        _baseline(fit_result.pipeline, used),
        seconds,
        contents,
        _levels(training_set.holding([batch for batch in batches if batch.period in contents]))
        if with_levels
        else {},
        fit_result.note,
        fit_result.choice,
        lineage,
    )


def _baseline(pipeline: Pipeline, used: TrainingSet) -> NDArray:
    data, classes = used.config.data, known_classes(pipeline)
    target = np.concatenate([to_target(rows, used.config) for rows in used.parts()])
    return baseline_score(
        to_codes(target, classes, data.task), data.metric, data.task, len(classes)
    )


def _levels(training_set: TrainingSet) -> dict[str, pl.Series]:
    """The levels of each category in the rows that a model was trained on."""
    names = [
        name
        for name, kind in feature_types(training_set.config).items()
        if kind is ColumnType.categorical
    ]
    if not names:
        return {}
    parts = [
        {name: rows[name].drop_nulls().unique() for name in names} for rows in training_set.parts()
    ]
    return {name: pl.concat([part[name] for part in parts]).unique() for name in names}


def with_selected_strategy(config: Config, choice: str) -> Config:
    """The config with the strategy that won in place of the choice between several: a refit must not choose again."""
    if not choice:
        return config
    return dataclasses.replace(config, strategy=config.strategy["strategies"][choice])


def recipe_digest(config: Config, manifest: Manifest) -> str:
    """Stands for all that shapes a model: the snapshot, and features, model, strategy, seed and windows in the config."""
    return recipe_of(config, manifest.digest)


def recipe_of(config: Config, snapshot: str) -> str:
    """The same, of a snapshot by its digest."""
    content = with_original_names(to_container(config))
    shaping = [
        content["data"]["features"],
        content["data"]["task"],
        *(content[key] for key in ("model", "strategy", "seed", "evaluation")),
    ]
    shaping += [digest for group in ("model", "strategy") if (digest := config.code.get(group))]
    return hashlib.sha256(json.dumps([snapshot, shaping], sort_keys=True).encode()).hexdigest()[:16]


def model_digest(config: Config) -> str:
    """Stands for features, encoding and estimator: a model with another one can't be continued."""
    content = with_original_names(to_container(config))
    # How long a fit goes on is no part of it: what was stored before there was a choice can be continued.
    model = {
        key: value for key, value in content["model"].items() if key != "choose_iterations_below"
    }
    shaping = [content["data"]["features"], content["data"]["task"], model]
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]


def measure_latency(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> dict[str, float]:
    """Milliseconds to score one row and a thousand rows (or all, if they are fewer), medians of some calls."""
    from retrain.models.fitting import to_features

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
