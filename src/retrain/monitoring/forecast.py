"""What a model will lose by not being retrained: forecast from what earlier retrainings brought, and the plan that it makes cheapest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.monitoring.policy import Gain


@dataclass(frozen=True)
class Forecast:
    """The loss of a model that knows `known` batches of those that have come, above what endless and fresh data would give:

        ageing * (batches that it does not know) + learning / known

    The first part is drift, linear as in Mahadevan and Mathioudakis (2024, "Cost-aware retraining for machine learning"); the
    second is the learning curve of a model that sees more data (1/n: Amari, Fujita and Shinomoto 1992, "Four types of learning
    curves", Neural Computation 4). Both are in units of the loss.
    """

    ageing: float
    learning: float

    def excess(self, known: int, come: int) -> float:
        """On the batch that comes after `come` of them."""
        return self.ageing * (come - known) + self.learning / known


def fit_forecast(gains: Sequence[Gain], prior: Forecast, prior_weight: float) -> Forecast:
    """Least squares with coefficients that are not negative. `prior` counts as much as `prior_weight` retrainings, each seen to
    bring what it says of one batch of age, and of a second batch."""
    from scipy.optimize import nnls

    # After a rollback a challenger may have known fewer batches than the model it was compared with.
    gains = [gain for gain in gains if gain.added > 0 and math.isfinite(gain.value)]
    rows = [[gain.added, 1 / gain.known - 1 / (gain.known + gain.added)] for gain in gains]
    values = [gain.value for gain in gains]
    weight = prior_weight**0.5
    rows += [[weight, 0.0], [0.0, weight / 2]]
    values += [weight * prior.ageing, weight / 2 * prior.learning]
    ageing, learning = nnls(np.array(rows), np.array(values))[0]
    return Forecast(float(ageing), float(learning))


def plan_ahead(forecast: Forecast, known: int, come: int, cost: float, horizon: int) -> tuple[float, float]:
    """The least cost of the next `horizon` batches when the model is kept now, and when it is retrained now; free to retrain
    after every later batch (a receding horizon, by dynamic programming backwards)."""
    to_come = dict.fromkeys([known, *range(come, come + horizon)], 0.0)  # by batches that the model knows
    keep = retrain = 0.0
    for now in reversed(range(come, come + horizon)):
        retrain = cost + forecast.excess(now, now) + to_come[now]
        earlier = [batches for batches in to_come if batches < now]
        keep = forecast.excess(known, now) + to_come[known]
        to_come = {batches: min(forecast.excess(batches, now) + to_come[batches], retrain) for batches in earlier} | {
            now: forecast.excess(now, now) + to_come[now]
        }
    return keep, retrain
