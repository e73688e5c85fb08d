"""Does a new batch look broken rather than drifted? Judged against how much earlier batches
differed from those before them.

Drift moves a batch within what the data has shown before, or slowly beyond it. Flipped labels,
broken joins, other units and repeated rows are jumps. Only jumps are anomalies: a season is none,
nor is a column that comes alive. Of too few rows nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from retrain.data.profiles import BatchProfile, ColumnProfile
from retrain.data.shift import (
    FEWEST_ROWS,
    FEWEST_VALUES,
    MIDDLE,
    PREDECESSORS,
    SCALED_AROUND_ZERO,
    large,
)
from retrain.lazy import scipy

# Stands for the rules here and in shift, distances and profiles: another text when one of them
# changes, so that batches are compared again.
RULES = "62afd40e6296e60d93155d6358bd7b91301d4ea10c347d16434c8eb6923c8bda"

FEWEST_EARLIER = 4  # batches; before that there is nothing to compare with
PART = 0.1  # of the usual number of labelled rows: in fewer a relation may turn by chance
COMPARED = 36  # the newest batches whose own shift is the yardstick
FALSE_ALARM_RATE = 0.001  # of sound batches, for their relation between features and target
PRIOR_SPREAD, PRIOR_VALUES = 0.1, 4  # of slopes
TURNED = -0.3  # a slope below this has turned around
GONE = 0.15  # of a slope below this next to nothing is left
STEADY = 0.25  # a slope above this in every batch
COLLAPSED = 1 / 3  # of the least slope of any batch
LARGE_STEP = 0.3  # of a share
# Of a logarithm: prices rise by a quarter in a season; miles and kilometres, pounds and kilograms
# differ by more.
SCALED = 0.3
FAR = 0.7  # of a distance of at most 1
# Of the values of a column are the same one: it has no unit yet, and whatever it will hold is new.
ASLEEP = 0.9


@dataclass(frozen=True)
class Rule:
    """A batch looks broken where `measure` lies above `limit` of the most that any batch before it
    had. `reason` is filled in with the name of the column, `value` and `most`."""

    measure: Callable[[BatchProfile, str], float]
    limit: Callable[[float], float]
    reason: str

    def find(
        self, batch: BatchProfile, earlier: Sequence[BatchProfile], name: str = ""
    ) -> list[str]:
        """The reason, where there is one."""
        value, *past = (self.measure(other, name) for other in (batch, *earlier))
        found = self.reason.format(name=name, value=value, most=max(past))
        return [found] if value > self.limit(max(past)) else []


REPEATED = Rule(
    lambda batch, _: batch.repeated_share,
    lambda most: most + LARGE_STEP / 2,
    "{value:.0%} of the rows repeat another row in all but their key (at most {most:.0%} before)",
)
MISSING = Rule(
    lambda batch, name: batch.features[name].null_share,
    lambda most: most + LARGE_STEP,
    "`{name}` is missing in {value:.0%} of the rows (at most {most:.0%} before)",
)
UNSEEN = Rule(
    lambda batch, name: batch.shift.unseen.get(name, 0.0),
    lambda most: most + LARGE_STEP,
    "{value:.0%} of the levels of `{name}` were never seen before (at most {most:.0%}): other "
    "codes?",
)


def detect_anomalies(
    batch: BatchProfile, earlier: Sequence[BatchProfile], season: Sequence[BatchProfile] = ()
) -> list[str]:
    """Reasons, a clause each, to think that a batch is broken; `earlier` are the sound ones before
    it, oldest first, all with their shift, and `season` those of a year ago."""
    earlier = large(earlier)[-COMPARED:]
    if len(earlier) < FEWEST_EARLIER or batch.rows < FEWEST_ROWS:
        return []
    past = [*large(season), *earlier]
    values = (_values(batch, past, name) for name in batch.features)
    return [*_relation(batch, earlier), *chain(*values), *REPEATED.find(batch, past)]


def _relation(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> list[str]:
    """Labels that no longer go with the features: flipped, or joined to the wrong rows; or several
    columns that don't."""
    slope, error = batch.shift.slope, batch.shift.slope_error
    past = [other.shift.slope for other in earlier if other.shift.slope is not None]
    if batch.labelled < FEWEST_ROWS or slope is None or not past:
        return []
    least, usual = min(past), float(np.median([other.labelled for other in earlier]))
    enough = batch.labelled >= PART * usual
    # Two signs at once, each too weak by itself when the history is short: the relation is far
    # below that of any batch before, and the target has moved twice as far as ever.
    other_labels = (
        slope + 2 * error <= least
        and least > STEADY
        and slope < COLLAPSED * least
        and _target_moved(batch, earlier)
    )
    turned = slope + 2 * error < TURNED and least > -TURNED
    # A batch of few rows, as one that is still filling up, varies more than whole ones.
    few = max(1.0, usual / batch.labelled)
    if (enough and (turned or other_labels)) or slope < _lower_bound(past, few, error):
        what = "turned around" if slope < TURNED else "much weaker than ever before"
        if TURNED <= slope < GONE:
            what = "all but gone"
        return [
            f"the relation between features and target is {what} ({slope:.2f} of what it was; "
            f"earlier batches: {least:.2f} to {max(past):.2f}): labels flipped, or joined to the "
            "wrong rows?"
        ]
    # In too few rows single columns say nothing.
    return [] if batch.labelled < usual / 3 else _collapsed(batch, earlier)


def _target_moved(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> bool:
    step = batch.shift.target_step
    steps = [other.shift.target_step for other in earlier if other.shift.target_step is not None]
    return step is not None and step > 2 * max(steps, default=math.inf)


def _collapsed(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> list[str]:
    """Of the columns that went with the target in every batch, several that no longer do."""
    steady = {}
    for name in batch.shift.slopes:
        past = [other.shift.slopes[name] for other in earlier if name in other.shift.slopes]
        if len(past) >= FEWEST_EARLIER and min(past) >= STEADY:
            steady[name] = min(past)
    collapsed = [
        f"`{name}`"
        for name, least in steady.items()
        if batch.shift.slopes[name] < COLLAPSED * least
    ]
    if len(collapsed) < max(2, 0.2 * len(steady)):
        return []
    more = f" and {len(collapsed) - 4} more" if len(collapsed) > 4 else ""
    return [
        f"{', '.join(collapsed[:4])}{more} no longer go with the target as in every batch before: "
        "joined to the wrong rows?"
    ]


def _lower_bound(past: Sequence[float], few: float, error: float) -> float:
    """What the next of a series falls below with probability FALSE_ALARM_RATE (a prediction
    interval of normal values). `few`: how many times more its variance is than that of the past."""
    count = len(past)
    if count < 2:
        return -math.inf
    # With few values their spread is hardly known: as if PRIOR_VALUES others had been seen to vary
    # by PRIOR_SPREAD.
    freedom = PRIOR_VALUES + count - 1
    squares = PRIOR_VALUES * PRIOR_SPREAD**2 + (count - 1) * float(np.var(past, ddof=1))
    spread = math.hypot(math.sqrt(squares / freedom * few * (1 + 1 / count)), error)
    return float(np.mean(past) - scipy.special.stdtrit(freedom, 1 - FALSE_ALARM_RATE) * spread)


def _values(batch: BatchProfile, earlier: Sequence[BatchProfile], name: str) -> list[str]:
    """Why the values of a column look unlike those of any earlier batch, or are missing as never
    before."""
    column, earlier = batch.features[name], [other for other in earlier if name in other.features]
    if len(earlier) < FEWEST_EARLIER or name not in batch.shift.nearest:
        return []
    history = [other.features[name] for other in earlier]
    rules = [MISSING]
    if not comes_alive(column, history):  # which is a change of the schema, and no fault
        rules += [UNSEEN] if column.levels else _unit_rules(batch, name, history)
    return next(filter(None, (rule.find(batch, earlier, name) for rule in rules)), [])


def _unit_rules(batch: BatchProfile, name: str, history: Sequence[ColumnProfile]) -> list[Rule]:
    """That a column of numbers may have another unit; flags and codes have none."""
    column, factor = batch.features[name], batch.shift.factors.get(name, 1.0)
    if len(set(column.quantiles)) < FEWEST_VALUES:
        return []
    known = [value for other in history for value in other.quantiles]
    before = float(np.median(known)) if known else math.nan
    compared = [column, *history[-PREDECESSORS:]]
    positive = all(other.quantiles and other.quantiles[MIDDLE][0] > 0 for other in compared)
    least = SCALED if positive else SCALED_AROUND_ZERO
    middle = float(np.median(column.quantiles))
    return [
        Rule(
            lambda batch, name: batch.shift.nearest.get(name, 0.0),
            lambda most: max(FAR, (1 + most) / 2),
            f"`{{name}}` is unlike that of any earlier batch (median {middle:g}, was {before:g}): "
            "another unit?",
        ),
        Rule(
            lambda batch, name: abs(math.log(batch.shift.factors.get(name, 1.0))),
            lambda most: max(least, 2 * most),
            f"`{{name}}` is {factor:.3g} times what it was in all earlier batches: another unit?",
        ),
    ]


def comes_alive(column: ColumnProfile, history: Sequence[ColumnProfile]) -> bool:
    """Whether a column had one value, or none, in all earlier batches, and now has several, the old
    one among them if it is a category: then there is nothing that its values could be unlike."""
    if not all(_asleep(other) for other in history) or _asleep(column):
        return False
    before = {name for other in history for name in other.levels}
    return not column.levels or not before or bool(before & column.levels.keys())


def _asleep(column: ColumnProfile) -> bool:
    if column.levels:
        return len(column.levels) == 1
    most = max(np.unique(column.quantiles, return_counts=True)[1], default=0)
    return bool(most >= ASLEEP * len(column.quantiles))
