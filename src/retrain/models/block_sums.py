"""Sums over the rows of each block of time, and what a metric makes of them without each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.errors import ConfigError

Array = NDArray[Any]


def sum_by_block(blocks: Array, *columns: Array) -> Array:
    """The sum of each column, of shape (rows,), and last the number of rows, in each block:
    (blocks, columns + 1)."""
    return np.stack([*(np.bincount(blocks, column) for column in columns), np.bincount(blocks)]).T


def sum_rows_by_block(blocks: Array, losses: Array, metric: str) -> Array:
    """`sum_by_block` of what `rows` of a metric gives. Raises ConfigError unless that is a loss a
    row."""
    losses = np.asarray(losses)
    if losses.shape != blocks.shape:
        raise ConfigError(
            f"`rows` of the metric {metric} gives the shape {losses.shape} for {len(blocks)} rows.",
            hint=f"give a loss a row, shape ({len(blocks)},)",
        )
    return sum_by_block(blocks, losses)


def leave_one_out(finish: Callable[[Array], Array], sums: Array) -> Array:
    """`finish` of the total of block sums, of shape (blocks, k), and of the total without each
    block: (1 + blocks,)."""
    total = np.ascontiguousarray(sums.T).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return finish(np.vstack([total, total - sums]))


def mean(totals: Array) -> Array:
    """The mean of the first column of `sum_by_block`: a `finish`."""
    return totals[:, 0] / totals[:, -1]
