"""In hindsight: how models aged, and the least that any sequence of retrainings could have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import CachedFit, FitJob
from retrain.backtest.replay import Replay
from retrain.models.block_sums import Array
from retrain.monitoring.forecast import Forecast, measure_forecast
from retrain.monitoring.gain import RetrainingGain


def loss_matrix(history: HistoryView, replay: Replay) -> Array:
    """The loss of the refitted model of each batch (rows) on each batch (columns), shape (batches,
    batches); NaN on those that it was trained on, and where none is trained. Missing ones are."""
    models = history.models

    def fits(jobs: Sequence[FitJob]) -> list[CachedFit]:
        models.train(jobs)
        return [fit for job in jobs if (fit := models.get(job)) is not None]

    challengers = fits([replay.job(number, refit=False) for number in history.decided])
    matrix = np.full((len(history.batches), len(history.batches)), np.nan)
    for fit in fits([replay.refit(challenger) for challenger in challengers]):
        for number in range(fit.number + 1, len(history.batches)):
            matrix[fit.number, number] = history.losses(fit, number).value
    return matrix


def best_sequence(
    matrices: Sequence[Array], served: Mapping[int, int], retraining_cost: float
) -> tuple[float, list[int]]:
    """The least total cost a batch that any sequence of retrainings could have had, and after which
    batches it retrains.

    By dynamic programming, backwards: `matrices`, one for each strategy, hold the loss of the model
    trained through batch i on batch j, shape (batches, batches). `served` holds for each batch to
    serve the newest one that could be learnt from when it came. The first champion comes free;
    after every batch one may keep the model or pay for the newest one of any strategy.
    """
    stacked = np.stack(matrices)
    strategies, _, count = stacked.shape
    first = min(served.values())
    value = np.zeros((strategies, count))  # by serving model, what is still to come
    choices: dict[int, Array] = {}
    for number, newest in sorted(served.items(), reverse=True):
        keep = np.where(np.isnan(stacked[:, :, number]), np.inf, stacked[:, :, number]) + value
        switched = keep[:, newest] + retraining_cost
        best = int(np.argmin(switched))
        switch = (keep > switched[best]) & (newest > first)
        choices[number] = np.where(switch, best, -1)
        value = np.where(switch, switched[best], keep)
    start = int(np.argmin(value[:, first]))
    retrained, state = [], (start, first)
    for number, newest in sorted(served.items()):
        if choices[number][state] >= 0:
            state = (int(choices[number][state]), newest)
            retrained.append(newest)
    return float(value[start, first]) / len(served), retrained


def forecast_in_hindsight(matrix: Array) -> Forecast | None:
    """How models age and what more data is worth, over the whole matrix: each model against the
    freshest one on every batch."""
    gains = []
    for served in range(len(matrix)):
        known = np.flatnonzero(np.isfinite(matrix[:, served]))
        gains += [
            RetrainingGain(
                int(trained) + 1,
                int(known[-1] - trained),
                float(matrix[trained, served] - matrix[known[-1], served]),
            )
            for trained in known[:-1]
        ]
    return measure_forecast(gains) if gains else None
