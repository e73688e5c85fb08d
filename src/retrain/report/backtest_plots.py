"""A backtest's plots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.backtest.replay import ALWAYS_PROMOTE
from retrain.backtest.result import Result
from retrain.models.block_sums import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat_map(axes: Axes, result: Result, strategy: str) -> None:
    matrix = result.matrices[strategy]
    freshest = np.array(
        [
            column[np.isfinite(column)][-1] if np.isfinite(column).any() else np.nan
            for column in matrix.T
        ]
    )
    known = np.isfinite(matrix).any(axis=1)
    image = axes.imshow(
        (matrix - freshest)[known],
        cmap="RdBu_r",
        aspect="auto",
        **_symmetric((matrix - freshest)[known]),
    )
    axes.figure.colorbar(image, ax=axes, label="loss more than the freshest model's")
    step = max(1, len(result.periods) // 8)
    axes.set_xticks(
        range(0, len(result.periods), step), result.periods[::step], rotation=45, fontsize=7
    )
    rows = np.flatnonzero(known)
    axes.set_yticks(
        range(0, len(rows), step), [result.periods[row] for row in rows[::step]], fontsize=7
    )
    axes.set(xlabel="served", ylabel="trained through", title=f"Ageing of models, {strategy}")


def _symmetric(values: Array) -> dict[str, Any]:
    largest = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    return {"vmin": -largest, "vmax": largest}


def over_time(axes: Axes, result: Result) -> None:
    chosen = result.recommended
    shown = {"recommended": chosen, "never": result.reference("never", chosen.strategy)}
    shown["always freshest"] = result.reference("always", chosen.strategy, ALWAYS_PROMOTE)
    for name, outcome in shown.items():
        if outcome is not None:
            axes.plot(
                range(len(outcome.served)),
                outcome.values,
                marker="o",
                markersize=3,
                label=name,
            )
    low, high = np.array([losses.interval() for losses in chosen.served]).T
    axes.fill_between(
        range(len(chosen.served)), low, high, alpha=0.15, linewidth=0, label="recommended, 95 %"
    )
    step = max(1, len(chosen.periods) // 8)
    axes.set_xticks(
        range(0, len(chosen.periods), step), chosen.periods[::step], rotation=45, fontsize=7
    )
    axes.set(ylabel=result.title, title="Loss of the serving model")


def front(axes: Axes, result: Result) -> None:
    points = sorted(
        {(outcome.retrainings, outcome.loss): outcome for outcome in result.outcomes}.items()
    )
    best = math.inf
    for (retrainings, loss), outcome in points:
        on_front = loss < best
        best = min(best, loss)
        axes.plot(
            retrainings,
            loss,
            "o",
            markersize=5 if on_front else 3,
            color="#1f6f8b" if on_front else "#bbbbbb",
        )
        if on_front:
            axes.annotate(
                f"{outcome.policy}, {outcome.strategy}",
                (retrainings, loss),
                fontsize=6,
                xytext=(3, 3),
                textcoords="offset points",
            )
    axes.set(
        xlabel="retrainings", ylabel=result.title, title="Cost and loss; the Pareto front in blue"
    )
