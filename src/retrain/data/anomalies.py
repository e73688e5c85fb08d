"""Does a new batch look broken rather than drifted? Judged against how much earlier batches
differed from those before them.

Drift moves a batch within what the data has shown before, or slowly beyond it. Flipped labels,
broken joins, other units and repeated rows are shift. Only shift are suspected here: a season is no
reason, nor is a column that comes alive. Of too few rows nothing is said.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrain.data.distances import distance, gap_of_values, relation, unseen_share
from retrain.data.profiles import BatchProfile, ColumnProfile, ShiftMetrics

FEWEST_EARLIER = 4  # batches; before that there is nothing to compare with
FEWEST_ROWS = 20  # of a batch: fewer can't be judged, nor others by them
PART = 0.1  # of the usual number of labelled rows: in fewer a relation may turn by chance
PREDECESSORS = 12  # the newest batches before one, that it is held against
COMPARED = 36  # the newest batches whose own shift are the yardstick
FALSE_ALARM_RATE = 0.001  # of sound batches, for their relation between features and target
PRIOR_SPREAD, PRIOR_VALUES = 0.1, 4  # of slopes
TURNED = -0.3  # a slope below this has turned around
STEADY = 0.25  # a slope above this in every batch
COLLAPSED = 1 / 3  # of the least slope of any batch
LARGE_STEP = 0.3  # of a share
# of the logarithm: prices rise by a quarter in a season; miles and kilometres, pounds and kilograms
# differ by more
SCALED = 0.3
FITTING = (
    0.075  # of the logarithm: so far off may be a quantile that has been scaled with the others
)
SCALED_AROUND_ZERO = (
    0.4  # where a larger spread may be all that has changed, as of returns in a restless month
)
LARGEST_ERROR = 1e9  # of a slope: it says nothing
MIDDLE = slice(13, 115, 6)  # of the quantiles: 10 to 90 %
FEWEST_VALUES = 8
FAR = 0.7  # of a distance of at most 1
# of the values of a column are the same one: it has no unit yet, and what it will hold is news
ASLEEP = 0.9


@functools.cache
def code_digest() -> str:
    """Stands for the rules by which batches look broken."""
    from retrain.data import distances, profiles

    files = [Path(file) for file in (__file__, distances.__file__, profiles.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def measure_shift(
    batch: BatchProfile,
    earlier: Sequence[BatchProfile],
    season: Sequence[BatchProfile] = (),
    regime: Sequence[BatchProfile] = (),
) -> ShiftMetrics:
    """How far a batch lies from the newest of `earlier`, oldest first, and from those of the same
    `season`, a year ago. Where things have changed for good (`regime`: the batches since then), its
    relation may also be that since then."""
    earlier = _large(earlier)[-PREDECESSORS:]
    if not earlier:
        return ShiftMetrics()
    shift = ShiftMetrics()
    for name, column in batch.features.items():
        neighbours = [other.features[name] for other in earlier if name in other.features]
        if not neighbours:
            continue
        history = neighbours + [
            other.features[name] for other in _large(season) if name in other.features
        ]
        shift.steps[name] = distance(column, neighbours[-1])
        shift.nearest[name] = min(
            (gap for other in history if (gap := gap_of_values(column, other)) is not None),
            default=0.0,
        )
        if column.levels:
            shift.unseen[name] = unseen_share(column, history)
        if column.quantiles:
            shift.factors[name] = scaled_by(column, history)
    whole, since_then = _slopes(batch, earlier), _slopes(batch, _large(regime)[-PREDECESSORS:])
    slopes = {
        name: max(whole[name], since_then.get(name, whole[name]), key=_surely).slope
        for name in whole
    }
    slope = max(
        (found[None] for found in (whole, since_then) if None in found),
        key=_surely,
        default=Slope(None, 0.0),
    )
    return dataclasses.replace(
        shift,
        slope=slope.slope,
        slope_error=slope.error,
        slopes={name: value for name, value in slopes.items() if name is not None},
        target_step=distance(batch.target, earlier[-1].target) if batch.labelled else None,
    )


@dataclass(frozen=True)
class Slope:
    """How much is left of the relation that target and features had, with its standard error."""

    slope: float | None
    error: float


def _surely(slope: Slope) -> float:
    """What is left at least: half of old and half of new rows may cancel each other out, and then
    chance makes slopes of any size."""
    return slope.slope - 2 * slope.error


def _slopes(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> dict[str | None, Slope]:
    """The slope of each feature on that in some batches, and, under None, that of all together, as
    if they were independent."""
    found: dict[str | None, tuple[float, float]] = {
        name: relation(batch, earlier, name) for name in batch.features
    }
    found[None] = tuple(sum(values) for values in zip((0.0, 0.0), *found.values(), strict=True))
    variance = _variance(batch)
    return {
        name: Slope(product / square, min(LARGEST_ERROR, math.sqrt(variance / square)))
        for name, (product, square) in found.items()
        if square > 0
    }


def _variance(batch: BatchProfile) -> float:
    """Of the target, or of the flag of the class for which it is largest."""
    if batch.target.quantiles:
        return float(np.var(batch.target.quantiles))
    return max((mean * (1 - mean) for mean in batch.outcome_means), default=0.0)


def without_shift(batch: BatchProfile, relation_only: bool = False) -> BatchProfile:
    """A batch that others may lie near to, but whose own distance from the past is no yardstick."""
    kept = (
        dataclasses.replace(batch.shift, slope=None, slopes={}, slope_error=0.0, target_step=None)
        if relation_only
        else ShiftMetrics()
    )
    return dataclasses.replace(batch, shift=kept)


def _large(batches: Sequence[BatchProfile]) -> list[BatchProfile]:
    return [batch for batch in batches if batch.rows >= FEWEST_ROWS]


def detect_anomalies(
    batch: BatchProfile, earlier: Sequence[BatchProfile], season: Sequence[BatchProfile] = ()
) -> list[str]:
    """Reasons, a clause each, to think that a batch is broken; `earlier` are the sound ones before
    it, oldest first, all with their shift, and `season` those of a year ago."""
    earlier = _large(earlier)[-COMPARED:]
    if len(earlier) < FEWEST_EARLIER or batch.rows < FEWEST_ROWS:
        return []
    season = _large(season)
    reasons = _relation(batch, earlier) if batch.labelled >= FEWEST_ROWS else []
    return [*reasons, *_values(batch, [*season, *earlier]), *_repeated(batch, [*season, *earlier])]


def _relation(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> list[str]:
    """Labels that no longer go with the features: flipped, or joined to the wrong rows; or several
    columns that don't."""
    slope = batch.shift.slope
    past = [other.shift.slope for other in earlier if other.shift.slope is not None]
    if slope is None or not past:
        return []
    usual = float(np.median([other.labelled for other in earlier]))
    certain = slope + 2 * batch.shift.slope_error < TURNED and batch.labelled >= PART * usual
    turned = certain and min(past) > -TURNED
    if (
        turned
        or slope < _lower_bound(past, batch, earlier)
        or _other_labels(batch, earlier, min(past))
    ):
        what = (
            "turned around"
            if slope < TURNED
            else "all but gone"
            if slope < 0.15
            else "much weaker than ever before"
        )
        return [
            f"the relation between features and target is {what} ({slope:.2f} of what it was; "
            "earlier batches: "
            f"{min(past):.2f} to {max(past):.2f}): labels flipped, or joined to the wrong rows?"
        ]
    if batch.labelled < usual / 3:
        return []  # too few rows for single columns to speak
    steady, collapsed = [], []
    for name, slope in batch.shift.slopes.items():
        past = [other.shift.slopes[name] for other in earlier if name in other.shift.slopes]
        if len(past) < FEWEST_EARLIER or min(past) < STEADY:
            continue  # related to the target in some batches only: its absence says nothing
        steady.append(name)
        if slope < COLLAPSED * min(past):
            collapsed.append(name)
    if len(collapsed) < max(2, 0.2 * len(steady)):
        return []
    return [
        f"{_listed(collapsed)} no longer go with the target as in every batch before: joined to "
        "the wrong rows?"
    ]


def _other_labels(batch: BatchProfile, earlier: Sequence[BatchProfile], least: float) -> bool:
    """Two signs at once, each too weak by itself when the history is short: the relation is far
    below the `least` one of any batch before, and the target has moved twice as far as ever."""
    steps = [other.shift.target_step for other in earlier if other.shift.target_step is not None]
    usual = float(np.median([other.labelled for other in earlier]))
    if batch.labelled < PART * usual or batch.shift.slope + 2 * batch.shift.slope_error > least:
        return False
    moved = batch.shift.target_step is not None and batch.shift.target_step > 2 * max(
        steps, default=math.inf
    )
    return moved and least > STEADY and batch.shift.slope < COLLAPSED * least


def _lower_bound(
    past: Sequence[float], batch: BatchProfile, earlier: Sequence[BatchProfile]
) -> float:
    """What the next of a series falls below with probability FALSE_ALARM_RATE (a prediction
    interval of normal values)."""
    from scipy.special import stdtrit

    count = len(past)
    if count < 2:
        return -math.inf
    # With few values their spread is hardly known: as if PRIOR_VALUES others had been seen to vary
    # by PRIOR_SPREAD.
    freedom = PRIOR_VALUES + count - 1
    variance = (
        PRIOR_VALUES * PRIOR_SPREAD**2 + (count - 1) * float(np.var(past, ddof=1))
    ) / freedom
    usual = float(np.median([other.labelled for other in earlier]))
    # A batch of few rows, as one that is still filling up, varies more than whole ones.
    spread = math.sqrt(variance * max(1.0, usual / max(1, batch.labelled)) * (1 + 1 / count))
    spread = math.hypot(spread, batch.shift.slope_error)
    return float(np.mean(past) - stdtrit(freedom, 1 - FALSE_ALARM_RATE) * spread)


def _values(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> list[str]:
    """Columns whose values are unlike those of any earlier batch, or are missing as never
    before."""
    reasons = []
    for name, column in batch.features.items():
        history = [other for other in earlier if name in other.features]
        if len(history) < FEWEST_EARLIER or name not in batch.shift.nearest:
            continue
        missing = max(other.features[name].null_share for other in history)
        shift, past = batch.shift, [other.shift for other in history if name in other.shift.nearest]
        farthest = max((other.nearest[name] for other in past), default=0.0)
        if column.null_share > missing + LARGE_STEP:
            reasons.append(
                f"`{name}` is missing in {column.null_share:.0%} of the rows (at most "
                f"{missing:.0%} before)"
            )
        elif comes_alive(column, [other.features[name] for other in history]):
            continue  # told as news
        elif column.levels:
            usual = max((other.unseen.get(name, 0.0) for other in past), default=0.0)
            unseen = shift.unseen.get(name, 0.0)
            if unseen > usual + LARGE_STEP:
                reasons.append(
                    f"{unseen:.0%} of the levels of `{name}` were never seen before (at most "
                    f"{usual:.0%}): other codes?"
                )
        elif len(set(column.quantiles)) < FEWEST_VALUES:
            continue  # flags and codes have no unit, and may turn with the calendar
        elif shift.nearest[name] > max(FAR, (1 + farthest) / 2):
            middle = float(np.median(column.quantiles))
            known = [value for other in history for value in other.features[name].quantiles]
            before = float(np.median(known)) if known else math.nan
            reasons.append(
                f"`{name}` is unlike that of any earlier batch (median {middle:g}, was "
                f"{before:g}): another unit?"
            )
        else:
            factor = shift.factors.get(name, 1.0)
            usual = max(
                (abs(math.log(other.factors.get(name, 1.0))) for other in past), default=0.0
            )
            compared = [column, *(other.features[name] for other in history[-PREDECESSORS:])]
            positive = all(other.quantiles and other.quantiles[MIDDLE][0] > 0 for other in compared)
            least = SCALED if positive else SCALED_AROUND_ZERO
            if abs(math.log(factor)) > max(least, 2 * usual):
                reasons.append(
                    f"`{name}` is {factor:.3g} times what it was in all earlier batches: another "
                    "unit?"
                )
    return reasons


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
    most = max(np.unique(column.quantiles, return_counts=True)[1]) if column.quantiles else 0
    return most >= ASLEEP * len(column.quantiles)


def scaled_by(column: ColumnProfile, history: Sequence[ColumnProfile]) -> float:
    """The factor that turns the quantiles of earlier batches into a column's own, of the most
    similar one; 1 where no one factor does for half of them, or for some of them not and it is
    small: a season moves a column by as much."""
    factors = []
    for other in history:
        if not column.quantiles or not other.quantiles:
            continue
        own, earlier = np.array(column.quantiles[MIDDLE]), np.array(other.quantiles[MIDDLE])
        if len(np.unique(earlier)) < FEWEST_VALUES:
            continue
        if min(earlier.min(), own.min()) > 0:
            ratios = own / earlier
            factor = float(np.median(ratios))
            fits = factor > 0 and np.abs(np.log(ratios / factor)).max() <= FITTING
        else:
            factor = float(own @ earlier / (earlier @ earlier))
            fits = (
                factor > 0 and np.abs(own - factor * earlier).max() <= FITTING * np.abs(own).max()
            )
        if fits:
            factors.append(factor)
    factor = min(factors, key=lambda factor: abs(math.log(factor)), default=1.0)
    certain = len(factors) == len(history) or abs(math.log(factor)) > SCALED_AROUND_ZERO
    return factor if certain and len(factors) >= len(history) / 2 else 1.0


def _repeated(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> list[str]:
    most = max(other.repeated_share for other in earlier)
    if batch.repeated_share > most + LARGE_STEP / 2:
        return [
            f"{batch.repeated_share:.0%} of the rows repeat another row in all but their key (at "
            f"most {most:.0%} before)"
        ]
    return []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
