"""Pictures of a comparison, as SVG: they are part of the report and of the MLflow run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.gate.estimates import CHALLENGER, INCUMBENT, TARGET, score_column
from retrain.lazy import matplotlib
from retrain.models.metrics import find_row_loss
from retrain.models.metrics.probability import top_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {CHALLENGER: "#1f6f8b", INCUMBENT: "#c8553d"}
BINS = 10
Array = NDArray[np.float64]
Pairs = dict[str, tuple[Array, Array]]  # target and score of each model


def draw(predictions: pl.DataFrame, time_column: str, task: Task, loss: str) -> dict[str, str]:
    """SVG documents by name, of the evaluation rows' predictions. `loss` is a loss of single
    rows."""
    models = [
        model for model in (CHALLENGER, INCUMBENT) if score_column(model) in predictions.columns
    ]
    target = predictions[TARGET].cast(pl.Float64).to_numpy()
    scores = {model: predictions[score_column(model)].to_numpy() for model in models}
    pairs = {model: top_label(target, score) for model, score in scores.items()}
    losses = {model: find_row_loss(loss)(target, score) for model, score in scores.items()}
    first, last = (_reliability, _errors) if task is Task.regression else (_calibration, _histogram)
    return {
        "calibration": svg(lambda axes: first(axes, pairs)),
        f"{loss}_by_day": svg(
            lambda axes: _loss_by_day(axes, predictions[time_column], losses, loss)
        ),
        "predictions": svg(lambda axes: last(axes, pairs)),
    }


def _calibration(axes: Axes, pairs: Pairs) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    for model, (target, score) in pairs.items():
        _plot_bins(axes, model, target, score, np.minimum((score * BINS).astype(int), BINS - 1))
    axes.set(
        xlabel="predicted probability",
        ylabel="observed share",
        title="Calibration",
        xlim=(0, 1),
        ylim=(0, 1),
    )


def _reliability(axes: Axes, pairs: Pairs) -> None:
    ends = [
        min(target.min() for target, _ in pairs.values()),
        max(target.max() for target, _ in pairs.values()),
    ]
    for model, (target, score) in pairs.items():
        cuts = np.unique(np.quantile(score, np.linspace(0, 1, 2 * BINS + 1)[1:-1]))
        _plot_bins(axes, model, target, score, np.searchsorted(cuts, score))
    low, high = axes.get_xlim()
    axes.plot(
        [low, high], [low, high], color="#999999", linewidth=1, linestyle="--", label="perfect"
    )
    axes.set(xlabel="predicted value", ylabel="observed mean", title="Predicted and observed")
    axes.set_ylim(max(ends[0], axes.get_ylim()[0]), min(ends[1], axes.get_ylim()[1]))


def _plot_bins(
    axes: Axes, model: str, target: Array, score: Array, index: NDArray[np.intp]
) -> None:
    rows = np.bincount(index)
    seen = rows > 0
    mean, observed = (np.bincount(index, values)[seen] / rows[seen] for values in (score, target))
    axes.plot(mean, observed, marker="o", markersize=4, color=COLORS[model], label=model)


def _loss_by_day(axes: Axes, times: pl.Series, losses: dict[str, Array], loss: str) -> None:
    frame = pl.DataFrame(
        {"day": times.dt.date()} | {name: pl.Series(values) for name, values in losses.items()}
    )
    daily = frame.group_by("day").mean().sort("day")
    for model in losses:
        axes.plot(
            daily["day"].to_numpy(),
            daily[model].to_numpy(),
            marker="o",
            markersize=4,
            color=COLORS[model],
            label=model,
        )
    title = loss.replace("_", " ")
    axes.set(ylabel=title, title=f"{title[0].upper()}{title[1:]} by day")
    axes.tick_params(axis="x", rotation=30)


def _histogram(axes: Axes, pairs: Pairs) -> None:
    for model, (_, score) in pairs.items():
        axes.hist(score, bins=40, range=(0, 1), histtype="step", color=COLORS[model], label=model)
    axes.set(xlabel="predicted probability", ylabel="rows", title="Predictions")


def _errors(axes: Axes, pairs: Pairs) -> None:
    errors = {model: target - score for model, (target, score) in pairs.items()}
    ends = np.quantile(np.concatenate(list(errors.values())), [0.005, 0.995])
    for model, error in errors.items():
        axes.hist(
            error, bins=40, range=tuple(ends), histtype="step", color=COLORS[model], label=model
        )
    axes.set(xlabel="observed - predicted", ylabel="rows", title="Errors")


def svg(paint: Callable[[Axes], None], legend: bool = True, width: float = 5.2) -> str:
    """What `paint` draws on one pair of axes, as an SVG document; `width` in inches."""
    # The figure's own class instead of pyplot, which would look for a screen and costs twice the
    # import.
    with (
        matplotlib.rc_context(
            {
                "text.parse_math": False,
                "svg.fonttype": "none",
                "svg.hashsalt": "retrain",
                "font.family": "sans-serif",
            }
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph")  # the browser has fonts of more scripts
        figure = matplotlib.figure.Figure(figsize=(width, 3.4), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if legend:
            axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
