"""What a backtest found, the ranking, and the recommendation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from retrain.backtest.fault_injection import FaultInjection
from retrain.backtest.outcome import Outcome
from retrain.backtest.replay import ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE
from retrain.models.block_sums import Array
from retrain.monitoring.forecast import Forecast
from retrain.report.formatting import TITLES


@dataclass
class Result:
    """A backtest's outcomes. `best` is the least total cost a batch that any sequence of
    retrainings could have had."""

    data: str
    model: str
    loss: str
    retraining_cost: float
    periods: list[str]
    outcomes: list[Outcome]
    matrices: dict[
        str, Array
    ]  # strategy -> loss of the model trained through batch i (rows) on batch j (columns)
    best: float
    best_sequence: list[str]
    forecast: Forecast | None
    seconds: dict[str, float] = field(default_factory=dict)
    drills: list[FaultInjection] = field(default_factory=list)

    @property
    def ranked(self) -> list[Outcome]:
        """The cheapest first; of equal ones, that with the fewest retrainings."""
        return sorted(
            self.outcomes,
            key=lambda outcome: (round(outcome.cost(self.retraining_cost), 9), outcome.retrainings),
        )

    @property
    def recommended(self) -> Outcome:
        """The cheapest with a gate of its own: what has none is shown for comparison only."""
        return next(
            outcome
            for outcome in self.ranked
            if outcome.gate not in (ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE)
        )

    def reference(self, policy: str, strategy: str, gate: str | None = None) -> Outcome | None:
        """An outcome to compare with."""
        for outcome in self.outcomes:
            if (outcome.policy, outcome.strategy) == (policy, strategy) and gate in (
                None,
                outcome.gate,
            ):
                return outcome
        return None

    @property
    def title(self) -> str:
        return TITLES.get(self.loss, self.loss)


def recommend(result: Result) -> str:
    """What to do, in plain words, with the figures that speak for it."""
    chosen = result.recommended
    never, always = (result.reference(name, chosen.strategy) for name in ("never", "always"))
    freshest = result.reference("always", chosen.strategy, ALWAYS_PROMOTE)
    low, high = chosen.estimate.interval()
    text = (
        f"Policy {chosen.policy}, strategy {chosen.strategy}, gate {chosen.gate}: "
        f"{result.title.lower()} {chosen.loss:.4f} "
        f"[{low:.4f}, {high:.4f}] with {chosen.retrainings} retrainings"
    )
    others = [
        f"{other.loss:.4f} for {name}"
        for name, other in (
            ("never retraining", never),
            ("always taking the freshest model", freshest),
        )
        if other is not None and other is not chosen
    ]
    text += f", against {' and '.join(others)}." if others else "."
    if always is not None and chosen.policy != "always" and always.retrainings:
        share = 1 - chosen.retrainings / always.retrainings
        change = chosen.loss - always.loss
        words = f"loses {change:.4f}" if change > 0 else f"gains {-change:.4f}"
        text += f" It retrains {share:.0%} less often than on every batch, and {words} by it."
    if math.isfinite(result.best):
        when = ", ".join(result.best_sequence) or "never"
        text += (
            f" No sequence of retrainings could have cost less than {result.best:.4f} a batch "
            f"(retraining after: {when})."
        )
    return text
