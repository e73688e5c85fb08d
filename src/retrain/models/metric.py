"""The base class of metrics: of stored predictions, in numpy. The gate loads no model library.

A metric is made of sums over rows, so its value without one block of rows is what it makes of the
total less that block's sums: ten million rows in a hundred blocks cost one pass, not a hundred.

What `target` and `score` hold depends on the task, everywhere. `blocks` is the number of each row's
block of time, int64 from 0 without gaps, of shape (rows,).

| task | target, float64 of shape (rows,) | score, float64 |
|---|---|---|
| binary | 0 and 1 | probability of 1, shape (rows,) |
| multiclass | index of the class | probability of each class, shape (rows, classes) |
| regression | the value | the predicted value, shape (rows,) |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from retrain.config import Task
from retrain.models.block_sums import Array, leave_one_out, mean, sum_rows_by_block


class Metric:
    """One number for many rows, and its value when any block of them is left out.

    Subclass it, write `block_sums` and `finish`, which its confidence interval is made of too, and
    name it by its dotted path as `metric` in a file of conf/data/ or of a check. The path may lead
    to an instance, for a metric with parameters. A loss of each row by itself is a `RowLoss`.

    Attributes
    ----------
    lower_is_better, tasks
        Whether less of it is better; the tasks that it means anything for.

    Examples
    --------
    The mean cost of a row, where a missed positive costs ten times what a false alarm costs:

    >>> import numpy as np
    >>> class CostOfAlarms(Metric):
    ...     tasks = frozenset({Task.binary})
    ...
    ...     def block_sums(self, target, score, blocks):
    ...         alarm = score >= 0.1
    ...         return sum_by_block(blocks, np.where(alarm, 1 - target, 10 * target))
    ...
    ...     def finish(self, totals):
    ...         return totals[:, 0] / totals[:, -1]
    >>> CostOfAlarms().value(np.array([0.0, 1.0]), np.array([0.2, 0.05]))
    5.5
    """

    lower_is_better: ClassVar[bool] = True
    tasks: ClassVar[frozenset[Task]] = frozenset(Task)

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        """What the metric is made of, summed over the rows of each block.

        Returns
        -------
        numpy.ndarray
            Shape (number of blocks, k), with any k; `sum_by_block` makes it of columns.
        """
        raise NotImplementedError

    def finish(self, totals: Array) -> Array:
        """The values, of shape (n,), from n totals of block sums, of shape (n, k). NaN where the
        rows can't tell."""
        raise NotImplementedError

    def replicates(self, target: Array, score: Array, blocks: Array) -> Array:
        """The metric on all rows, then without each block in turn: float64 of shape (1 +
        blocks,)."""
        return leave_one_out(self.finish, self.block_sums(target, score, blocks))

    def value(self, target: Array, score: Array) -> float:
        """The metric on all rows."""
        return float(self.replicates(target, score, np.zeros(len(target), dtype=np.int64))[0])

    def fits(self, task: Task) -> bool:
        """Whether the metric means anything for a task."""
        return task in self.tasks

    def best_constant(self, target: Array) -> float:
        """The constant that does best on rows with this target: the mean, unless overridden."""
        return float(np.mean(target))

    def margin_base(self, value: Array | float) -> Array | float:
        """What a relative margin is a share of: the value itself, unless overridden."""
        return value


class RowLoss(Metric, ABC):
    """The mean of a loss that each row has by itself: parts of the rows, such as slices, can be
    compared by it."""

    @abstractmethod
    def rows(self, target: Array, score: Array) -> Array:
        """The loss of each row, shape (rows,)."""

    def block_sums(self, target: Array, score: Array, blocks: Array) -> Array:
        return sum_rows_by_block(blocks, self.rows(target, score), type(self).__name__)

    def finish(self, totals: Array) -> Array:
        return mean(totals)
