"""Pictures of a comparison, as SVG: they are part of the report and of the MLflow run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrain.modeling.metrics import row_log_loss
from retrain.promotion.figures import CHALLENGER, INCUMBENT, TARGET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {CHALLENGER: "#1f6f8b", INCUMBENT: "#c8553d"}
BINS = 10


def draw(predictions: pl.DataFrame, time_column: str) -> dict[str, str]:
    """SVG documents by name, of the evaluation rows' predictions."""
    models = [model for model in (CHALLENGER, INCUMBENT) if model in predictions.columns]
    return {
        "calibration": _svg(lambda axes: _calibration(axes, predictions, models)),
        "log_loss_by_day": _svg(lambda axes: _log_loss_by_day(axes, predictions, models, time_column)),
        "predictions": _svg(lambda axes: _histogram(axes, predictions, models)),
    }


def _calibration(axes: Axes, predictions: pl.DataFrame, models: list[str]) -> None:
    target = predictions[TARGET].to_numpy()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    for model in models:
        score = predictions[model].to_numpy()
        index = np.minimum((score * BINS).astype(int), BINS - 1)
        rows = np.bincount(index, minlength=BINS)
        seen = rows > 0
        mean, share = (np.bincount(index, values, BINS)[seen] / rows[seen] for values in (score, target))
        axes.plot(mean, share, marker="o", markersize=4, color=COLORS[model], label=model)
    axes.set(xlabel="predicted probability", ylabel="observed share", title="Calibration", xlim=(0, 1), ylim=(0, 1))


def _log_loss_by_day(axes: Axes, predictions: pl.DataFrame, models: list[str], time_column: str) -> None:
    target = predictions[TARGET].to_numpy()
    losses = {model: row_log_loss(target, predictions[model].to_numpy()) for model in models}
    days = predictions.select(pl.col(time_column).dt.date().alias("day")).with_columns(
        **{name: pl.Series(loss) for name, loss in losses.items()}
    )
    daily = days.group_by("day").mean().sort("day")
    for model in models:
        axes.plot(
            daily["day"].to_numpy(), daily[model].to_numpy(), marker="o", markersize=4, color=COLORS[model], label=model
        )
    axes.set(ylabel="log loss", title="Log loss by day")
    axes.tick_params(axis="x", rotation=30)


def _histogram(axes: Axes, predictions: pl.DataFrame, models: list[str]) -> None:
    for model in models:
        axes.hist(
            predictions[model].to_numpy(), bins=40, range=(0, 1), histtype="step", color=COLORS[model], label=model
        )
    axes.set(xlabel="predicted probability", ylabel="rows", title="Predictions")


def _svg(paint: Callable[[Axes], None]) -> str:
    # The figure's own class instead of pyplot, which would look for a screen and costs twice the import.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "retrain", "font.family": "sans-serif"}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
