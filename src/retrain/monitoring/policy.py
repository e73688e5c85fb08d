"""The base class of policies, which decide when to retrain, and what they may look at.

Batches are counted from 0, the oldest; only labelled ones count.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrain.monitoring.gain import RetrainingGain
from retrain.monitoring.limits import Limited
from retrain.types import Decision, Score

SMALLEST = 1e-6  # a baseline loss: below it a batch is as good as without variation
NEWEST = 2  # batches that decay is measured on


@dataclass(frozen=True)
class PolicyContext:
    """All that a policy may look at.

    Attributes
    ----------
    period, newest
        Key and number of the newest labelled batch.
    trained_through, new_rows
        The number of the newest batch that the champion was trained on; labelled rows since.
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
        """The loss at promotion, adjusted to a batch's baseline loss. `expected` must be known.

        Relative to that of the best constant prediction on the same rows, as a skill score is
        (Murphy 1988, Monthly Weather Review 116). Rows of one class need no adjustment.
        """
        assert self.expected is not None
        baseline, expected = score.baseline_loss, self.expected_baseline_loss
        if baseline is None or not (baseline > SMALLEST and expected > SMALLEST):
            return self.expected
        return self.expected * (baseline / expected)


class Policy(Limited):
    """Decides whether a new snapshot is worth a retraining. Subclass it, write `decide`, and name
    the class in a file of conf/policy/.

    It is never asked before there is a champion: the first one is always trained.

    The arguments of `__init__` are keys there; pass `**limits` on for those of every policy:
    `cooldown_batches`, `maximum_age_batches`, `minimum_new_rows` and `budget` (`Limited`).

    Examples
    --------
    >>> class Weekly(Policy):
    ...     def decide(self, context: PolicyContext) -> Decision:
    ...         return Decision(context.age >= 7, f"The champion is {context.age} days old.")
    """

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
