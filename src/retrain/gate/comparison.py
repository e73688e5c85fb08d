"""A comparison: how well each model did on the same rows, and what the gate made of that."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import polars as pl
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer

from retrain.config import Task
from retrain.errors import PromotionError
from retrain.gate.check import CheckResult
from retrain.gate.estimates import (
    CHALLENGER,
    Estimate,
    jackknife,
)
from retrain.models.metrics import find_metric, lower_is_better
from retrain.record import Record


class Verdict(enum.StrEnum):
    """What the gate decides. Only `promote` moves the champion."""

    promote = "promote"
    keep = "keep"
    insufficient_evidence = "insufficient_evidence"


class NotEnoughRows(PromotionError):
    """A value is not a number on these rows: they hold one class, or one block of time."""


def _to_stored(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval()
    stored = {"value": estimate.value, "low": low, "high": high} | vars(estimate)
    return {name: value if math.isfinite(value) else None for name, value in stored.items()}


def _from_stored(stored: Any) -> Any:
    """Without the 95 % interval, which only readers of the file need; earlier versions stored
    nothing else."""
    if not isinstance(stored, Mapping) or "value" not in stored:
        return stored
    known = {name: math.nan if value is None else value for name, value in stored.items()}
    low, high = known.pop("low", math.nan), known.pop("high", math.nan)
    if "standard_error" not in known:
        width = Estimate(0.0, 1.0, 1).interval()[1]
        known |= {"standard_error": (high - low) / 2 / width, "degrees_of_freedom": 1}
    return known


Stored = Annotated[Estimate, BeforeValidator(_from_stored), PlainSerializer(_to_stored)]
InMemory = Field(exclude=True)


@dataclass(frozen=True)
class Comparison(Record):
    """How the models did on the evaluation rows; after the gate, also its verdict.

    Attributes
    ----------
    rows, blocks
        Of the evaluation window.
    target_mean
        Share of positives, or mean of the target; None for several classes.
    scores
        By model and metric.
    differences
        Challenger - other, by other model and metric.
    identical
        Whether challenger and incumbent predict the same, bit for bit.
    look
        Which look at these rows this is; the number of challengers compared on them so far.
    unseen
        Share of the window that no look at an earlier one has seen.
    verdict, reason, checks
        What the gate decided and why, with the result of each check by name; the verdict is None
        where nothing was compared.
    gate, predictions
        Digests of what was asked, and of the predictions that were compared.
    provenance
        By model, why it can't have been trained on the evaluation rows.
    facts
        Values of the challenger that are no statistics, such as its size.
    task, metric, loss
        The primary metric is for checks that name none; `loss` is a loss of single rows, for checks
        that look at some of the rows.
    classes, unknown_classes
        The labels behind the target's numbers; by model those that it was not trained on.
    rows_judged, reference_rows
        The stored predictions of the evaluation window, and of earlier ones, with BLOCK and the
        columns that the checks ask for.
    categories
        The columns that `by: null` of a check of slices means; None for every text and flag.
    replicates
        By model and metric, the score on all rows and without each block: shape (1 + blocks,).
    """

    # A file of another version may hold more: the stage runs again where it matters.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True}

    rows: int = 0
    blocks: int = 0
    target_mean: float | None = None
    scores: dict[str, dict[str, Stored]] = field(default_factory=dict)
    differences: dict[str, dict[str, Stored]] = field(default_factory=dict)
    identical: Annotated[bool, InMemory] = False
    look: int = 1
    unseen: float = 1.0
    verdict: Verdict | None = None
    reason: str = ""
    checks: dict[str, CheckResult] = field(default_factory=dict)
    gate: str = ""
    predictions: str = ""
    provenance: dict[str, str] = field(default_factory=dict)
    facts: Annotated[Mapping[str, float], InMemory] = field(default_factory=dict)
    task: Annotated[Task, InMemory] = Task.binary
    metric: Annotated[str, InMemory] = "log_loss"
    loss: Annotated[str, InMemory] = "log_loss"
    classes: Annotated[Sequence[str], InMemory] = ()
    unknown_classes: Annotated[Mapping[str, Mapping[str, int]], InMemory] = field(
        default_factory=dict
    )
    rows_judged: Annotated[pl.DataFrame | None, InMemory] = None
    reference_rows: Annotated[pl.DataFrame | None, InMemory] = None
    categories: Annotated[Sequence[str] | None, InMemory] = None
    replicates: Annotated[Mapping[str, Mapping[str, NDArray[Any]]], InMemory] = field(
        default_factory=dict
    )

    def score(self, model: str, metric: str) -> Estimate:
        """Raises PromotionError when the metric is unknown or not a number: no check can pass on
        it."""
        return _finite(self.scores, model, metric)

    def worsening(self, other: str, metric: str) -> Estimate:
        """By how much the challenger is worse than `other`; negative when it is better. Raises as
        `score` does."""
        difference = _finite(self.differences, other, metric)
        sign = 1 if lower_is_better(metric) else -1
        return Estimate(
            sign * difference.value, difference.standard_error, difference.degrees_of_freedom
        )

    def beyond_margin(
        self, other: str, metric: str, margin: float, margin_is: str
    ) -> tuple[Estimate, float]:
        """By how much the worsening against `other` exceeds a margin, and the margin in units of
        the metric.

        A relative margin is a share of `Metric.margin_base`, which is estimated on the same rows as
        the worsening is. So its error counts too: the estimate is that of
        challenger - (1 + margin) * other, from one set of replicates. Where the score is negative
        the margin is a share of its distance from 0; if its sign is in doubt, this errs against the
        challenger. Raises as `score` does.
        """
        worsening, score = self.worsening(other, metric), self.score(other, metric)
        if margin_is == "absolute":
            return worsening.shifted(-margin), margin
        margin_base = find_metric(metric, self.task).margin_base
        base = float(margin_base(score.value))
        allowed = margin * abs(base)
        if not self.replicates:  # made by hand: the two errors can't be put together
            return worsening.shifted(-allowed), allowed
        challenger, others = (self.replicates[model][metric] for model in (CHALLENGER, other))
        worse = (1 if lower_is_better(metric) else -1) * (challenger - others)
        return jackknife(worse - margin * math.copysign(1, base) * margin_base(others)), allowed

    def flat(self) -> dict[str, float]:
        """`<metric>/<model>`, and `<metric>/minus_<other>` with its 95 % interval (`_low`,
        `_high`), where known."""
        flat = {
            f"{metric}/{model}": estimate.value
            for model, estimates in self.scores.items()
            for metric, estimate in estimates.items()
        }
        for other, estimates in self.differences.items():
            for metric, estimate in estimates.items():
                name, (low, high) = f"{metric}/minus_{other}", estimate.interval()
                flat |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
        return {name: value for name, value in flat.items() if math.isfinite(value)}


def _finite(estimates: Mapping[str, Mapping[str, Estimate]], model: str, metric: str) -> Estimate:
    estimate = estimates.get(model, {}).get(metric)
    if estimate is None:
        measured = ", ".join(sorted({name for found in estimates.values() for name in found}))
        raise PromotionError(
            f"The gate asks for `{metric}` of the {model}, which was not measured. Measured: "
            f"{measured}."
        )
    if not math.isfinite(estimate.value) or not math.isfinite(estimate.standard_error):
        raise NotEnoughRows(
            f"`{metric}` of the {model} is not a number on these {estimate.degrees_of_freedom + 1} "
            "block(s): the evaluation rows hold one class or one block only"
        )
    return estimate
