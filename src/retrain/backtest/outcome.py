"""What is replayed, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from retrain.backtest.losses import Losses
from retrain.config import Config, GateConfig
from retrain.gate.estimates import Estimate, jackknife


@dataclass
class Event:
    """What happened when a batch arrived."""

    period: str
    retrained: bool
    reason: str
    promoted: bool | None = None
    gate: str = ""
    seconds: float = 0.0
    wrong: bool = False
    missed: bool = False


@dataclass
class Outcome:
    """One replay. `served` are the losses on the batches that were served, in order, and `ages` how
    many batches the serving model had not been trained on."""

    policy: str
    strategy: str
    gate: str
    events: list[Event] = field(default_factory=list)
    periods: list[str] = field(default_factory=list)
    served: list[Losses] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The loss on each batch that was served."""
        return [losses.value for losses in self.served]

    @property
    def loss(self) -> float:
        """The mean over the batches served: each counts the same."""
        return float(np.mean(self.values))

    @property
    def estimate(self) -> Estimate:
        """The mean loss with its standard error over all blocks of time."""
        values = np.array(self.values)
        left = [
            self.loss + (losses.replicates[1:] - losses.value) / len(values)
            for losses in self.served
        ]
        if len(values) > 1 and not np.isfinite(np.concatenate(left)).all():
            # A block is a whole batch: leave out batches.
            left = [(values.sum() - values) / (len(values) - 1)]
        return jackknife(np.concatenate([[self.loss], *left]))

    @property
    def retrainings(self) -> int:
        return self.count("retrained")

    @property
    def promotions(self) -> int:
        return self.count("promoted")

    @property
    def seconds(self) -> float:
        return sum(event.seconds for event in self.events)

    @property
    def staleness(self) -> float:
        return float(np.mean(self.ages))

    def cost(self, retraining_cost: float) -> float:
        """Loss and retrainings together, a batch.

        References
        ----------
        Mahadevan and Mathioudakis 2024, "Cost-aware retraining for machine learning" (total cost).
        """
        return self.loss + retraining_cost * self.retrainings / len(self.served)

    def count(self, what: str) -> int:
        return sum(bool(getattr(event, what)) for event in self.events)


@dataclass(frozen=True)
class Plan:
    """A combination to replay, and its config. `gate` is None for those that are not configured."""

    names: tuple[str, str, str]  # policy, strategy, gate
    config: Config
    gate: GateConfig | None
