"""Among thousands of columns, those that explain the target alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.data.inference.explained import explained_share, to_outcomes
from retrain.data.inference.leaks import SUSPICIOUS

SAMPLE_ROWS = 2000
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
    # Polars takes minutes to gather rows of so many columns.
    chosen = np.random.default_rng(SEED).permutation(chosen[:: -(-len(chosen) // SAMPLE_ROWS)])
    cells = np.nan_to_num(rows.select(pl.col(names).cast(pl.Float32)).to_numpy()[chosen], nan=0.0)
    values = target.gather(chosen)
    outcomes = to_outcomes(values, task)
    outcomes = (outcomes - outcomes.mean(axis=0)) / outcomes.std(axis=0)
    return [
        name
        for name, column in zip(names, cells.T, strict=True)
        if _smoothness(column, outcomes) > LOOKED_AT
        and explained_share(pl.Series(column), values, task) > SUSPICIOUS[task]
    ]


def _smoothness(column: NDArray[np.float32], outcomes: NDArray[np.float64]) -> float:
    """The largest share of the variance of an outcome that is the same in rows beside each
    other."""
    steps = np.diff(outcomes[np.argsort(column, kind="stable")], axis=0)
    return float((1 - (steps**2).mean(axis=0) / 2).max())
