"""What a policy is told, what it says, and the limits that all policies keep to.

Batches are counted from 0, the oldest; only labelled ones count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from typing_extensions import TypedDict

from retrain.errors import ConfigError
from retrain.ranges import Count, PositiveCount

EASIEST = 1e-6  # loss of a constant: below it a batch is as good as without variation
NEWEST = 2  # batches that decay is measured on


@dataclass(frozen=True)
class Score:
    """The champion's loss on a batch that it has not learnt from, with its 95 % interval, and the losses of its blocks of time.

    `difficulty` is the loss of the best constant prediction for the same rows. `version` is whose loss it is, where that is not
    the champion but its version from before the refit.
    """

    period: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    blocks: tuple[float, ...] = ()
    difficulty: float = float("nan")
    version: int | None = None


@dataclass(frozen=True)
class RetrainingGain:
    """What a retraining brought: how many batches the champion knew, how many more the challenger, and by how much less it lost.
    `decay` is how much worse the champion had become by then; None: not known."""

    known: int
    added: int
    value: float
    decay: float | None = 0.0


@dataclass(frozen=True)
class PolicyContext:
    """All that a policy may look at. `newest` is the number of the newest labelled batch, `trained_through` that of the newest
    one that the champion has learnt from, `attempts` those at which challengers were trained, promoted or not."""

    period: str
    newest: int
    trained_through: int
    new_rows: int  # labelled ones that have come since
    attempts: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()  # of the batches after `trained_through`, oldest first
    expected: float | None = None  # the champion's loss on the rows that it was promoted on
    expected_difficulty: float = float("nan")  # the loss of the best constant on them
    drift: Mapping[str, float] = field(
        default_factory=dict
    )  # family -> how often an unchanged batch differs as much
    false_alarm_rate: float = 0.05
    gains: tuple[RetrainingGain, ...] = ()

    @property
    def age(self) -> int:
        """Batches that have come since the champion learnt."""
        return self.newest - self.trained_through

    @property
    def decay(self) -> float | None:
        """By how much more than at its promotion the champion lost on the newest batches, 0 where it lost less; their mean. None:
        not known."""
        if self.expected is None or not self.scores:
            return None
        newest = self.scores[-NEWEST:]
        return sum(max(0.0, score.value - self.expected_on(score)) for score in newest) / len(
            newest
        )

    def expected_on(self, score: Score) -> float:
        """The loss at promotion, adjusted to how hard a batch is: relative to that of the best constant on the same rows, as a
        skill score is (Murphy 1988, Monthly Weather Review 116). Rows that a constant gets right altogether, as those of one class,
        say nothing about how hard they are."""
        known = score.difficulty > EASIEST and self.expected_difficulty > EASIEST
        return self.expected * (score.difficulty / self.expected_difficulty if known else 1.0)


@dataclass(frozen=True)
class Decision:
    """Whether to train a challenger, and why, with the figures that it was decided by: also when the answer is no."""

    retrain: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


class Budget(TypedDict):
    """At most so many retrainings within so many batches."""

    retrainings: PositiveCount
    batches: PositiveCount


class Policy(ABC):
    """Decides on a new snapshot. Never asked before there is a champion: the first one is always trained.

    Whatever a policy wants, it waits for `cooldown_batches` after the last retraining, promoted or not, and for
    `minimum_new_rows` labelled rows that the champion has not learnt from, spends at most `budget: {retrainings, batches}`,
    and lets no champion grow older than `maximum_age_batches`.
    """

    def __init__(
        self,
        cooldown_batches: Count = 0,
        maximum_age_batches: PositiveCount | None = None,
        minimum_new_rows: Count = 0,
        budget: Budget | None = None,
    ) -> None:
        if budget is not None and budget["retrainings"] > budget["batches"]:
            raise ConfigError(
                f"`policy.budget` allows {budget['retrainings']} retrainings within {budget['batches']} batches, more than one a "
                "batch: it would never be used up. Lower `retrainings`, or leave the budget out."
            )
        self.cooldown_batches, self.maximum_age_batches = cooldown_batches, maximum_age_batches
        self.minimum_new_rows, self.budget = minimum_new_rows, budget

    def decide_within_limits(self, context: PolicyContext) -> Decision:
        """The decision, its limits considered, with its reason, full sentences."""
        wanted = self.decide(context)
        figures = {"age_batches": context.age, "new_rows": context.new_rows} | wanted.figures
        held = self._held(context)
        if held:
            wish = "It would retrain" if wanted.retrain else "It would not retrain either"
            return Decision(False, f"{held} {wish}: {wanted.reason}", figures)
        if (
            not wanted.retrain
            and self.maximum_age_batches
            and context.age >= self.maximum_age_batches
        ):
            reason = f"The champion is {context.age} batches old, and `maximum_age_batches` is {self.maximum_age_batches}."
            return Decision(True, f"{reason} But for that: {wanted.reason}", figures)
        return Decision(wanted.retrain, wanted.reason, figures)

    def _held(self, context: PolicyContext) -> str:
        """Why there can be no retraining now, empty if there can."""
        since = context.newest - max(context.attempts, default=context.trained_through)
        if since <= self.cooldown_batches and self.cooldown_batches:
            return f"The last retraining was {since} batches ago, within `cooldown_batches` {self.cooldown_batches}."
        if context.new_rows < self.minimum_new_rows:
            return f"{context.new_rows:,} new rows are fewer than `minimum_new_rows` {self.minimum_new_rows:,}."
        if self.budget:
            first = context.newest - self.budget["batches"] + 1
            spent = sum(attempt >= first for attempt in context.attempts)
            if spent >= self.budget["retrainings"]:
                return f"{spent} retrainings within {self.budget['batches']} batches have used up the budget."
        return ""

    @abstractmethod
    def decide(self, context: PolicyContext) -> Decision:
        """What the policy would do without its limits."""
