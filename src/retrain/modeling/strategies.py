"""How to retrain. A strategy of your own is a subclass of `Strategy` and a YAML in `conf/strategy/` that names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.errors import ConfigError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Strategy(ABC):
    """Chooses the history that a challenger learns from, and how it learns from it."""

    @abstractmethod
    def select(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches to train on, of those that lie before the evaluation window, oldest first."""

    def fit(self, rows: pl.DataFrame, config: Config) -> Pipeline:
        """A fitted Pipeline. From scratch unless a strategy says otherwise."""
        from retrain.modeling import pipeline

        return pipeline.fit(pipeline.build_pipeline(config), rows, config)


class Full(Strategy):
    """All history. Most rows, steadiest; slow to follow when the relation itself changes."""

    def select(self, batches: Sequence[Batch]) -> list[Batch]:
        return list(batches)


class SlidingWindow(Strategy):
    """The newest `batches` only. Follows change quickly; forgets seasons that lie further back."""

    def __init__(self, batches: int) -> None:
        if not isinstance(batches, int) or batches < 1:
            raise ConfigError(f"`strategy.batches` is {batches!r}, but must be a whole number of at least 1.")
        self.batches = batches

    def select(self, batches: Sequence[Batch]) -> list[Batch]:
        return list(batches[-self.batches :])
