"""A worked example each of a policy, a strategy, a check and a metric.

Keep what you use, delete the rest. Each is there to be chosen, and not chosen:

- `policy: in_months`, `strategy: same_season`, `gate: own_check` in conf/config.yaml,
- `metric: project.extensions.CostOfAlarms` in conf/data/flights.yaml.

The arguments of `__init__` are keys in the YAML; their types say which values are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from retrain import (
    Batch,
    Check,
    CheckResult,
    Comparison,
    Decision,
    Outcome,
    ParentModel,
    Policy,
    PolicyContext,
    RowLoss,
    Strategy,
    Task,
    ranges,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Month = Annotated[int, Ge(1), Le(12)]


class InMonths(Policy):
    """Retrain when the newest batch is of one of these months.

    Such as those in which a timetable changes.
    """

    def __init__(self, months: list[Month], **limits: Any) -> None:
        super().__init__(**limits)
        self.months = months

    def decide(self, context: PolicyContext) -> Decision:
        month = int(context.period[5:7])
        return Decision(month in self.months, f"Month {month}; retrained in {self.months}.")


class SameSeason(Strategy):
    """The newest `recent` batches, and those of the same season, `cycle` batches apart."""

    def __init__(self, recent: ranges.PositiveCount, cycle: ranges.PositiveCount) -> None:
        self.recent, self.cycle = recent, cycle

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        ages = reversed(range(len(batches)))
        return [
            one for one, age in zip(batches, ages, strict=True) if age % self.cycle < self.recent
        ]


class NewEnough(Check):
    """A share of the evaluation window was in no earlier window: else wait for more rows."""

    def __init__(self, minimum_share: ranges.ShareOrAll) -> None:
        self.minimum_share = minimum_share

    def evaluate(self, comparison: Comparison) -> CheckResult:
        enough = comparison.unseen >= self.minimum_share
        reason = f"{comparison.unseen:.0%} of the evaluation window is new"
        return CheckResult(Outcome.passed if enough else Outcome.insufficient, reason)


class CostOfAlarms(RowLoss):
    """The mean cost of a flight: a late one not announced, or one announced that was on time.

    An alarm is raised where it costs less than none, as far as the model knows.
    """

    tasks = frozenset({Task.binary})
    missed, false_alarm = 5.0, 1.0

    def rows(self, target: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
        alarm = self.missed * score > self.false_alarm * (1 - score)
        return np.where(alarm, self.false_alarm * (1 - target), self.missed * target)
