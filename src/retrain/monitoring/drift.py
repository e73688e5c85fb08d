"""How much a batch differs from the newest one that the champion learnt from, against how much neighbouring batches differ.

The yardstick is the data's own history: the distances of each batch to the one before it. So an alarm depends neither on the
number of rows (what chance alone would do to samples of that size is taken out) nor on the season (if batches always
differ, differing is no news).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from retrain.data.anomalies import comes_alive
from retrain.data.distances import distance, noise, unseen_share
from retrain.data.profiles import BatchProfile, ColumnProfile

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
    """Two samples: how far they lie apart, and the mean square of that distance if nothing had changed."""

    distance: float
    noise: float


@dataclass(frozen=True)
class Change:
    """A distance, its usual size between neighbours, and how often an unchanged batch would lie as far off; NaN without history.

    Of several features together the distance is the largest one, which has no usual size.
    """

    distance: float
    usual: float
    p_value: float


@dataclass(frozen=True)
class Drift:
    """`families`: how often an unchanged batch would differ as much in any feature, in the target, the champion's predictions, or
    for a classifier that is shown whole rows. `news`: columns that are new, gone, constant, missing or full of new levels."""

    batch: str
    reference: str
    features: dict[str, Change] = field(default_factory=dict)
    families: dict[str, Change] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)

    def alarms(self, false_alarm_rate: float) -> list[str]:
        """The families that differ more than a share `false_alarm_rate` of unchanged batches would in any of them."""
        return [
            name
            for name, change in self.families.items()
            if change.p_value < false_alarm_rate / len(self.families)
        ]


def compare_batches(
    batch: BatchProfile,
    reference: BatchProfile,
    history: Sequence[BatchProfile],
    names: tuple[str, str],
) -> Drift:
    """Drift of features and target of a batch against a reference. `history` are successive sound batches, oldest first."""
    features = {
        name: _column_change(
            column, reference.features[name], [other.features.get(name) for other in history]
        )
        for name, column in batch.features.items()
        if name in reference.features
    }
    surprises = [change for change, _, _ in features.values()]
    families = {FEATURES: _any_of(features)} if surprises else {}
    if batch.labelled and reference.labelled:
        families[TARGET] = _column_change(
            batch.target, reference.target, [other.target for other in history]
        )[0]
    changes = {name: change for name, (change, _, _) in features.items()}
    return Drift(names[0], names[1], changes, families, find_news(batch, reference, history))


def _column_change(
    column: ColumnProfile, reference: ColumnProfile, history: Sequence[ColumnProfile | None]
) -> tuple[Change, float, list[float]]:
    """The change, how many of its own deviations it lies above the mean of its history, and the same of each past step."""
    pairs = [
        Pair(distance(later, earlier), noise(later, earlier))
        for earlier, later in itertools.pairwise(history)
        if earlier is not None and later is not None
    ]
    return calibrate(Pair(distance(column, reference), noise(column, reference)), pairs)


def calibrate(pair: Pair, past: Sequence[Pair]) -> tuple[Change, float, list[float]]:
    """A distance against those between neighbours: the change, its standardized logarithm, and those of the past."""
    if len(past) < FEWEST_STEPS:
        return Change(pair.distance, math.nan, math.nan), math.nan, []
    real = max(0.0, float(np.mean([other.distance**2 - other.noise for other in past])))

    def logarithm(other: Pair) -> float:
        return math.log(
            max(SMALLEST, other.distance) / math.sqrt(max(SMALLEST**2, real + other.noise))
        )

    value, values = logarithm(pair), [logarithm(other) for other in past]
    spread, freedom = _spread(values)
    score = (value - float(np.mean(values))) / spread
    scores = [(other - float(np.mean(values))) / spread for other in values]
    return (
        Change(pair.distance, math.sqrt(real + pair.noise), _tail(score, len(past), freedom)),
        score,
        scores,
    )


def against_neighbours(
    measure: Callable[[B, B], Pair], newest: B, reference: B, history: Sequence[B]
) -> Change:
    """How far one batch lies from another, a later from an earlier one, beside how far neighbours of the newest PAIRS do."""
    steps = list(itertools.pairwise(history))[-PAIRS:]
    return calibrate(
        measure(newest, reference), [measure(later, earlier) for earlier, later in steps]
    )[0]


def _any_of(features: Mapping[str, tuple[Change, float, list[float]]]) -> Change:
    """The largest of the features' standardized logarithms, against the largest that past batches had."""
    known = [(score, scores) for _, score, scores in features.values() if scores]
    largest = max((change.distance for change, _, _ in features.values()), default=0.0)
    if not known:
        return Change(largest, math.nan, math.nan)
    steps = min(len(scores) for _, scores in known)
    past = [
        max(scores[len(scores) - steps + number] for _, scores in known) for number in range(steps)
    ]
    spread, freedom = _spread(past)
    score = (max(score for score, _ in known) - float(np.mean(past))) / spread
    return Change(largest, math.nan, _tail(score, steps, freedom))


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Standard deviation and degrees of freedom, as if PRIOR_VALUES more had been seen to vary by PRIOR_SPREAD."""
    freedom = len(values) - 1 + PRIOR_VALUES
    squares = PRIOR_VALUES * PRIOR_SPREAD**2 + (len(values) - 1) * float(np.var(values, ddof=1))
    return math.sqrt(squares / freedom), freedom


def _tail(score: float, count: int, freedom: float) -> float:
    """The chance that the next of `count` normal values lies so high (a prediction interval)."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -score / math.sqrt(1 + 1 / count)))


def find_news(
    batch: BatchProfile, reference: BatchProfile, history: Sequence[BatchProfile]
) -> list[str]:
    """What has appeared, vanished or surged, a clause each."""
    news = []
    for name in dict.fromkeys([*batch.features, *reference.features]):
        column, before = batch.features.get(name), reference.features.get(name)
        if before is None or column is None:
            news.append(f"`{name}` is new" if before is None else f"`{name}` is gone")
            continue
        if column.rows == column.nulls and before.rows > before.nulls:
            news.append(f"`{name}` has vanished: every value is missing")
            continue
        most = max(
            (other.features[name].null_share for other in history if name in other.features),
            default=1.0,
        )
        if column.null_share > most + SURGE:
            news.append(
                f"`{name}` is missing in {column.null_share:.0%} of the rows (at most {most:.0%} before)"
            )
        if _constant(column) and not _constant(before):
            news.append(f"`{name}` has become constant")
        known = [other.features[name] for other in history if name in other.features]
        if known and comes_alive(column, known):
            news.append(f"`{name}` has come alive: in all batches before it had one value, or none")
        share = unseen_share(column, known) if column.levels and known else 0.0
        if share > SURGE:
            news.append(f"{share:.0%} of the rows have levels of `{name}` that no batch had before")
    return sorted(news)


def _constant(column: ColumnProfile) -> bool:
    return len(column.levels) == 1 or (
        bool(column.quantiles) and column.quantiles[0] == column.quantiles[-1]
    )
