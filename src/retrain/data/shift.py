"""How far a batch lies from those before it: its values, and how the target follows them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.data.distances import distance, gap_of_values, relation, unseen_share
from retrain.data.profiles import BatchProfile, ColumnProfile, ShiftMetrics

FEWEST_ROWS = 20  # of a batch: fewer can't be judged, nor others by them
PREDECESSORS = 12  # the newest batches before one, that it is compared with
FEWEST_VALUES = 8
MIDDLE = slice(13, 115, 6)  # of the quantiles: 10 to 90 %
# Of a logarithm: so far off may be a quantile that has been scaled with the others.
FITTING = 0.075
# Of a logarithm, where a larger spread may be all that has changed, as of returns in a restless
# month.
SCALED_AROUND_ZERO = 0.4
LARGEST_ERROR = 1e9  # of a slope: it says nothing


def measure_shift(
    batch: BatchProfile,
    earlier: Sequence[BatchProfile],
    season: Sequence[BatchProfile] = (),
    regime: Sequence[BatchProfile] = (),
) -> ShiftMetrics:
    """How far a batch lies from the newest of `earlier`, oldest first, and from those of the same
    `season`, a year ago. Where things have changed for good (`regime`: the batches since then), its
    relation may also be that since then."""
    shift, earlier = ShiftMetrics(), large(earlier)[-PREDECESSORS:]
    if not earlier:
        return shift
    for name, column in batch.features.items():
        neighbours = [other.features[name] for other in earlier if name in other.features]
        if not neighbours:
            continue
        of_season = [other.features[name] for other in large(season) if name in other.features]
        history = neighbours + of_season
        gaps = (gap_of_values(column, other) for other in history)
        shift.steps[name] = distance(column, neighbours[-1])
        shift.nearest[name] = min((gap for gap in gaps if gap is not None), default=0.0)
        if column.levels:
            shift.unseen[name] = unseen_share(column, history)
        if column.quantiles:
            shift.factors[name] = scaled_by(column, history)
    slopes = _slopes(batch, earlier)
    for key, slope in _slopes(batch, large(regime)[-PREDECESSORS:]).items():
        if key is None or key in slopes:
            slopes[key] = max(slopes.get(key, slope), slope, key=Slope.at_least)
    whole = slopes.pop(None, None)
    return dataclasses.replace(
        shift,
        slope=whole.value if whole else None,
        slope_error=whole.error if whole else 0.0,
        slopes={name: slope.value for name, slope in slopes.items() if name is not None},
        target_step=distance(batch.target, earlier[-1].target) if batch.labelled else None,
    )


def without_shift(batch: BatchProfile, relation_only: bool = False) -> BatchProfile:
    """A batch that others may lie near to, but whose own distance from the past is no yardstick."""
    shift = ShiftMetrics()
    if relation_only:
        shift = dataclasses.replace(
            batch.shift, slope=None, slopes={}, slope_error=0.0, target_step=None
        )
    return dataclasses.replace(batch, shift=shift)


def large(batches: Sequence[BatchProfile]) -> list[BatchProfile]:
    """Those with enough rows to judge others by."""
    return [batch for batch in batches if batch.rows >= FEWEST_ROWS]


@dataclass(frozen=True)
class Slope:
    """How much is left of the relation that target and features had, with its standard error."""

    value: float
    error: float

    def at_least(self) -> float:
        """What is left at least: half of old and half of new rows may cancel each other out, and
        then chance makes slopes of any size."""
        return self.value - 2 * self.error


def _slopes(batch: BatchProfile, earlier: Sequence[BatchProfile]) -> dict[str | None, Slope]:
    """The slope of each feature on that in some batches, and, under None, that of all together, as
    if they were independent."""
    found: dict[str | None, tuple[float, float]] = {
        name: relation(batch, earlier, name) for name in batch.features
    }
    products, squares = zip((0.0, 0.0), *found.values(), strict=True)
    found[None] = sum(products), sum(squares)
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


def scaled_by(column: ColumnProfile, history: Sequence[ColumnProfile]) -> float:
    """The factor that turns the quantiles of earlier batches into a column's own, of the most
    similar one; 1 where no one factor does for half of them, or for some of them not and it is
    small: a season moves a column by as much."""
    found = [_factor(column, other) for other in history if other.quantiles]
    factors = [factor for factor in found if factor is not None]
    factor = min(factors, key=lambda factor: abs(math.log(factor)), default=1.0)
    certain = len(factors) == len(history) or abs(math.log(factor)) > SCALED_AROUND_ZERO
    return factor if certain and len(factors) >= len(history) / 2 else 1.0


def _factor(column: ColumnProfile, other: ColumnProfile) -> float | None:
    """What turns the quantiles of one column into another's; None where no one factor does."""
    own, earlier = np.array(column.quantiles[MIDDLE]), np.array(other.quantiles[MIDDLE])
    if len(np.unique(earlier)) < FEWEST_VALUES:
        return None
    if min(earlier.min(), own.min()) > 0:
        ratios = own / earlier
        factor = float(np.median(ratios))
        fits = factor > 0 and np.abs(np.log(ratios / factor)).max() <= FITTING
    else:
        factor = float(own @ earlier / (earlier @ earlier))
        fits = factor > 0 and np.abs(own - factor * earlier).max() <= FITTING * np.abs(own).max()
    return factor if fits else None
