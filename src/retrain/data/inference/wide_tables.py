"""Among thousands of columns, those that explain the target alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.data.inference.explained import explained_entropy, explained_variance
from retrain.data.inference.leaks import SUSPICIOUS

SAMPLE_ROWS = 2000
SUSPICIOUS_CORRELATION = 0.995
LOOKED_AT = 0.8  # of the variance, before a column is looked at closely
SEED = 0


def find_target_copies(
    rows: pl.DataFrame, names: Sequence[str], target: pl.Series, task: Task
) -> list[str]:
    """Columns that alone explain the target, or one of its classes, almost perfectly: on a sample
    of the rows.

    All are sorted by, and those whose neighbours have nearly the same target are looked at closely.
    """
    usable = target.is_finite() if target.dtype.is_float() else target.is_not_null()
    chosen = np.flatnonzero(usable.fill_null(False))
    # In random order, so that equal values are one another's noise; then row by row through NumPy:
    # Polars takes minutes to
    # gather rows of so many columns.
    chosen = np.random.default_rng(SEED).permutation(chosen[:: -(-len(chosen) // SAMPLE_ROWS)])
    cells = np.nan_to_num(rows.select(pl.col(names).cast(pl.Float32)).to_numpy()[chosen], nan=0.0)
    values = target.gather(chosen)
    if task is Task.regression:
        known = values.cast(pl.Float64).to_numpy()
        outcomes, explained = np.column_stack([known, values.rank()]), explained_variance
    else:
        known = values.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
        outcomes, explained = np.eye(int(known.max()) + 1)[known], explained_entropy
    outcomes = _standardized(outcomes.astype(np.float32))
    correlations = np.abs(_standardized(cells).T @ outcomes).max(axis=1) / len(cells)
    leaky = correlations > SUSPICIOUS_CORRELATION
    for column in np.flatnonzero(_smoothness(cells, outcomes) > LOOKED_AT):
        leaky[column] |= explained(pl.Series(cells[:, column]), known) > SUSPICIOUS[task]
    return [names[column] for column in np.flatnonzero(leaky)]


def _smoothness(cells: NDArray[np.float32], outcomes: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each column the largest share of the variance of an outcome that is the same in rows
    beside each other."""
    largest = np.zeros(cells.shape[1])
    for column in range(cells.shape[1]):
        steps = np.diff(outcomes[np.argsort(cells[:, column], kind="stable")], axis=0)
        largest[column] = (1 - (steps**2).mean(axis=0) / 2).max()
    return largest


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns with mean 0 and variance 1; constant ones are 0."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
