"""An estimate and how sure it is, from leaving out one block of rows after the other; and the
columns of predictions.

Rows of one block of time move together, so whole blocks are left out, one at a time (the
delete-one-cluster jackknife). With few blocks its interval, with Student's t at blocks - 1 degrees
of freedom, is the least over-confident of the usual ones (MacKinnon, Nielsen and Webb 2023,
"Cluster-robust inference: a guide to empirical practice", J. Econometrics 232). It needs no random
numbers, serves any metric, and for all but scikit-learn's scorers is a closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrain.columns import own_column
from retrain.lazy import scipy

CHALLENGER, INCUMBENT, BASELINE = "challenger", "incumbent", "baseline"
# Columns of the stored predictions, beside one of scores for each model. WINDOW is EVALUATION, or
# the batch whose old evaluation rows are a reference.
TARGET, BLOCK, WINDOW = own_column("target"), own_column("block"), own_column("window")
EVALUATION = "evaluation"


def score_column(model: str) -> str:
    """The column that holds what a model (challenger, incumbent, baseline) predicts."""
    return own_column(model)


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty.

    Attributes
    ----------
    value
        The value on all rows.
    standard_error
        Over blocks of time; NaN where it can't be known.
    degrees_of_freedom
        Of Student's t: the number of blocks less one.
    """

    value: float
    standard_error: float
    degrees_of_freedom: int

    def shifted(self, by: float) -> Estimate:
        """The same estimate of a value that is larger by a known amount."""
        return replace(self, value=self.value + by)

    def quantile(self, confidence: float) -> float:
        """The bound that the true value lies below with this confidence (one-sided)."""
        width = scipy.special.stdtrit(self.degrees_of_freedom, confidence) * self.standard_error
        return float(self.value + width)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval."""
        tail = (1 - confidence) / 2
        return self.quantile(tail), self.quantile(1 - tail)

    def p_above(self, limit: float) -> float:
        """P-value of the hypothesis that the true value is no more than `limit` (one-sided)."""
        if self.standard_error == 0:
            return 0.0 if self.value > limit else 1.0
        distance = (limit - self.value) / self.standard_error
        return float(scipy.special.stdtr(self.degrees_of_freedom, distance))


def jackknife(replicates: NDArray[np.float64]) -> Estimate:
    """From a value and its leave-one-block-out values, of shape (1 + blocks,).

    One block tells nothing about its own variation: its standard error is NaN.
    """
    value, left_out = float(replicates[0]), replicates[1:]
    blocks = len(left_out)
    if blocks < 2:
        return Estimate(value, math.nan, 0)
    variance = (blocks - 1) / blocks * np.sum((left_out - left_out.mean()) ** 2)
    return Estimate(value, float(np.sqrt(variance)), blocks - 1)
