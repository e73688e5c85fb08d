"""One fit: a strategy's choice of history inside a window of time, read, checked and learnt from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from retrain.config import Config, instantiate
from retrain.data.manifest import Batch, Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in
from retrain.errors import DataError
from retrain.modeling.pipeline import build_pipeline
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
    positive_share: float
    fit_seconds: float


def select_batches(config: Config, manifest: Manifest, window: Window) -> list[Batch]:
    """The batches that the strategy trains on, of those with rows in the window."""
    strategy: Strategy = instantiate(config.strategy, "strategy")
    return strategy.select(batches_in(manifest.labelled, window))


def train(config: Config, manifest: Manifest, store: SnapshotStore, window: Window) -> Training:
    """Read what the strategy asks for and fit the configured recipe on it."""
    batches = tuple(batch.period for batch in select_batches(config, manifest, window))
    return fit(config, batches, window.rows(store.read(batches), config.data.time_column), window)


def fit(config: Config, batches: tuple[str, ...], rows: pl.DataFrame, window: Window) -> Training:
    """Fit the configured recipe on rows that are already read. Raises DataError when they hold one class only."""
    if rows[config.data.target_column].n_unique() < 2:
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
    return Training(pipeline, batches, span, len(rows), float(rows[config.data.target_column].mean()), seconds)
