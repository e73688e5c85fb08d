"""The figures that a gate judges, without the libraries that compute them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrain.errors import PromotionError

# Columns of the stored predictions.
CHALLENGER, INCUMBENT, BASELINE = "challenger", "incumbent", "baseline"
TARGET, BLOCK = "target", "block"
HIGHER_IS_BETTER = {"roc_auc"}


class NotEnoughRows(PromotionError):
    """A figure is not a number on these rows: they hold one class, or one block of time."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error over blocks, NaN where it can't be known."""

    value: float
    standard_error: float
    degrees_of_freedom: int

    def quantile(self, confidence: float) -> float:
        """The bound that the true figure lies below with this confidence (one-sided)."""
        from scipy.special import stdtrit

        return float(self.value + stdtrit(self.degrees_of_freedom, confidence) * self.standard_error)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval."""
        tail = (1 - confidence) / 2
        return self.quantile(tail), self.quantile(1 - tail)


@dataclass(frozen=True)
class Comparison:
    """Scores by (model, metric), and differences challenger - other by (other, metric)."""

    rows: int
    blocks: int
    positive_share: float
    scores: dict[tuple[str, str], Estimate]
    differences: dict[tuple[str, str], Estimate]
    identical: bool  # challenger and incumbent gave the same predictions, bit for bit

    def score(self, model: str, metric: str) -> Estimate:
        return _finite(self.scores, model, metric)

    def worsening(self, other: str, metric: str) -> Estimate:
        """By how much the challenger is worse than `other`; negative when it is better.

        Raises PromotionError when the metric is unknown or not a number, so that no check can pass on it.
        """
        difference = _finite(self.differences, other, metric)
        sign = -1 if metric in HIGHER_IS_BETTER else 1
        return Estimate(sign * difference.value, difference.standard_error, difference.degrees_of_freedom)


def _finite(estimates: dict[tuple[str, str], Estimate], model: str, metric: str) -> Estimate:
    estimate = estimates.get((model, metric))
    if estimate is None:
        raise PromotionError(
            f"The gate asks for `{metric}` of the {model}, which was not measured. Measured: {', '.join(sorted({name for _, name in estimates}))}."
        )
    if not math.isfinite(estimate.value) or not math.isfinite(estimate.standard_error):
        raise NotEnoughRows(
            f"`{metric}` of the {model} is not a number on these {estimate.degrees_of_freedom + 1} block(s): the evaluation rows "
            "hold one class or one block only"
        )
    return estimate
