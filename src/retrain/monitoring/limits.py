"""The limits that all policies keep to: waiting time, age, new rows, and a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from retrain.errors import ConfigError
from retrain.ranges import Count, PositiveCount
from retrain.renamed import renamed_method
from retrain.types import Decision

if TYPE_CHECKING:
    from retrain.monitoring.policy import PolicyContext


class Budget(TypedDict):
    """At most so many retrainings within so many batches."""

    retrainings: PositiveCount
    batches: PositiveCount


class Limited(ABC):
    """A decision that limits can overrule.

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
        """What is decided without the limits."""
