"""What a strategy is given to train on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.data.windows import Window, batches_in
from retrain.models.parent import ParentModel


@dataclass(frozen=True)
class TrainingSet:
    """Some batches' labelled rows inside a window of time, read when they are asked for.

    Attributes
    ----------
    config
        The whole configuration: `config.data.time_column`, `config.seed`, ...
    batches
        The batches, oldest first, with `period`, `rows` and `span`.
    window
        The span that the rows lie in; it ends where the evaluation window begins.
    read
        Gives all rows of one batch.
    base
        The model to continue from, if there is one.
    """

    config: Config
    batches: Sequence[Batch]
    window: Window
    read: Callable[[Batch], pl.DataFrame]
    base: ParentModel | None = None

    @functools.cached_property
    def rows(self) -> pl.DataFrame:
        """All rows at once, with key, time, feature and target columns."""
        return pl.concat(list(self.parts()), how="diagonal_relaxed")

    def parts(self) -> Iterator[pl.DataFrame]:
        """The rows of one batch after the other: no more than one in memory."""
        for batch in self.batches:
            yield self.window.rows(self.read(batch), self.config.data.time_column)

    def holding(self, batches: Sequence[Batch], window: Window | None = None) -> TrainingSet:
        """The same with other batches or another window."""
        window = window or self.window
        return dataclasses.replace(self, batches=batches_in(batches, window), window=window)
