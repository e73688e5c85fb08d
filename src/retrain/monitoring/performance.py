"""The champion's losses: on labelled batches, those to expect without labels, by feature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, Task
from retrain.data.manifest import Batch, Manifest
from retrain.data.profiles import sample_places
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in, block_index, block_of
from retrain.gate.compare import block_codes
from retrain.gate.estimates import BLOCK, jackknife
from retrain.models.fitting import known_classes, predict
from retrain.models.importance import permutation_importance
from retrain.models.metrics import find_metric, monitoring_loss
from retrain.models.scoring import Model, baseline_loss, score_rows
from retrain.monitoring.cache import Cache
from retrain.types import Score

MOST_SCORES = 12  # batches that the champion is scored on
EXPECTABLE = ("log_loss", "brier")
# Labelled rows: below, importance is not measured; with so many, a sample will do.
FEWEST_SHUFFLED, ENOUGH_SHUFFLED = 20, 300


@dataclass(frozen=True)
class DeployedModel:
    """The champion, and the version that stands in for it on rows that it was refitted with."""

    version: int
    model: Model
    trained_until: datetime
    unrefitted: Model
    unrefitted_until: datetime
    digest: str  # of its file
    promoted_on: Window | None = None  # the time of those rows
    stand_in_version: int | None = None  # None where the champion stands in for itself


@dataclass
class Performance:
    """How well the deployed model predicts the batches of a snapshot."""

    config: Config
    manifest: Manifest
    store: SnapshotStore
    deployed: DeployedModel
    cache: Cache

    def __post_init__(self) -> None:
        self.data, self.labelled = self.config.data, self.manifest.labelled
        self.loss = monitoring_loss(self.data.metric, self.data.task)
        self.metric = find_metric(self.loss, self.data.task)

    def scores(self) -> list[Score]:
        """Losses on each of the newest labelled batches that the champion was not trained on.

        On the newest in any case, of which the version before the refit is scored on the rows that
        it was not trained on.
        """
        found = (self._score(batch) for batch in self.labelled[-MOST_SCORES:])
        return [score for score in found if score is not None]

    def _score(self, batch: Batch) -> Score | None:
        deployed = self.deployed
        assert batch.first_time is not None
        refitted = batch.first_time < deployed.trained_until
        if refitted and batch is not self.labelled[-1]:
            return None
        model, since = deployed.model, batch.first_time
        if refitted:
            model, since = deployed.unrefitted, deployed.unrefitted_until
        block = block_of(self.config.evaluation)
        found = self.cache.get(
            f"scores {self.loss} {block} {deployed.digest} {batch.content} {since}",
            lambda: self._fresh(batch, model, since),
        )
        if not found:
            return None
        value, low, high, baseline, blocks = found
        return Score(
            batch.period,
            value,
            low,
            high,
            deployed.stand_in_version if refitted else None,
            () if refitted else tuple(blocks),
            baseline,
        )

    def _fresh(self, batch: Batch, model: Model, since: datetime) -> list[Any]:
        """Loss, its interval and the baseline's (None where they can't be known), and the losses of
        single blocks; empty without rows."""
        columns = list({*Schema(self.data).columns, *self.deployed.model.features})
        read = self.store.read([batch.period], columns)
        rows = Window(since, datetime.max).rows(read, self.data.time_column)
        if rows.is_empty():
            return []
        target, score = self._scored(model, rows)
        block = block_index(self.data.time_column, block_of(self.config.evaluation))
        codes = block_codes(rows.select(block.alias(BLOCK)))
        estimate = jackknife(self.metric.replicates(target, score, codes))
        blocks = [
            self.metric.value(target[codes == number], score[codes == number])
            for number in range(int(codes.max()) + 1)
        ]
        uncertain = (*estimate.interval(), baseline_loss(rows, self.config))
        return [
            estimate.value,
            *(value if math.isfinite(value) else None for value in uncertain),
            [value for value in blocks if math.isfinite(value)],
        ]

    def _scored(self, model: Model, rows: pl.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        scored = score_rows({"champion": model}, rows, self.config)
        return scored.target, scored.scores["champion"]

    def expected_baseline_loss(self) -> float:
        """The baseline's loss on the rows that the champion was promoted on; NaN when they are no
        longer there."""
        window = self.deployed.promoted_on
        batches = batches_in(self.labelled, window) if window else []
        if window is None or not batches:
            return math.nan
        names = [self.data.time_column, self.data.target_column]

        def fresh() -> list[float]:
            read = self.store.read([batch.period for batch in batches], names)
            rows = window.rows(read, names[0])
            return [baseline_loss(rows, self.config)] if len(rows) else []

        contents = " ".join(batch.content for batch in batches)
        found = self.cache.get(f"difficulty {self.loss} {window} {contents}", fresh)
        return float(found[0]) if found else math.nan

    def expected(self, scores: Sequence[Score]) -> list[Score]:
        """For batches whose labels are late: what a calibrated champion would lose.

        By its own probabilities, corrected by how far off those were on the newest labelled batch
        (confidence-based performance estimation, CBPE, as in NannyML).
        """
        waiting = [
            batch
            for batch in self.manifest.batches
            if batch not in self.labelled and batch.takes_part
        ]
        if self.loss not in EXPECTABLE or not waiting or not self.labelled:
            return []
        newest = self.labelled[-1]
        believed = self._believed(newest)
        known = next((score.value for score in scores if score.period == newest.period), None)
        factor = known / believed if known is not None and believed > 0 else 1.0
        version = self.deployed.stand_in_version
        return [
            Score(batch.period, self._believed(batch) * factor, version=version)
            for batch in waiting
        ]

    def _believed(self, batch: Batch) -> float:
        """The mean loss that the probabilities for a batch's sample expect of themselves."""
        model = self.deployed.unrefitted
        classes = [str(name) for name in model.pipeline.classes_]
        predicted = predict(model.pipeline, self.store.sample(batch), model.features, classes)
        return float(expected_loss(predicted, self.loss).mean())

    def importance(self) -> dict[str, float]:
        """By feature, on a sample of the newest labelled batch."""
        model, rows = self.deployed.unrefitted, self._labelled_sample()
        if len(rows) < FEWEST_SHUFFLED:
            return {}
        return permutation_importance({"champion": model}, rows, self.config)["champion"]

    def _labelled_sample(self) -> pl.DataFrame:
        """Labelled rows spread evenly over the newest labelled batch: those of its sample, or where
        most of that has no label yet, of all."""
        newest = self.labelled[-1]
        sample = self.store.sample(newest)
        labelled = sample.filter(pl.col(self.data.target_column).is_not_null())
        if len(labelled) >= min(newest.rows, ENOUGH_SHUFFLED):
            return labelled
        rows = self.store.read([newest.period], sample.columns)
        return rows[sample_places(len(rows))]


def classes_of(model: Model, config: Config) -> list[str]:
    """The classes whose probabilities a model predicts, where there are several."""
    return known_classes(model.pipeline) if config.data.task is Task.multiclass else []


def expected_loss(probabilities: NDArray[Any], loss: str) -> NDArray[Any]:
    """The loss that each row's probabilities, shape (rows, classes), expect of themselves; shape
    (rows,)."""
    if loss == "brier":
        scale = 2 if probabilities.shape[1] == 2 else 1
        return np.asarray((1 - np.square(probabilities).sum(axis=1)) / scale)
    clipped = np.clip(probabilities, np.finfo(np.float64).eps, 1)
    return np.asarray(-(clipped * np.log(clipped)).sum(axis=1))
