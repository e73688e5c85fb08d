"""The base class of strategies that continue an earlier version."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.models import continuing
from retrain.models.from_scratch import FitResult
from retrain.models.parent import ParentModel
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Continuing(Strategy, ABC):
    """Continues from the newest version that was trained on none of the evaluation rows, on the
    rows that came since.

    Its encoding stays as it was fitted: new levels of a category are unseen to it. When there is no
    such version, when features, encoding or estimator are no longer those that it was made of, or
    when a class has appeared that it does not know, the model is trained on all history instead,
    and run and report say so.
    """

    continues = True

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        if base is None or base.refusal:
            return list(batches)
        return [batch for batch in batches if batch.span[1] >= base.trained_until]

    def fit(self, training_set: TrainingSet) -> FitResult:
        base = training_set.base
        if base is None or base.refusal:
            why = base.refusal if base else "there is no version to continue from"
            note = f"Trained on all history instead of continued: {why}."
            return dataclasses.replace(super().fit(training_set), note=note)
        new = self.new_rows(training_set, base)
        if new.is_empty():
            raise continuing.NotContinuable(f"no rows have come since {base.name}")
        unknown = continuing.unknown_classes(base.model.pipeline, new, training_set.config)
        if unknown:
            raise continuing.NotContinuable(f"class {', '.join(unknown)} is new to {base.name}")
        pipeline = self.continue_from(base, new, training_set.config)
        return FitResult(pipeline, len(new), note=f"Continued from {base.name}.", continued=True)

    def new_rows(self, training_set: TrainingSet, base: ParentModel) -> pl.DataFrame:
        """The rows to continue on."""
        time = pl.col(training_set.config.data.time_column)
        return training_set.rows.filter(time >= base.trained_until)

    @abstractmethod
    def continue_from(self, base: ParentModel, new: pl.DataFrame, config: Config) -> Pipeline:
        """A Pipeline that knows what the base knows, and the new rows."""
