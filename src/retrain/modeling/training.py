"""One fit: a strategy's choice of history inside a window of time, read, checked and learnt from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from retrain.config import Config, instantiate
from retrain.data.snapshot import Manifest, SnapshotStore
from retrain.data.windows import Window, batches_in
from retrain.errors import DataError
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


def training_rows(config: Config, manifest: Manifest, store: SnapshotStore, window: Window) -> tuple[tuple[str, ...], pl.DataFrame]:
    """Period keys and labelled rows that the strategy trains on, none of them outside the window.

    Raises DataError when they hold one class only.
    """
    strategy: Strategy = instantiate(config.strategy, "strategy")
    chosen = tuple(batch.period for batch in strategy.select(batches_in(manifest.labelled, window)))
    rows = window.rows(store.read(chosen), config.data.time_column)
    if rows[config.data.target_column].n_unique() < 2:
        raise DataError(
            f"The {len(rows):,} training rows of {', '.join(chosen)} hold one class of `{config.data.target_column}` only. "
            "Train on more batches (`strategy`), or mend the labels."
        )
    return chosen, rows


def train(config: Config, manifest: Manifest, store: SnapshotStore, window: Window) -> Training:
    """Fit the configured recipe on the window."""
    batches, rows = training_rows(config, manifest, store, window)
    return fit(config, batches, rows, window)


def fit(config: Config, batches: tuple[str, ...], rows: pl.DataFrame, window: Window) -> Training:
    """Fit the configured recipe on rows that are already read."""
    strategy: Strategy = instantiate(config.strategy, "strategy")
    started = time.perf_counter()
    pipeline = strategy.fit(rows, config)
    seconds = time.perf_counter() - started
    first = rows[config.data.time_column].min()
    span = Window(max(first, window.start), window.end)
    return Training(pipeline, batches, span, len(rows), float(rows[config.data.target_column].mean()), seconds)
