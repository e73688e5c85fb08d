"""Strategies for more history than memory holds: one batch is read after the other."""

from __future__ import annotations

import dataclasses

import polars as pl

from retrain.config import Config
from retrain.models import continuing
from retrain.models.from_scratch import FitResult, from_scratch
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet
from retrain.ranges import PositiveCount


class Streaming(Strategy):
    """All history in constant memory: `partial_fit` on one batch after the other, `passes` times.

    The encoding is fitted on the newest `encoding_rows` rows, since most encodings want to see
    theirs at once.
    """

    streams = True

    def __init__(self, passes: PositiveCount = 1, encoding_rows: PositiveCount = 200_000) -> None:
        self.passes, self.encoding_rows = passes, encoding_rows

    def check(self, config: Config) -> None:
        continuing.check_streamable(config)

    def fit(self, training_set: TrainingSet) -> FitResult:
        return FitResult(*continuing.stream(training_set, self.passes, self.encoding_rows))


class Sample(Strategy):
    """At most `rows` rows drawn from all history at random, from each batch its share, one batch in
    memory at a time: for estimators that want all their rows at once, on more history than memory
    holds."""

    streams = True

    def __init__(self, rows: PositiveCount = 1_000_000) -> None:
        self.rows = rows

    def fit(self, training_set: TrainingSet) -> FitResult:
        held, seed = sum(batch.rows for batch in training_set.batches), training_set.config.seed
        share = min(1.0, self.rows / held)
        parts = [
            part.sample(int(len(part) * share), seed=seed + place)
            for place, part in enumerate(training_set.parts())
        ]
        result = from_scratch(pl.concat(parts, how="diagonal_relaxed"), training_set.config)
        drawn = f"A sample of {result.rows:,} rows from batches of {held:,}."
        return dataclasses.replace(result, note=f"{drawn} {result.note}".strip())
