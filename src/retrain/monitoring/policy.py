"""What a policy may look at, what it decides, and the limits that all policies keep to.

Batches are counted from 0, the oldest; only labelled ones count.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from retrain.errors import ConfigError
from retrain.ranges import Count, PositiveCount
from retrain.renamed import renamed_method
from retrain.types import Decision, Score

SMALLEST = 1e-6  # a baseline loss: below it a batch is as good as without variation
NEWEST = 2  # batches that decay is measured on


@dataclass(frozen=True)
class RetrainingGain:
    """What an earlier retraining brought.

    Attributes
    ----------
    known, added
        How many batches the champion knew, and how many more the challenger.
    value
        By how much less the challenger lost on the evaluation window.
    decay
        How much worse the champion had become by then; None where that is not known.
    """

    known: int
    added: int
    value: float
    decay: float | None = 0.0


@dataclass(frozen=True)
class PolicyContext:
    """All that a policy may look at.

    Attributes
    ----------
    period, newest
        Key and number of the newest labelled batch.
    trained_through
        The number of the newest batch that the champion was trained on.
    new_rows
        Labelled rows that have come since.
    attempts
        The numbers of the batches at which challengers were trained, promoted or not.
    scores
        The champion's losses on the batches after `trained_through`, oldest first.
    expected, expected_baseline_loss
        The champion's loss on the rows that it was promoted on, None where that is not known; and
        the loss of the best constant prediction for them.
    drift
        By family (features, target, predictions, whole rows), how often an unchanged batch would
        differ as much: a p-value, NaN where the history is too short.
    false_alarm_rate
        The share of unchanged batches that may count as drift (`monitoring.false_alarm_rate`).
    gains
        What earlier retrainings brought, oldest first.
    """

    period: str
    newest: int
    trained_through: int
    new_rows: int
    attempts: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()
    expected: float | None = None
    expected_baseline_loss: float = math.nan
    drift: Mapping[str, float] = field(default_factory=dict)
    false_alarm_rate: float = 0.05
    gains: tuple[RetrainingGain, ...] = ()

    @property
    def age(self) -> int:
        """Batches that have come since the champion was trained."""
        return self.newest - self.trained_through

    @property
    def since_attempt(self) -> int:
        """Batches that have come since the last retraining, promoted or not."""
        return self.newest - max(self.attempts, default=self.trained_through)

    @property
    def decay(self) -> float | None:
        """By how much more than at its promotion the champion lost on the newest batches, 0 where
        it lost less; their mean. None where that is not known."""
        if self.expected is None or not self.scores:
            return None
        newest = self.scores[-NEWEST:]
        excess = sum(max(0.0, score.value - self.expected_on(score)) for score in newest)
        return excess / len(newest)

    def expected_on(self, score: Score) -> float:
        """The loss at promotion, adjusted to a batch's baseline loss.

        Relative to that of the best constant prediction on the same rows, as a skill score is
        (Murphy 1988, Monthly Weather Review 116). Rows that a constant gets right altogether, as
        those of one class, need no adjustment. `expected` must be known.
        """
        assert self.expected is not None
        baseline, expected = score.baseline_loss, self.expected_baseline_loss
        if baseline is None or not (baseline > SMALLEST and expected > SMALLEST):
            return self.expected
        return self.expected * (baseline / expected)


class Budget(TypedDict):
    """At most so many retrainings within so many batches."""

    retrainings: PositiveCount
    batches: PositiveCount


class Policy(ABC):
    """Decides whether a new snapshot is worth a retraining. Subclass it, write `decide`, and name
    the class in a file of conf/policy/.

    It is never asked before there is a champion: the first one is always trained.

    Parameters
    ----------
    cooldown_batches
        No retraining for so many batches after the last one, promoted or not.
    maximum_age_batches
        A champion of this age is retrained, whatever `decide` says.
    minimum_new_rows
        No retraining before so many labelled rows have come that the champion was not trained on.
    budget
        At most `retrainings` within `batches`.

    Examples
    --------
    >>> class Weekly(Policy):
    ...     def decide(self, context: PolicyContext) -> Decision:
    ...         return Decision(context.age >= 7, f"The champion is {context.age} days old.")
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        renamed_method(cls, "want", "decide")

    def __init__(
        self,
        cooldown_batches: Count = 0,
        maximum_age_batches: PositiveCount | None = None,
        minimum_new_rows: Count = 0,
        budget: Budget | None = None,
    ) -> None:
        if budget is not None and budget["retrainings"] > budget["batches"]:
            raise ConfigError(
                f"`policy.budget` allows {budget['retrainings']} retrainings within "
                f"{budget['batches']} batches, more than one a batch: it would never be used up",
                hint="lower `retrainings`, or leave the budget out",
            )
        self.cooldown_batches, self.maximum_age_batches = cooldown_batches, maximum_age_batches
        self.minimum_new_rows, self.budget = minimum_new_rows, budget

    def decide_within_limits(self, context: PolicyContext) -> Decision:
        """The decision, its limits considered."""
        wanted, limit = self.decide(context), self._limit(context)
        if not isinstance(wanted, Decision):
            raise ConfigError(
                f"`decide` of the policy {type(self).__name__} returns {wanted!r}.",
                hint='return a retrain.Decision, such as Decision(True, "why")',
            )
        retrain, reason, oldest = wanted.retrain, wanted.reason, self.maximum_age_batches
        if limit:
            wish = "It would retrain" if retrain else "It would not retrain either"
            retrain, reason = False, f"{limit} {wish}: {reason}"
        elif not retrain and oldest and context.age >= oldest:
            retrain = True
            reason = (
                f"The champion is {context.age} batches old, and `maximum_age_batches` is "
                f"{oldest}. But for that: {reason}"
            )
        figures = {"age_batches": context.age, "new_rows": context.new_rows} | wanted.figures
        return Decision(retrain, reason, figures)

    def _limit(self, context: PolicyContext) -> str:
        """Why there can be no retraining now, empty if there can."""
        if self.cooldown_batches and context.since_attempt <= self.cooldown_batches:
            return (
                f"The last retraining was {context.since_attempt} batches ago, within "
                f"`cooldown_batches` {self.cooldown_batches}."
            )
        if context.new_rows < self.minimum_new_rows:
            return (
                f"{context.new_rows:,} new rows are fewer than `minimum_new_rows` "
                f"{self.minimum_new_rows:,}."
            )
        if self.budget:
            batches = self.budget["batches"]
            spent = sum(attempt > context.newest - batches for attempt in context.attempts)
            if spent >= self.budget["retrainings"]:
                return f"{spent} retrainings within {batches} batches have used up the budget."
        return ""

    @abstractmethod
    def decide(self, context: PolicyContext) -> Decision:
        """What the policy would do without its limits.

        Parameters
        ----------
        context
            The newest batch, the champion's losses, drift, and what earlier retrainings brought.

        Returns
        -------
        Decision
            With its reason, full sentences, and the figures that it was decided by.
        """
