"""How far two batches lie apart, from their profiles: values, and how the target follows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.data.profiles import OTHER, BatchProfile, ColumnProfile

SHRINKAGE = 20  # rows
SMALLEST_SQUARE = 1e-290  # of what a slope is divided by
KOLMOGOROV_VARIANCE = 0.8225  # E[K^2] of Kolmogorov's distribution: pi^2 / 12


def distance(one: ColumnProfile, other: ColumnProfile) -> float:
    """0 to 1: the Kolmogorov-Smirnov distance of numbers, the total variation distance of levels,
    or if that is larger, the difference of the shares of missing values."""
    missing = abs(one.null_share - other.null_share)
    gap = gap_of_values(one, other)
    if gap is not None:
        return max(missing, gap)
    return missing if one.rows and other.rows else 0.0


def gap_of_values(one: ColumnProfile, other: ColumnProfile) -> float | None:
    """The distance of the values that there are, of numbers or of levels; None where one of the two
    has none."""
    if one.quantiles and other.quantiles:
        return _largest_gap(np.array(one.quantiles), np.array(other.quantiles))
    return _variation(one.levels, other.levels) if one.levels and other.levels else None


def _largest_gap(one: NDArray[Any], other: NDArray[Any]) -> float:
    points = np.concatenate([one, other])
    shares = [
        np.searchsorted(quantiles, points, side="right") / len(quantiles)
        for quantiles in (one, other)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def _variation(one: dict[str, int], other: dict[str, int]) -> float:
    totals = sum(one.values()), sum(other.values())
    names = sorted(
        one.keys() | other.keys()
    )  # sets come in any order, and sums differ by it in the last digit
    return 0.5 * sum(
        abs(one.get(name, 0) / totals[0] - other.get(name, 0) / totals[1]) for name in names
    )


def noise(one: ColumnProfile, other: ColumnProfile) -> float:
    """The mean square of the distance that two samples of these sizes have when nothing has
    changed, as if rows were independent."""
    sizes = [column.rows - column.nulls for column in (one, other)]
    if not all(sizes):
        return 0.0
    inverse = 1 / sizes[0] + 1 / sizes[1]
    if one.quantiles:
        return KOLMOGOROV_VARIANCE * inverse
    shares = np.array(list(one.levels.values())) / max(1, sum(one.levels.values()))
    # The mean of |X| for a normal X is sqrt(2 / pi) of its deviation.
    return float(
        (0.5 * math.sqrt(2 / math.pi) * np.sqrt(shares * (1 - shares)).sum()) ** 2 * inverse
    )


def unseen_share(column: ColumnProfile, history: Sequence[ColumnProfile]) -> float:
    """The share of a category's rows whose level was counted in no earlier batch."""
    known = {OTHER}.union(*(earlier.levels for earlier in history))
    total = sum(column.levels.values())
    return (
        sum(count for name, count in column.levels.items() if name not in known) / total
        if total
        else 0.0
    )


def relation(
    batch: BatchProfile, history: Sequence[BatchProfile], name: str
) -> tuple[float, float]:
    """How the target goes with one feature, against how it did: numerator and denominator of a
    slope.

    The slope of a regression, over the groups of the feature's rows, of the target's deviations
    from its mean in the batch on those of earlier batches at the same place: about 1 as before
    (somewhat more where earlier groups were small), 0 nothing left, -1 turned around. Those of
    several features add up.
    """
    groups = batch.features[name].groups
    if not groups or not history:
        return 0.0, 0.0
    places, counts, sums = zip(*groups, strict=True)
    rows = np.array(counts, dtype=np.float64)[:, None]
    deviations = np.array(sums) / rows - np.array(batch.outcome_means)
    expected = sum(_at_places(places, batch.outcomes, earlier, name) for earlier in history) / len(
        history
    )
    weighted = rows * expected
    product, square = float((weighted * deviations).sum()), float((weighted * expected).sum())
    # Numbers at the ends of what a float can hold say nothing.
    return (
        (product, square)
        if math.isfinite(product) and SMALLEST_SQUARE < square < math.inf
        else (0.0, 0.0)
    )


def _at_places(
    asked: Sequence[float | str], outcomes: Sequence[str], earlier: BatchProfile, name: str
) -> NDArray[Any]:
    """The outcomes' deviations from their means in an earlier batch, at some places; shape (places,
    outcomes)."""
    expected = np.zeros((len(asked), len(outcomes)))
    column = earlier.features.get(name)
    if (
        column is None
        or not column.groups
        or isinstance(asked[0], str) != isinstance(column.groups[0][0], str)
    ):
        return expected
    places, counts, sums = zip(*column.groups, strict=True)
    rows = np.array(counts, dtype=np.float64)[:, None]
    # Small groups say little: they are drawn to the batch's mean, as if some rows of it were among
    # them.
    deviations = (np.array(sums) - rows * np.array(earlier.outcome_means)) / (rows + SHRINKAGE)
    for number, outcome in enumerate(outcomes):
        if outcome not in earlier.outcomes:
            continue
        line = deviations[:, earlier.outcomes.index(outcome)]
        if isinstance(places[0], str):
            table = dict(zip(places, line, strict=True))
            expected[:, number] = [table.get(place, 0.0) for place in asked]
        else:
            expected[:, number] = np.interp(np.array(asked, dtype=np.float64), places, line)
    return expected
