"""The losses of a model on one batch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from retrain.gate.estimates import jackknife
from retrain.models.block_sums import Array, leave_one_out
from retrain.models.metric import Metric


@dataclass(frozen=True)
class Losses:
    """A model on a batch: the loss's sums over each block of time, shape (blocks, k)."""

    metric: Metric
    sums: Array

    @functools.cached_property
    def replicates(self) -> Array:
        """The loss on all rows, then without each block in turn, shape (1 + blocks,)."""
        return leave_one_out(self.metric.finish, self.sums)

    @property
    def value(self) -> float:
        return float(self.replicates[0])

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the loss, over its blocks; NaN with one block."""
        return jackknife(self.replicates).interval()

    @property
    def blocks(self) -> tuple[float, ...]:
        """The loss on each block."""
        return tuple(map(float, self.metric.finish(self.sums)))
