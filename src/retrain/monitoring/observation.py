"""What a new batch says about the data and the champion: drift, scores, what labels will probably show."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, Task, feature_types
from retrain.data.distances import distance, noise
from retrain.data.manifest import Batch, Manifest
from retrain.data.profiles import ColumnProfile, profile_column, sample_places
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in, block_index, block_of
from retrain.errors import RetrainError
from retrain.gate.comparison import block_codes, jackknife
from retrain.gate.estimates import BLOCK
from retrain.models.fitting import known_classes, predict
from retrain.models.metrics import find_metric, monitoring_loss
from retrain.models.scoring import Model, difficulty, score_rows
from retrain.monitoring.domain_classifier import separate
from retrain.monitoring.drift import (
    HISTORY,
    PAIRS,
    PREDICTIONS,
    ROWS,
    TARGET,
    Change,
    Drift,
    Pair,
    against_neighbours,
    compare_batches,
)
from retrain.monitoring.policy import Score
from retrain.workspace import write_json

MOST_SCORES = 12  # batches that the champion is scored on
EXPECTABLE = ("log_loss", "brier")
FEWEST_SHUFFLED, ENOUGH_SHUFFLED = (
    20,
    300,
)  # labelled rows: below, importance is not measured; with so many, a sample will do
T = TypeVar("T")
log = logging.getLogger("retrain")


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


@dataclass(frozen=True)
class EstimatedPerformance:
    """The loss that a champion's own probabilities let expect on rows without labels."""

    period: str
    rows: int
    value: float


@dataclass
class Observation:
    """All that was seen. `importance`, by feature: what shuffling it costs the champion on the newest labelled batch."""

    drift: Drift | None = None
    scores: list[Score] = field(default_factory=list)
    expected: list[EstimatedPerformance] = field(default_factory=list)
    importance: dict[str, float] = field(default_factory=dict)
    expected_difficulty: float = math.nan  # of the rows that the champion was promoted on

    def ranked(self) -> list[str]:
        """Features by drift times importance, the most worrying first: by how unlikely their change is, and what they are for."""
        changes = self.drift.features if self.drift else {}

        def weight(name: str) -> float:
            p_value = changes[name].p_value
            surprise = -math.log10(max(p_value, 1e-12)) if p_value == p_value else 0.0
            return surprise * (max(0.0, self.importance.get(name, 0.0)) if self.importance else 1.0)

        return sorted(changes, key=lambda name: (-weight(name), name))


def observe(
    config: Config,
    manifest: Manifest,
    store: SnapshotStore,
    watched: DeployedModel | None,
    cache: Path,
) -> Observation:
    """Look at the newest batch, labelled or not. Reads its rows, and of earlier batches summaries and samples only."""
    sound = [
        batch
        for batch in manifest.batches
        if not batch.on_hold and batch.rows + batch.unlabelled_rows
    ]
    newest = sound[-1]
    reference = _reference(sound, watched)
    history = sound[-HISTORY - 1 : -1]
    summaries = {
        batch.period: store.profile(batch)
        for batch in {b.period: b for b in (*history, reference, newest)}.values()
    }
    observation = Observation()
    if reference.period != newest.period:
        past = [summaries[batch.period] for batch in history]
        names = (newest.period, reference.period)
        observation.drift = _measured(
            "drift",
            lambda: compare_batches(summaries[names[0]], summaries[names[1]], past, names),
            None,
        )
        if observation.drift is not None and newest.period not in {
            batch.period for batch in manifest.labelled
        }:
            observation.drift.families.pop(
                TARGET, None
            )  # labels that come early are not like those that come late
    if watched is not None:
        remembered = Cache(cache)
        if observation.drift is not None:
            for name, measure in {
                ROWS: lambda: _whole_rows(config, store, newest, reference, history, remembered),
                PREDICTIONS: lambda: _predictions(
                    config, store, newest, reference, history, watched
                ),
            }.items():
                change = _measured(f"drift of {name}", measure, None)
                if change is not None:
                    observation.drift.families[name] = change
        observation.scores = _measured(
            "the champion's losses",
            lambda: _scores(config, manifest, store, watched, remembered),
            [],
        )
        observation.expected_difficulty = _measured(
            "how hard the rows are",
            lambda: _expected_difficulty(config, manifest, store, watched, remembered),
            math.nan,
        )
        observation.expected = _measured(
            "the loss to expect",
            lambda: _expected(config, manifest, store, watched, observation.scores),
            [],
        )
        observation.importance = _measured(
            "the importance of features",
            lambda: _importance(config, manifest, store, watched.unrefitted),
            {},
        )
        remembered.save()
    return observation


def _measured(what: str, measure: Callable[[], T], otherwise: T) -> T:
    """One part of an observation; `otherwise`, and a warning, where it breaks: no batch may be so odd that looking at it stops
    the pipeline. Errors of our own pass, since they name a way out."""
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


def _reference(sound: Sequence[Batch], watched: DeployedModel | None) -> Batch:
    """The newest batch that the champion has learnt from, but not the newest of all; without a champion the one before that."""
    earlier = sound[:-1] or sound
    if watched is None:
        return earlier[-1]
    fit_result = [batch for batch in earlier if batch.until < watched.trained_until]
    return fit_result[-1] if fit_result else earlier[-1]


class Cache:
    """What was measured once about batches that do not change. Losing it costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path, self.used = path, {}
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.known = known if isinstance(known, dict) else {}

    def get(self, key: str, measure: Callable[[], list]) -> list:
        if key not in self.used:
            self.used[key] = self.known[key] if key in self.known else measure()
        return self.used[key]

    def save(self, forget: bool = True) -> None:
        """Write down what was used, or, without `forget`, all that is known."""
        kept = self.used if forget else self.known | self.used
        if kept != self.known:
            write_json(self.path, kept)


def _whole_rows(
    config: Config,
    store: SnapshotStore,
    newest: Batch,
    reference: Batch,
    history: Sequence[Batch],
    cache: Cache,
) -> Change:
    def measure(later: Batch, earlier: Batch) -> Pair:
        names = (later.content, earlier.content)
        return separate_once(
            config, lambda: (store.sample(later), store.sample(earlier)), names, cache
        )

    return against_neighbours(measure, newest, reference, history)


def separate_once(
    config: Config,
    samples: Callable[[], tuple[pl.DataFrame, pl.DataFrame]],
    names: tuple[str, str],
    cache: Cache,
) -> Pair:
    """Whether the samples of a later and an earlier batch can be told apart; remembered by the `names` of their contents."""
    features = feature_types(config)
    key = hashlib.sha256(f"{sorted(features)} {names[0]} {names[1]}".encode()).hexdigest()[:16]

    def fresh() -> list[float]:
        later, earlier = samples()
        pair = separate(earlier, later, features, config.data.time_column)
        return [pair.distance, pair.noise]

    return Pair(*cache.get(f"rows {key}", fresh))


def _predictions(
    config: Config,
    store: SnapshotStore,
    newest: Batch,
    reference: Batch,
    history: Sequence[Batch],
    watched: DeployedModel,
) -> Change:
    """The champion's stand-in is asked: its predictions on rows that it has learnt are surer than on others."""
    samples = {
        batch.period: store.sample(batch)
        for batch in {b.period: b for b in (*history[-PAIRS - 1 :], reference, newest)}.values()
    }
    time = config.data.time_column
    unseen = samples[reference.period].filter(pl.col(time) >= watched.unrefitted_until)
    if len(unseen) < 50:
        unseen = samples[reference.period]
    parts = [*list(samples.values()), unseen]
    told = predictions_of(config, watched.unrefitted, pl.concat(parts, how="diagonal_relaxed"))
    columns, start = [], 0
    for part in parts:
        columns.append(profile_column(told[start : start + len(part)], None, None))
        start += len(part)
    by_period = dict(zip(samples, columns, strict=False))
    past = [by_period[batch.period] for batch in history[-PAIRS - 1 :]]
    return against_neighbours(column_pair, by_period[newest.period], columns[-1], past)


def column_pair(later: ColumnProfile, earlier: ColumnProfile) -> Pair:
    """How far two columns lie apart."""
    return Pair(distance(later, earlier), noise(later, earlier))


def predictions_of(config: Config, model: Model, rows: pl.DataFrame) -> pl.Series:
    """What a model says about rows, as one column: a probability, a value, or the most probable class."""
    classes = known_classes(model.pipeline) if config.data.task is Task.multiclass else []
    return as_column(predict(model.pipeline, rows, model.features, classes), classes)


def as_column(scores: NDArray, classes: Sequence[str]) -> pl.Series:
    """Scores of shape (rows,), or (rows, classes), as one column: the values, or the most probable class."""
    if not classes:
        return pl.Series("told", scores)
    return pl.Series("told", [classes[number] for number in scores.argmax(axis=1)])


def _scores(
    config: Config, manifest: Manifest, store: SnapshotStore, watched: DeployedModel, cache: Cache
) -> list[Score]:
    """The champion on each of the newest labelled batches that it has not learnt from; on the newest in any case, of which the
    stand-in is scored on the rows that it has not learnt from."""
    labelled, time = manifest.labelled, config.data.time_column
    loss = monitoring_loss(config.data.metric, config.data.task)
    columns = list({*Schema(config.data).columns, *watched.model.features})
    scores = []
    for batch in labelled[-MOST_SCORES:]:
        seen = batch.first_time < watched.trained_until
        if seen and batch.period != labelled[-1].period:
            continue
        model, since = (
            (watched.unrefitted, watched.unrefitted_until)
            if seen
            else (watched.model, batch.first_time)
        )

        def fresh(batch: Batch = batch, model: Model = model, since: datetime = since) -> list:
            rows = Window(since, datetime.max).rows(store.read([batch.period], columns), time)
            return score_blocks(config, model, rows) if len(rows) else []

        found = cache.get(
            f"scores {loss} {block_of(config.evaluation)} {watched.digest} {batch.content} {since}",
            fresh,
        )
        if found:
            value, low, high, hard = (
                math.nan if figure is None else figure for figure in found[:4]
            )
            blocks, version = ((), watched.stand_in_version) if seen else (tuple(found[4]), None)
            scores.append(Score(batch.period, value, low, high, blocks, hard, version))
    return scores


def _expected_difficulty(
    config: Config, manifest: Manifest, store: SnapshotStore, watched: DeployedModel, cache: Cache
) -> float:
    """How hard the rows were that the champion was promoted on; NaN when they are no longer there."""
    window = watched.promoted_on
    batches = batches_in(manifest.labelled, window) if window else []
    if not batches:
        return math.nan

    def fresh() -> list[float]:
        names = [config.data.time_column, config.data.target_column]
        rows = window.rows(store.read([batch.period for batch in batches], names), names[0])
        return [difficulty(rows, config)] if len(rows) else []

    loss = monitoring_loss(config.data.metric, config.data.task)
    found = cache.get(
        f"difficulty {loss} {window} {' '.join(batch.content for batch in batches)}", fresh
    )
    return found[0] if found else math.nan


def score_blocks(config: Config, model: Model, rows: pl.DataFrame) -> list:
    """Loss, its interval and difficulty (None where they can't be known), and the losses of single blocks."""
    metric = find_metric(monitoring_loss(config.data.metric, config.data.task), config.data.task)
    scored = score_rows({"champion": model}, rows, config)
    block = rows.select(
        block_index(config.data.time_column, block_of(config.evaluation)).alias(BLOCK)
    )
    codes = block_codes(block)
    target, score = scored.target, scored.scores["champion"]
    estimate = jackknife(metric.replicates(target, score, codes))
    low, high = estimate.interval()
    blocks = [
        metric.value(target[codes == number], score[codes == number])
        for number in range(int(codes.max()) + 1)
    ]
    finite = [
        value if math.isfinite(value) else None for value in (low, high, difficulty(rows, config))
    ]
    return [estimate.value, *finite, [value for value in blocks if math.isfinite(value)]]


def _expected(
    config: Config,
    manifest: Manifest,
    store: SnapshotStore,
    watched: DeployedModel,
    scores: Sequence[Score],
) -> list[EstimatedPerformance]:
    """For batches whose labels are late: what a calibrated champion would lose, by its own probabilities, corrected by how far
    off that was on the newest labelled batch (confidence-based performance estimation, as in NannyML)."""
    loss = monitoring_loss(config.data.metric, config.data.task)
    waiting = [
        batch
        for batch in manifest.batches
        if batch.period not in {b.period for b in manifest.labelled}
        and not batch.on_hold
        and batch.rows + batch.unlabelled_rows
    ]
    if loss not in EXPECTABLE or not waiting or not manifest.labelled:
        return []

    def own(batch: Batch) -> float:
        sample = store.sample(batch)
        classes = [str(name) for name in watched.unrefitted.pipeline.classes_]
        return float(
            expected_loss(
                predict(watched.unrefitted.pipeline, sample, watched.unrefitted.features, classes),
                loss,
            ).mean()
        )

    newest = manifest.labelled[-1]
    score, believed = (
        next((score for score in scores if score.period == newest.period), None),
        own(newest),
    )
    factor = score.value / believed if score is not None and believed > 0 else 1.0
    return [
        EstimatedPerformance(batch.period, batch.rows + batch.unlabelled_rows, own(batch) * factor)
        for batch in waiting
    ]


def expected_loss(probabilities: NDArray, loss: str) -> NDArray:
    """The loss that each row's probabilities, shape (rows, classes), expect of themselves; shape (rows,)."""
    if loss == "brier":
        expected = 1 - (probabilities**2).sum(axis=1)
        return expected / 2 if probabilities.shape[1] == 2 else expected
    clipped = np.clip(probabilities, np.finfo(np.float64).eps, 1)
    return -(clipped * np.log(clipped)).sum(axis=1)


def _importance(
    config: Config, manifest: Manifest, store: SnapshotStore, model: Model
) -> dict[str, float]:
    """Permutation importance (Breiman 2001) on a sample of the newest labelled batch: by how much the loss grows when a feature is
    dealt out anew.

    All shuffled copies are scored in one call.
    """
    labelled = _labelled_sample(config, manifest.labelled[-1], store)
    names = [name for name in model.features if name in labelled.columns]
    if len(labelled) < FEWEST_SHUFFLED:
        return {}
    copies = [
        labelled,
        *(labelled.with_columns(pl.col(name).shuffle(seed=config.seed)) for name in names),
    ]
    scored = score_rows({"champion": model}, pl.concat(copies), config)
    metric = find_metric(monitoring_loss(config.data.metric, config.data.task), config.data.task)
    parts = np.split(np.arange(len(copies) * len(labelled)), len(copies))
    losses = [metric.value(scored.target[part], scored.scores["champion"][part]) for part in parts]
    return {name: value - losses[0] for name, value in zip(names, losses[1:], strict=True)}


def _labelled_sample(config: Config, batch: Batch, store: SnapshotStore) -> pl.DataFrame:
    """Labelled rows spread evenly over a batch: those of its sample, or where most of that has no label yet, of all."""
    sample = store.sample(batch)
    labelled = sample.filter(pl.col(config.data.target_column).is_not_null())
    if len(labelled) >= min(batch.rows, ENOUGH_SHUFFLED):
        return labelled
    rows = store.read([batch.period], sample.columns)
    return rows[sample_places(len(rows))]
