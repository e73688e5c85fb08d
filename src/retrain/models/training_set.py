"""What a strategy is given to learn from, and what it gives back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrain.config import Config, Task
from retrain.data.manifest import Batch
from retrain.data.windows import Window, batches_in
from retrain.errors import DataError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from retrain.models.scoring import Model
    from retrain.types import ModelRecord


@dataclass(frozen=True)
class ParentModel:
    """The model to continue from, until when its rows reach, and why it can't be continued, if so."""

    model: Model
    trained_until: datetime
    record: ModelRecord | None = None  # of a registered version
    lineage: tuple[int, ...] = ()  # its version, and those that it was continued from itself
    refusal: str | None = None

    @property
    def name(self) -> str:
        return f"version {self.record.version}" if self.record else "a model of the rows before"


@dataclass(frozen=True)
class TrainingSet:
    """What a strategy learns from: some batches' labelled rows inside a window, in time order.

    `read` gives the rows of one batch: a strategy that streams never holds more than that.
    """

    config: Config
    batches: Sequence[Batch]
    window: Window
    read: Callable[[Batch], pl.DataFrame]
    base: ParentModel | None = None

    @functools.cached_property
    def rows(self) -> pl.DataFrame:
        return pl.concat(list(self.parts()), how="diagonal_relaxed")

    def parts(self) -> Iterator[pl.DataFrame]:
        """The rows of one batch after the other."""
        for batch in self.batches:
            yield self.window.rows(self.read(batch), self.config.data.time_column)

    def holding(self, batches: Sequence[Batch], window: Window | None = None) -> TrainingSet:
        """The same lesson with fewer batches or a shorter window."""
        window = window or self.window
        return dataclasses.replace(self, batches=batches_in(batches, window), window=window)


@dataclass(frozen=True)
class FitResult:
    """A fitted Pipeline, how many rows of which batches it took, and what a person should know about how it came about."""

    pipeline: Pipeline
    rows: int
    batches: Sequence[Batch] = ()
    note: str = ""
    continued: bool = False  # from the base's weights
    choice: str = ""  # which of several strategies won


def from_scratch(
    rows: pl.DataFrame, config: Config, weights: np.ndarray | None = None
) -> FitResult:
    """A new Pipeline, fitted on some rows. `weights` has shape (rows,). Raises DataError when they hold one class only."""
    from retrain.models import fitting

    if config.data.task is not Task.regression and rows[config.data.target_column].n_unique() < 2:
        raise DataError(
            f"The {len(rows):,} training rows hold one class of `{config.data.target_column}` only. Train on more batches "
            "(`strategy`), or mend the labels."
        )
    built = fitting.build_pipeline(config)
    allowed = getattr(built[-1], "max_iter", None)
    fitted = fitting.fit(built, rows, config, weights)
    chosen, note = getattr(fitted[-1], "max_iter", None), ""
    if chosen != allowed:
        note = f"{chosen} of at most {allowed} boosting iterations, the number that did best on later training rows."
    return FitResult(fitted, len(rows), note=note)
