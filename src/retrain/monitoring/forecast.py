"""What a model will lose by not being retrained: forecast from what earlier retrainings brought, and the plan that it makes cheapest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from retrain.monitoring.policy import Gain

NOISE_COUNTS = 3  # the noise that is taken for granted weighs as much as so many retrainings


@dataclass(frozen=True)
class Forecast:
    """The loss of a model that knows `known` batches of those that have come, above what endless and fresh data would give:

        ageing * (batches that it does not know) + learning / known + lasting * decay

    The first part is drift, linear as in Mahadevan and Mathioudakis (2024, "Cost-aware retraining for machine learning"); the
    second is the learning curve of a model that sees more data (1/n: Amari, Fujita and Shinomoto 1992, "Four types of learning
    curves", Neural Computation 4); the third what the serving model has been seen to lose of late. `ageing` and `learning` are in
    units of the loss, `lasting` is a share.
    """

    ageing: float
    learning: float
    lasting: float = 0.0

    def excess(self, known: int, come: int) -> float:
        """On the batch that comes after `come` of them, without decay."""
        return self.ageing * (come - known) + self.learning / known


def fit_forecast(gains: Sequence[Gain], prior: Forecast, spread: Forecast, noise: float) -> Forecast:
    """Bayesian linear regression (Bishop 2006, "Pattern recognition and machine learning", 3.3) of what retrainings brought.

    Each coefficient is normal around `prior`, with the larger of `prior` and `spread` as its standard deviation, and not
    negative. What is returned are the means of the marginals, truncated at zero: what has not been seen yet stays possible, the
    less the more has been seen. `noise` is the standard deviation of a gain, until the gains themselves say more.
    """
    from scipy.special import log_ndtr

    inputs, values = _equations(gains)
    mean = np.array(astuple(prior))
    precision = np.diag(1 / np.maximum(mean, np.array(astuple(spread))) ** 2)
    variance = noise**2
    for _ in range(3):
        covariance = np.linalg.inv(precision + inputs.T @ inputs / variance)
        centre = covariance @ (precision @ mean + inputs.T @ values / variance)
        squares = np.sum((values - inputs @ np.maximum(centre, 0)) ** 2)
        variance = (NOISE_COUNTS * noise**2 + squares) / (NOISE_COUNTS + len(values))
    deviation = np.sqrt(np.diag(covariance))
    above = centre / deviation
    hazard = np.exp(-(above**2) / 2 - log_ndtr(above)) / math.sqrt(2 * math.pi)
    return Forecast(*np.maximum(centre + deviation * hazard, 0).tolist())


def measure_forecast(gains: Sequence[Gain]) -> Forecast:
    """Least squares with coefficients that are not negative, for when a whole history is known."""
    from scipy.optimize import nnls

    return Forecast(*nnls(*_equations(gains))[0].tolist())


def _equations(gains: Sequence[Gain]) -> tuple[np.ndarray, np.ndarray]:
    """What each retraining adds to the coefficients, shape (gains, 3), and what it brought, shape (gains,)."""
    # After a rollback a challenger may have known fewer batches than the model it was compared with.
    gains = [gain for gain in gains if gain.added > 0 and math.isfinite(gain.value)]
    rows = [[gain.added, 1 / gain.known - 1 / (gain.known + gain.added), gain.decay] for gain in gains]
    return np.array(rows).reshape(-1, 3), np.array([gain.value for gain in gains])


def plan_ahead(
    forecast: Forecast, known: int, come: int, decay: float, cost: float, horizon: int
) -> tuple[float, float]:
    """The least cost of the next `horizon` batches when the model is kept now, and when it is retrained now; free to retrain
    after every later batch (a receding horizon, by dynamic programming backwards). `decay` is that of the model that serves."""
    to_come = dict.fromkeys([known, *range(come, come + horizon)], 0.0)  # by batches that the model knows
    keep = retrain = 0.0

    def lost(batches: int, now: int) -> float:
        return forecast.excess(batches, now) + (forecast.lasting * decay if batches == known else 0.0)

    for now in reversed(range(come, come + horizon)):
        retrain = cost + forecast.excess(now, now) + to_come[now]
        keep = lost(known, now) + to_come[known]
        earlier = [batches for batches in to_come if batches < now]
        to_come = {batches: min(lost(batches, now) + to_come[batches], retrain) for batches in earlier} | {
            now: forecast.excess(now, now) + to_come[now]
        }
    return keep, retrain
