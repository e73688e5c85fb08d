"""How much of the target one column alone explains: a share of the variance of classes, of amounts
or of their ranks.

No row is predicted from itself, so that chance explains nothing.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task

Floats = NDArray[np.float64]
MOST_LEVELS = 100  # a number with no more different values than this may stand for levels
SHRUNK_BY = 1.0  # rows at the overall mean that each level is given beside its own
FEW_KNOWN = 200
SEED = 0


def explained_share(values: pl.Series, target: pl.Series, task: Task) -> float:
    """The share of a target, of which each value is there and finite, that whatever function of a
    column explains."""
    if task is Task.regression and values.dtype.is_numeric():
        known = values.cast(pl.Float64).is_finite().fill_null(False)
        if known.sum() < min(FEW_KNOWN, len(values) / 2):
            return 0.0
        values, target = values.filter(known), target.filter(known)
    if target.is_empty():
        return 0.0
    outcomes = to_outcomes(target, task)
    shares = explained(values, outcomes)
    if task is Task.regression:
        return float(shares.max())
    weights = outcomes.var(axis=0)
    return float((shares * weights).sum() / weights.sum()) if weights.any() else 0.0


def to_outcomes(target: pl.Series, task: Task) -> Floats:
    """Ranks and amounts, shape (rows, 2), or 0 and 1 for each class in order of its name."""
    if task is Task.regression:
        return np.column_stack([target.rank(), target.cast(pl.Float64)])
    codes = target.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
    outcomes: Floats = np.eye(int(codes.max()) + 1)[codes]
    return outcomes


def explained(values: pl.Series, outcomes: Floats) -> Floats:
    """The share of the variance of each outcome that a column explains by its levels, or as a
    number. Missing is a level, and a number of its own."""
    number = values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Datetime, pl.Date)
    shares = np.zeros(outcomes.shape[1])
    if not number or values.n_unique() <= MOST_LEVELS:
        shares = np.maximum(shares, explained_by_levels(values, outcomes))
    if number:
        numbers = values.to_physical().cast(pl.Float64).fill_nan(None)
        smallest = numbers.min()
        lowest = float(smallest) - 1 if isinstance(smallest, float) else 0.0
        shares = np.maximum(shares, _by_neighbours(numbers.fill_null(lowest).to_numpy(), outcomes))
    return shares


def explained_by_levels(values: pl.Series, outcomes: Floats) -> Floats:
    """Each row is predicted from the other rows of its level, and a little from all: a level of one
    row explains nothing."""
    levels = values.cast(pl.String).fill_null("\0").rank("dense").to_numpy().astype(np.int64)
    rows, mean = np.bincount(levels)[levels][:, None], outcomes.mean(axis=0)
    sums = np.zeros((levels.max() + 1, outcomes.shape[1]))
    np.add.at(sums, levels, outcomes)
    predicted = (sums[levels] - outcomes + SHRUNK_BY * mean) / (rows - 1 + SHRUNK_BY)
    return _share((outcomes - predicted) ** 2, outcomes)


def _by_neighbours(numbers: Floats, outcomes: Floats) -> Floats:
    """Each row is predicted from the two beside it in the order of the column, on the straight line
    between them.

    As in von Neumann's ratio, what is left over is the variance that no smooth function of the
    column explains; equal values are in random order, so that they are one another's noise.
    """
    order = np.random.default_rng(SEED).permutation(len(numbers))
    order = order[np.argsort(numbers[order], kind="stable")]
    x, y = numbers[order][:, None], outcomes[order]
    gap = x[2:] - x[:-2]
    weight = np.where(gap > 0, (x[1:-1] - x[:-2]) / np.where(gap > 0, gap, 1), 0.5)
    left_over = y[1:-1] - (1 - weight) * y[:-2] - weight * y[2:]
    return _share(left_over**2 / (1 + weight**2 + (1 - weight) ** 2), y[1:-1])


def _share(noise: Floats, outcomes: Floats) -> Floats:
    """1 where all of an outcome's variance is explained; 0 where it has none."""
    variance = ((outcomes - outcomes.mean(axis=0)) ** 2).sum(axis=0)
    return np.where(variance > 0, 1 - noise.sum(axis=0) / np.where(variance > 0, variance, 1), 0)
