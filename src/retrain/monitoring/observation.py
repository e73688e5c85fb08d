"""What the monitor sees in the newest batch: drift, the champion's losses, features that matter."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from retrain.config import Config
from retrain.data.manifest import Batch, Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.errors import RetrainError
from retrain.models.fitting import predict
from retrain.monitoring.cache import Cache
from retrain.monitoring.domain_classifier import separate_once
from retrain.monitoring.drift import (
    HISTORY,
    PAIRS,
    PREDICTIONS,
    ROWS,
    TARGET,
    Drift,
    Pair,
    against_neighbours,
    column_pair,
    compare_batches,
    predicted_column,
)
from retrain.monitoring.performance import DeployedModel, Performance, classes_of
from retrain.types import Change, Score

FEWEST_UNSEEN = 50  # rows of a sample that the model was not trained on; with fewer, all are taken
T = TypeVar("T")
log = logging.getLogger("retrain")


@dataclass
class Observation:
    """All that was seen.

    `expected`: losses that the champion's own probabilities let expect where labels are late.
    `importance`, by feature: what shuffling it costs the champion on the newest labelled batch.
    """

    drift: Drift | None = None
    scores: list[Score] = field(default_factory=list)
    expected: list[Score] = field(default_factory=list)
    importance: dict[str, float] = field(default_factory=dict)
    expected_baseline_loss: float = math.nan  # on the rows that the champion was promoted on

    def ranked(self) -> list[str]:
        """Features by drift times importance, the most worrying first."""
        changes = self.drift.features if self.drift else {}

        def weight(name: str) -> float:
            p_value = changes[name].p_value
            surprise = -math.log10(max(p_value, 1e-12)) if p_value is not None else 0.0
            return surprise * (max(0.0, self.importance.get(name, 0.0)) if self.importance else 1.0)

        return sorted(changes, key=lambda name: (-weight(name), name))


def observe(
    config: Config,
    manifest: Manifest,
    store: SnapshotStore,
    deployed: DeployedModel | None,
    cache_path: Path,
) -> Observation:
    """Look at the newest batch, labelled or not.

    Reads its rows, and of earlier batches profiles and samples only.
    """
    cache = Cache(cache_path)
    batches = _Batches(config, manifest, store, deployed, cache)
    seen = Observation(drift=_measured("drift", batches.drift, None))
    if deployed is None:
        return seen
    for name, measure in ((ROWS, batches.row_drift), (PREDICTIONS, batches.prediction_drift)):
        change = _measured(f"drift of {name}", measure, None) if seen.drift else None
        if seen.drift and change:
            seen.drift.families[name] = change
    performance = Performance(config, manifest, store, deployed, cache)
    seen.scores = _measured("the champion's losses", performance.scores, [])
    seen.expected_baseline_loss = _measured(
        "the baseline loss", performance.expected_baseline_loss, math.nan
    )
    seen.expected = _measured("the expected loss", lambda: performance.expected(seen.scores), [])
    seen.importance = _measured("the importance of features", performance.importance, {})
    cache.save()
    return seen


def _measured(what: str, measure: Callable[[], T], otherwise: T) -> T:
    """One part of an observation; `otherwise`, and a warning, where it breaks.

    No batch may be so odd that looking at it stops the pipeline. Errors of our own pass, since they
    name a way out.
    """
    try:
        return measure()
    except RetrainError:
        raise
    except Exception as error:
        log.warning(
            "The monitor could not measure %s (%s: %s). The pipeline goes on without it.",
            what,
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )
        log.debug("Where it broke:", exc_info=True)
        return otherwise


@dataclass
class _Batches:
    """The newest batch beside the newest one that the champion was trained on."""

    config: Config
    manifest: Manifest
    store: SnapshotStore
    deployed: DeployedModel | None
    cache: Cache

    def __post_init__(self) -> None:
        sound = [batch for batch in self.manifest.batches if batch.takes_part]
        until = self.deployed.trained_until if self.deployed else datetime.min
        earlier = sound[:-1] or sound
        trained_on = [batch for batch in earlier if batch.until and batch.until < until]
        self.newest, self.history = sound[-1], sound[-HISTORY - 1 : -1]
        self.reference = (trained_on or earlier)[-1]

    def drift(self) -> Drift | None:
        """Of features and target; None where there is no other batch."""
        newest, reference, profile = self.newest, self.reference, self.store.profile
        if reference is newest:
            return None
        drift = compare_batches(
            profile(newest),
            profile(reference),
            [profile(batch) for batch in self.history],
            (newest.period, reference.period),
        )
        if newest not in self.manifest.labelled:
            # Labels that come early are not like those that come late.
            drift.families.pop(TARGET, None)
        return drift

    def row_drift(self) -> Change:
        """Of whole rows: how features go together."""

        def measure(later: Batch, earlier: Batch) -> Pair:
            return separate_once(
                self.config,
                lambda: (self.store.sample(later), self.store.sample(earlier)),
                (later.content, earlier.content),
                self.cache,
            )

        return against_neighbours(measure, self.newest, self.reference, self.history)

    def prediction_drift(self) -> Change:
        """Of what the model before its refit predicts: on rows that a model was trained on its
        predictions are surer than on others."""
        assert self.deployed is not None
        model, since = self.deployed.unrefitted, self.deployed.unrefitted_until
        reference = self.store.sample(self.reference)
        unseen = reference.filter(pl.col(self.config.data.time_column) >= since)
        samples = [
            *(self.store.sample(batch) for batch in (*self.history[-PAIRS - 1 :], self.newest)),
            unseen if len(unseen) >= FEWEST_UNSEEN else reference,
        ]
        rows, classes = pl.concat(samples, how="diagonal_relaxed"), classes_of(model, self.config)
        scores = predict(model.pipeline, rows, model.features, classes)
        borders = np.cumsum([len(sample) for sample in samples])[:-1]
        *past, newest, other = (
            predicted_column(part, classes) for part in np.split(scores, borders)
        )
        return against_neighbours(column_pair, newest, other, past)
