"""What a model will lose by not being retrained: forecast from what earlier retrainings brought,
and the plan that it makes cheapest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.lazy import scipy
from retrain.monitoring.gain import RetrainingGain

NOISE_COUNTS = 3  # the noise that is taken for granted weighs as much as so many retrainings
TRUNCATED = 1.2876  # mean of a normal value with mean and deviation 1 that is above 0


@dataclass(frozen=True)
class Forecast:
    """The loss of a model that knows `known` batches of those that have come, above what endless
    and fresh data would give:

        staleness_rate * (batches that it does not know) + value_of_data / known
            + persistence * decay

    The first part is drift, linear as in Mahadevan and Mathioudakis (2024, "Cost-aware retraining
    for machine learning"); the second is the learning curve of a model that sees more data (1/n:
    Amari, Fujita and Shinomoto 1992, "Four types of learning curves", Neural Computation 4); the
    third what the serving model has been seen to lose of late. The first two are in units of the
    loss, `persistence` is a share.
    """

    staleness_rate: float
    value_of_data: float
    persistence: float = 0.0

    def excess(self, known: int, come: int) -> float:
        """On the batch that comes after `come` of them, without decay."""
        return self.staleness_rate * (come - known) + self.value_of_data / known


def fit_forecast(
    gains: Sequence[RetrainingGain], prior: Forecast, spread: Forecast, noise: float
) -> Forecast:
    """Bayesian linear regression (Bishop 2006, "Pattern recognition and machine learning", 3.3) of
    what retrainings brought.

    Each coefficient is normal, but not negative, with mean `prior` and a standard deviation in the
    same proportion, though at least that of a coefficient of mean `spread`. What is returned are
    the means of the marginals: what has not been seen yet stays possible, the less the more has
    been seen. `noise` is the standard deviation of a gain, until the gains say more.
    """
    inputs, values = _equations(gains)
    # A normal value whose mean is its deviation, cut off at zero, has the mean 1.29.
    centre, least = (np.array(astuple(part)) / TRUNCATED for part in (prior, spread))
    precision = np.diag(np.maximum(centre, least) ** -2.0)
    freedom = max(0, len(values) - len(centre))
    squares = NOISE_COUNTS * noise**2 + _least_squares(inputs, values)[1]
    variance = squares / (NOISE_COUNTS + freedom)
    covariance = np.linalg.inv(precision + inputs.T @ inputs / variance)
    centre = covariance @ (precision @ centre + inputs.T @ values / variance)
    return Forecast(*_truncated_mean(centre, np.sqrt(np.diag(covariance))).tolist())


def measure_forecast(gains: Sequence[RetrainingGain]) -> Forecast:
    """Least squares with coefficients that are not negative, for when a whole history is known."""
    return Forecast(*_least_squares(*_equations(gains))[0].tolist())


def usable(gains: Sequence[RetrainingGain]) -> list[RetrainingGain]:
    """Those that say something: after a rollback a challenger may have known fewer batches than the
    model it was compared with, and of some models it isn't known how much worse they had become."""
    return [
        gain
        for gain in gains
        if gain.added > 0 and gain.decay is not None and math.isfinite(gain.value)
    ]


def _equations(gains: Sequence[RetrainingGain]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What each retraining adds to the coefficients, shape (gains, 3), and what it brought, shape
    (gains,)."""
    gains = usable(gains)
    rows = [
        [gain.added, 1 / gain.known - 1 / (gain.known + gain.added), gain.decay] for gain in gains
    ]
    return np.array(rows).reshape(-1, 3), np.array([gain.value for gain in gains])


def _least_squares(inputs: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Coefficients that are not negative, shape (3,), and the sum of squares that they leave."""
    if not len(values):
        return np.zeros(inputs.shape[1]), 0.0
    coefficients, residual = scipy.optimize.nnls(inputs, values)
    return coefficients, residual**2


def _truncated_mean(centre: NDArray[Any], deviation: NDArray[Any]) -> NDArray[Any]:
    """Of normal values that are not negative."""
    above = centre / deviation
    hazard = np.exp(-(above**2) / 2 - scipy.special.log_ndtr(above)) / math.sqrt(2 * math.pi)
    return np.asarray(np.maximum(centre + deviation * hazard, 0.0))


def plan_ahead(
    forecast: Forecast, known: int, come: int, decay: float, cost: float, horizon: int
) -> tuple[float, float]:
    """The least cost of the next `horizon` batches when the model is kept now, and when it is
    retrained now; free to retrain after every later batch (a receding horizon, by dynamic
    programming backwards). `decay` is that of the model that serves."""
    to_come = dict.fromkeys([known, *range(come, come + horizon)], 0.0)  # by batches that it knows
    keep = retrain = 0.0

    def lost(batches: int, now: int) -> float:
        lasting = forecast.persistence * decay if batches == known else 0.0
        return forecast.excess(batches, now) + lasting

    for now in reversed(range(come, come + horizon)):
        fresh = forecast.excess(now, now)
        retrain = cost + fresh + to_come[now]
        keep = lost(known, now) + to_come[known]
        to_come = {
            batches: min(lost(batches, now) + left, retrain)
            for batches, left in to_come.items()
            if batches < now
        } | {now: fresh + to_come[now]}
    return keep, retrain
