"""How much a batch differs from the newest one that the champion was trained on.

The yardstick is the data's own history: the distances of each batch to the one before it. So an
alarm depends neither on the number of rows (what chance alone would do to samples of that size is
taken out) nor on the season (if batches always differ, differing is nothing new).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.data.anomalies import comes_alive
from retrain.data.distances import distance, noise, unseen_share
from retrain.data.profiles import BatchProfile, ColumnProfile, profile_column
from retrain.lazy import scipy
from retrain.types import Change

B = TypeVar("B")  # whatever stands for a batch

HISTORY = 24  # batches: the yardstick of drift
PAIRS = 12  # of them where rows are compared, or predictions
FEWEST_STEPS = 3  # between neighbouring batches; with fewer there is no yardstick
PRIOR_SPREAD, PRIOR_VALUES = 0.5, 3  # of the logarithm of a distance over its usual size
SMALLEST = 1e-3
SURGE = 0.1  # of the rows
FEATURES, TARGET, PREDICTIONS, ROWS = "features", "target", "predictions", "whole rows"


@dataclass(frozen=True)
class Pair:
    """Two samples: how far they lie apart, and the mean square of that distance if nothing had
    changed."""

    distance: float
    noise: float


@dataclass(frozen=True)
class Drift:
    """A batch beside a reference.

    `families`: how often an unchanged batch would differ as much in any feature, in the target, the
    champion's predictions, or for a classifier that is shown whole rows. `schema_changes`: columns
    that are new, gone, constant, missing or full of new levels.
    """

    batch: str
    reference: str
    features: dict[str, Change] = field(default_factory=dict)
    families: dict[str, Change] = field(default_factory=dict)
    schema_changes: list[str] = field(default_factory=list)

    def p_values(self) -> dict[str, float]:
        """Of each family; NaN without history."""
        return {
            name: math.nan if change.p_value is None else change.p_value
            for name, change in self.families.items()
        }

    def alarms(self, false_alarm_rate: float) -> list[str]:
        """The families that differ more than a share `false_alarm_rate` of unchanged batches would
        in any of them."""
        return [
            name
            for name, change in self.families.items()
            if change.p_value is not None and change.p_value < false_alarm_rate / len(self.families)
        ]


def compare_batches(
    batch: BatchProfile,
    reference: BatchProfile,
    history: Sequence[BatchProfile],
    names: tuple[str, str],
) -> Drift:
    """Drift of features and target of a batch against a reference. `history` are successive sound
    batches, oldest first."""

    def calibrated(
        column: ColumnProfile, other: ColumnProfile, past: Sequence[ColumnProfile | None]
    ) -> tuple[Change, list[float]]:
        steps = [
            column_pair(later, earlier)
            for earlier, later in itertools.pairwise(past)
            if earlier is not None and later is not None
        ]
        return calibrate(column_pair(column, other), steps)

    found = {
        name: calibrated(
            column, reference.features[name], [other.features.get(name) for other in history]
        )
        for name, column in batch.features.items()
        if name in reference.features
    }
    features = {name: change for name, (change, _) in found.items()}
    families = {}
    if features:
        largest = max(change.distance for change in features.values())
        families[FEATURES] = _largest_of([scores for _, scores in found.values()], largest)
    if batch.labelled and reference.labelled:
        past = [other.target for other in history]
        families[TARGET] = calibrated(batch.target, reference.target, past)[0]
    return Drift(*names, features, families, find_schema_changes(batch, reference, history))


def column_pair(later: ColumnProfile, earlier: ColumnProfile) -> Pair:
    """How far two columns lie apart."""
    return Pair(distance(later, earlier), noise(later, earlier))


def predicted_column(scores: NDArray[Any], classes: Sequence[str]) -> ColumnProfile:
    """A model's predictions, shape (rows,), or (rows, classes), as one column: the values, or the
    most probable class."""
    values = [classes[number] for number in scores.argmax(axis=1)] if classes else scores
    return profile_column(pl.Series("predictions", values), None, None)


def calibrate(pair: Pair, past: Sequence[Pair]) -> tuple[Change, list[float]]:
    """A distance against those between neighbours.

    Beside the change, its logarithm and those of the past, by how many of their deviations they lie
    above the mean of the past; nothing where the past is too short.
    """
    if len(past) < FEWEST_STEPS:
        return Change(pair.distance), []
    real = max(0.0, float(np.mean([other.distance**2 - other.noise for other in past])))

    def logarithm(other: Pair) -> float:
        return math.log(
            max(SMALLEST, other.distance) / math.sqrt(max(SMALLEST**2, real + other.noise))
        )

    scores, p_value = _standardize([logarithm(other) for other in (pair, *past)])
    return Change(pair.distance, math.sqrt(real + pair.noise), p_value), scores


def against_neighbours(
    measure: Callable[[B, B], Pair], newest: B, reference: B, history: Sequence[B]
) -> Change:
    """How far one batch lies from another, a later from an earlier one, beside how far neighbours
    of the newest PAIRS do."""
    steps = list(itertools.pairwise(history))[-PAIRS:]
    past = [measure(later, earlier) for earlier, later in steps]
    return calibrate(measure(newest, reference), past)[0]


def _largest_of(features: Sequence[Sequence[float]], distance: float) -> Change:
    """The largest of the features' standardized logarithms, the newest first, against the largest
    that past batches had."""
    known = [scores for scores in features if scores]
    if not known:
        return Change(distance)
    steps = min(len(scores) for scores in known) - 1
    past = [max(scores[number - steps] for scores in known) for number in range(steps)]
    _, p_value = _standardize([max(scores[0] for scores in known), *past])
    return Change(distance, p_value=p_value)


def _standardize(values: Sequence[float]) -> tuple[list[float], float]:
    """The first of some values, and all others, in deviations from the mean of the others; and the
    chance that the next of them, were they normal, lies as high (a prediction interval).

    The deviation is estimated as if PRIOR_VALUES more had been seen to vary by PRIOR_SPREAD.
    """
    past = values[1:]
    freedom = len(past) - 1 + PRIOR_VALUES
    squares = PRIOR_VALUES * PRIOR_SPREAD**2 + (len(past) - 1) * float(np.var(past, ddof=1))
    spread, mean = math.sqrt(squares / freedom), float(np.mean(past))
    scores = [(value - mean) / spread for value in values]
    p_value = scipy.special.stdtr(freedom, -scores[0] / math.sqrt(1 + 1 / len(past)))
    return scores, float(p_value)


def find_schema_changes(
    batch: BatchProfile, reference: BatchProfile, history: Sequence[BatchProfile]
) -> list[str]:
    """What has appeared, vanished or surged, a clause each."""
    changes = []
    for name in dict.fromkeys([*batch.features, *reference.features]):
        column, before = batch.features.get(name), reference.features.get(name)
        if before is None or column is None:
            changes.append(f"`{name}` is {'new' if before is None else 'gone'}")
            continue
        known = [other.features[name] for other in history if name in other.features]
        changes += [f"`{name}` {what}" for what in _column_changes(column, before, known)]
    return sorted(changes)


def _column_changes(
    column: ColumnProfile, before: ColumnProfile, known: Sequence[ColumnProfile]
) -> Iterator[str]:
    if column.rows == column.nulls and before.rows > before.nulls:
        yield "has vanished: every value is missing"
        return
    most = max((other.null_share for other in known), default=1.0)
    if column.null_share > most + SURGE:
        yield f"is missing in {column.null_share:.0%} of the rows (at most {most:.0%} before)"
    if column.is_constant and not before.is_constant:
        yield "has become constant"
    if known and comes_alive(column, known):
        yield "has come alive: in all batches before it had one value, or none"
    share = unseen_share(column, known) if column.levels and known else 0.0
    if share > SURGE:
        yield f"has levels that no batch had before, in {share:.0%} of the rows"
