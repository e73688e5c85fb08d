"""One fit: a strategy's choice of history inside a window of time, read, checked and learnt from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType, Config, Task, feature_types, instantiate, to_container
from retrain.data.contract import Contract
from retrain.data.manifest import CONTENT_DIGITS, Batch, Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in
from retrain.errors import DataError
from retrain.modeling.metrics import baseline_score
from retrain.modeling.pipeline import build_pipeline, known_classes, to_codes, to_target
from retrain.modeling.strategies import Strategy

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Training:
    """A fitted Pipeline and what it was fitted on. `window` is the span that its rows may lie in."""

    pipeline: Pipeline
    batches: tuple[str, ...]
    window: Window
    rows: int
    baseline: NDArray  # the best constant prediction for the training rows, shape () or (classes,)
    fit_seconds: float
    contents: dict[str, str] = field(default_factory=dict)  # content digest of each batch
    levels: dict[str, pl.Series] = field(default_factory=dict)  # of each category, those in the training rows

    def new_levels(self, rows: pl.DataFrame) -> dict[str, int]:
        """By category, how many rows hold a level that the training rows did not."""
        counts = {
            name: int((~rows[name].drop_nulls().is_in(known.implode())).sum()) for name, known in self.levels.items()
        }
        return {name: count for name, count in counts.items() if count}


def select_batches(config: Config, manifest: Manifest, window: Window) -> list[Batch]:
    """The batches that the strategy trains on, of those with rows in the window."""
    strategy: Strategy = instantiate(config.strategy, "strategy")
    return strategy.select(batches_in(manifest.labelled, window))


def train(config: Config, manifest: Manifest, store: SnapshotStore, window: Window) -> Training:
    """Read what the strategy asks for and fit the configured recipe on it."""
    selected = select_batches(config, manifest, window)
    batches = tuple(batch.period for batch in selected)
    rows = window.rows(store.read(batches, Contract(config.data).columns), config.data.time_column)
    contents = {batch.period: batch.content[:CONTENT_DIGITS] for batch in selected}
    return dataclasses.replace(fit(config, batches, rows, window), contents=contents)


def fit(config: Config, batches: tuple[str, ...], rows: pl.DataFrame, window: Window) -> Training:
    """Fit the configured recipe on rows that are already read. Raises DataError when they hold one class only."""
    if config.data.task is not Task.regression and rows[config.data.target_column].n_unique() < 2:
        raise DataError(
            f"The {len(rows):,} training rows of {', '.join(batches)} hold one class of `{config.data.target_column}` only. "
            "Train on more batches (`strategy`), or mend the labels."
        )
    strategy: Strategy = instantiate(config.strategy, "strategy")
    build_pipeline(config)  # a recipe that can't be built fails here, and imports don't count as time to fit
    started = time.perf_counter()
    pipeline = strategy.fit(rows, config)
    seconds = time.perf_counter() - started
    first = rows[config.data.time_column].min()
    span = Window(max(first, window.start), window.end)
    classes = known_classes(pipeline)
    codes = to_codes(to_target(rows, config), classes, config.data.task)
    baseline = baseline_score(codes, config.data.metric, config.data.task, len(classes))
    categories = [name for name, kind in feature_types(config).items() if kind is ColumnType.categorical]
    levels = {name: rows[name].drop_nulls().unique() for name in categories}
    return Training(pipeline, batches, span, len(rows), baseline, seconds, levels=levels)


def recipe_digest(config: Config, manifest: Manifest) -> str:
    """Stands for all that shapes a model: the snapshot, and features, model, strategy, seed and windows in the config."""
    content = to_container(config)
    shaping = [
        content["data"]["features"],
        content["data"]["task"],
        *(content[key] for key in ("model", "strategy", "seed", "evaluation")),
    ]
    return hashlib.sha256(json.dumps([manifest.digest, shaping], sort_keys=True).encode()).hexdigest()[:16]


def measure_latency(pipeline: Pipeline, rows: pl.DataFrame, config: Config) -> dict[str, float]:
    """Milliseconds to score one row and a thousand rows (or all, if they are fewer), medians of some calls."""
    from retrain.modeling.pipeline import to_features

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
