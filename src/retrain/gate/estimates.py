"""The figures that a gate judges, without the libraries that compute them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retrain.columns import own_column
from retrain.config import Task
from retrain.errors import PromotionError
from retrain.models.metrics import find_metric, lower_is_better

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

CHALLENGER, INCUMBENT, BASELINE = "challenger", "incumbent", "baseline"
# Columns of the stored predictions, beside one of scores for each model. WINDOW is EVALUATION, or the batch whose old
# evaluation rows are a reference.
TARGET, BLOCK, WINDOW = own_column("target"), own_column("block"), own_column("window")
EVALUATION = "evaluation"


def score_column(model: str) -> str:
    """The column that holds what a model (challenger, incumbent, baseline) says about the rows."""
    return own_column(model)


class NotEnoughRows(PromotionError):
    """A figure is not a number on these rows: they hold one class, or one block of time."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error over blocks, NaN where it can't be known."""

    value: float
    standard_error: float
    degrees_of_freedom: int

    def shifted(self, by: float) -> Estimate:
        """The same estimate of a figure that is larger by a known amount."""
        return Estimate(self.value + by, self.standard_error, self.degrees_of_freedom)

    def quantile(self, confidence: float) -> float:
        """The bound that the true figure lies below with this confidence (one-sided)."""
        from scipy.special import stdtrit

        return float(
            self.value + stdtrit(self.degrees_of_freedom, confidence) * self.standard_error
        )

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval."""
        tail = (1 - confidence) / 2
        return self.quantile(tail), self.quantile(1 - tail)

    def p_above(self, limit: float) -> float:
        """P-value of the hypothesis that the true figure is no more than `limit` (one-sided)."""
        from scipy.special import stdtr

        if self.standard_error == 0:
            return 0.0 if self.value > limit else 1.0
        return float(stdtr(self.degrees_of_freedom, (limit - self.value) / self.standard_error))


@dataclass(frozen=True)
class Comparison:
    """Scores by (model, metric), and differences challenger - other by (other, metric).

    `metric` is the primary one, for checks that name none; `loss` is the loss of single rows for checks that look at some of the rows and name no other. `classes` are the labels
    behind the target's numbers, `unknown_classes` those that a model was not trained on.
    `look` counts the challengers that were judged on these evaluation rows, this one included; `unseen` is the share of the window
    that no look at an earlier one has seen. `facts` are figures of
    the challenger that are no statistics, such as its size. `rows_judged` and `reference_rows` are the stored
    predictions with `block` and the feature columns, for checks that look at some of the rows. `categories` are the columns
    that `by: null` slices by; None for every text and flag that is none of our own columns. `replicates` are the scores
    with none and with each one of the blocks left out, by (model, metric), each of shape (1 + blocks,).
    """

    rows: int
    blocks: int
    target_mean: float  # share of positives; NaN for several classes
    scores: dict[tuple[str, str], Estimate]
    differences: dict[tuple[str, str], Estimate]
    identical: bool  # challenger and incumbent gave the same predictions, bit for bit
    look: int = 1
    unseen: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)
    task: Task = Task.binary
    metric: str = "log_loss"
    loss: str = "log_loss"
    classes: Sequence[str] = ()
    unknown_classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows_judged: pl.DataFrame | None = None
    reference_rows: pl.DataFrame | None = None
    categories: Sequence[str] | None = None
    replicates: Mapping[tuple[str, str], NDArray] = field(default_factory=dict)

    def score(self, model: str, metric: str) -> Estimate:
        """Raises PromotionError when the metric is unknown or not a number, so that no check can pass on it."""
        return _finite(self.scores, model, metric)

    def worsening(self, other: str, metric: str) -> Estimate:
        """By how much the challenger is worse than `other`; negative when it is better. Raises as `score` does."""
        difference = _finite(self.differences, other, metric)
        sign = 1 if lower_is_better(metric) else -1
        return Estimate(
            sign * difference.value, difference.standard_error, difference.degrees_of_freedom
        )

    def beyond_margin(
        self, other: str, metric: str, margin: float, margin_is: str
    ) -> tuple[Estimate, float]:
        """By how much the worsening against `other` exceeds a margin, and the margin in units of the metric.

        A relative margin is a share of `Metric.margin_base`, which is estimated on the same rows as the worsening is. So its error
        counts too: the estimate is that of challenger - (1 + margin) * other, from one set of replicates. Where the score is
        negative the margin is a share of its distance from 0; if its sign is in doubt, this errs against the challenger.
        Raises as `score` does.
        """
        worsening, score = self.worsening(other, metric), self.score(other, metric)
        if margin_is == "absolute":
            return worsening.shifted(-margin), margin
        margin_base = find_metric(metric, self.task).margin_base
        base = margin_base(score.value)
        sign = math.copysign(1, base)
        found = [self.replicates.get((model, metric)) for model in (CHALLENGER, other)]
        if any(
            values is None for values in found
        ):  # figures made by hand: their errors can't be put together
            return worsening.shifted(-margin * abs(base)), margin * abs(base)
        from retrain.gate.comparison import jackknife

        worse = (1 if lower_is_better(metric) else -1) * (found[0] - found[1])
        return jackknife(worse - margin * sign * margin_base(found[1])), margin * abs(base)


def _finite(estimates: dict[tuple[str, str], Estimate], model: str, metric: str) -> Estimate:
    estimate = estimates.get((model, metric))
    if estimate is None:
        measured = ", ".join(sorted({name for _, name in estimates}))
        raise PromotionError(
            f"The gate asks for `{metric}` of the {model}, which was not measured. Measured: {measured}."
        )
    if not math.isfinite(estimate.value) or not math.isfinite(estimate.standard_error):
        raise NotEnoughRows(
            f"`{metric}` of the {model} is not a number on these {estimate.degrees_of_freedom + 1} block(s): the evaluation rows "
            "hold one class or one block only"
        )
    return estimate
