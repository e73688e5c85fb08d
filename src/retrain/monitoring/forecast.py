"""What a model will lose by not being retrained: forecast from what earlier retrainings brought, and the plan that it makes cheapest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from retrain.monitoring.policy import RetrainingGain

NOISE_COUNTS = 3  # the noise that is taken for granted weighs as much as so many retrainings
TRUNCATED = 1.2876  # mean of a normal value with mean and deviation 1 that is above 0


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


def fit_forecast(
    gains: Sequence[RetrainingGain], prior: Forecast, spread: Forecast, noise: float
) -> Forecast:
    """Bayesian linear regression (Bishop 2006, "Pattern recognition and machine learning", 3.3) of what retrainings brought.

    Each coefficient is normal, but not negative, with mean `prior` and a standard deviation in the same proportion, though at
    least that of a coefficient of mean `spread`. What is returned are the means of the marginals: what has not been seen yet
    stays possible, the less the more has been seen. `noise` is the standard deviation of a gain, until the gains say more.
    """
    inputs, values = _equations(gains)
    # A normal value whose mean is its deviation, cut off at zero, has the mean 1.29.
    centre = np.array(astuple(prior)) / TRUNCATED
    precision = np.diag(np.maximum(centre, np.array(astuple(spread)) / TRUNCATED) ** -2.0)
    freedom = max(0, len(values) - len(centre))
    variance = (NOISE_COUNTS * noise**2 + _least_squares(inputs, values)[1]) / (
        NOISE_COUNTS + freedom
    )
    covariance = np.linalg.inv(precision + inputs.T @ inputs / variance)
    centre = covariance @ (precision @ centre + inputs.T @ values / variance)
    return Forecast(*_truncated_mean(centre, np.sqrt(np.diag(covariance))).tolist())


def measure_forecast(gains: Sequence[RetrainingGain]) -> Forecast:
    """Least squares with coefficients that are not negative, for when a whole history is known."""
    return Forecast(*_least_squares(*_equations(gains))[0].tolist())


def usable(gains: Sequence[RetrainingGain]) -> list[RetrainingGain]:
    """Those that say something: after a rollback a challenger may have known fewer batches than the model it was compared with, and
    of some models it isn't known how much worse they had become."""
    return [
        gain
        for gain in gains
        if gain.added > 0 and gain.decay is not None and math.isfinite(gain.value)
    ]


def _equations(gains: Sequence[RetrainingGain]) -> tuple[np.ndarray, np.ndarray]:
    """What each retraining adds to the coefficients, shape (gains, 3), and what it brought, shape (gains,)."""
    gains = usable(gains)
    rows = [
        [gain.added, 1 / gain.known - 1 / (gain.known + gain.added), gain.decay] for gain in gains
    ]
    return np.array(rows).reshape(-1, 3), np.array([gain.value for gain in gains])


def _least_squares(inputs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients that are not negative, shape (3,), and the sum of squares that they leave."""
    from scipy.optimize import nnls

    if not len(values):
        return np.zeros(inputs.shape[1]), 0.0
    coefficients, residual = nnls(inputs, values)
    return coefficients, residual**2


def _truncated_mean(centre: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Of normal values that are not negative."""
    from scipy.special import log_ndtr

    above = centre / deviation
    hazard = np.exp(-(above**2) / 2 - log_ndtr(above)) / math.sqrt(2 * math.pi)
    return np.maximum(centre + deviation * hazard, 0)


def plan_ahead(
    forecast: Forecast, known: int, come: int, decay: float, cost: float, horizon: int
) -> tuple[float, float]:
    """The least cost of the next `horizon` batches when the model is kept now, and when it is retrained now; free to retrain
    after every later batch (a receding horizon, by dynamic programming backwards). `decay` is that of the model that serves."""
    to_come = dict.fromkeys(
        [known, *range(come, come + horizon)], 0.0
    )  # by batches that the model knows
    keep = retrain = 0.0

    def lost(batches: int, now: int) -> float:
        return forecast.excess(batches, now) + (
            forecast.lasting * decay if batches == known else 0.0
        )

    for now in reversed(range(come, come + horizon)):
        retrain = cost + forecast.excess(now, now) + to_come[now]
        keep = lost(known, now) + to_come[known]
        earlier = [batches for batches in to_come if batches < now]
        to_come = {
            batches: min(lost(batches, now) + to_come[batches], retrain) for batches in earlier
        } | {now: forecast.excess(now, now) + to_come[now]}
    return keep, retrain
