"""From stored predictions to a comparison: statistics, no model in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import PromotionError
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import (
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    Estimate,
    jackknife,
    score_column,
)
from retrain.models.metrics import find_metric, shown_metrics


def compare(
    predictions: pl.DataFrame,
    models: Sequence[str],
    also: Sequence[str] = (),
    task: Task = Task.binary,
) -> Comparison:
    """Score models on the evaluation rows, by the task's metrics and those named in `also` that fit
    it.

    `predictions` has TARGET, BLOCK (int64, any numbers) and the score column of each model, as
    `retrain.models.metric` says; probabilities of several classes are an array a row.
    Raises PromotionError when there are no rows or a prediction is missing.
    """
    _require_complete(predictions, models)
    target, codes = to_target(predictions), block_codes(predictions)
    scores = {model: predictions[score_column(model)].to_numpy() for model in models}
    metrics = {name: find_metric(name, task) for name in shown_metrics(task, also)}
    replicates = {
        model: {name: metric.replicates(target, score, codes) for name, metric in metrics.items()}
        for model, score in scores.items()
    }
    differences = {
        other: {name: replicates[CHALLENGER][name] - values for name, values in found.items()}
        for other, found in replicates.items()
        if other != CHALLENGER
    }
    same = INCUMBENT in models and np.array_equal(scores[CHALLENGER], scores[INCUMBENT])
    return Comparison(
        rows=len(target),
        blocks=int(codes.max()) + 1,
        target_mean=None if task is Task.multiclass else float(target.mean()),
        scores=_jackknifed(replicates),
        differences=_jackknifed(differences),
        identical=same,
        task=task,
        replicates=replicates,
    )


def _jackknifed(
    replicates: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> dict[str, dict[str, Estimate]]:
    return {
        model: {name: jackknife(values) for name, values in found.items()}
        for model, found in replicates.items()
    }


def _require_complete(predictions: pl.DataFrame, models: Sequence[str]) -> None:
    if predictions.is_empty():
        raise PromotionError(
            "There are no evaluation rows to compare on.",
            hint="check `evaluation.share_of_newest_batch` and the newest batch",
        )
    for name, column in [("target", TARGET), *((model, score_column(model)) for model in models)]:
        values = predictions[column]
        if values.is_null().any() or not np.isfinite(values.to_numpy()).all():
            raise PromotionError(
                f"Some evaluation rows have no `{name}`.",
                hint="run `dvc repro -f -s train` to make the predictions again",
            )


def to_target(predictions: pl.DataFrame) -> NDArray[np.float64]:
    """The target as float64 of shape (rows,): 0 and 1, the index of a class, or a value."""
    return predictions[TARGET].cast(pl.Float64).to_numpy()


def block_codes(predictions: pl.DataFrame) -> NDArray[np.int64]:
    """The rows' blocks, numbered from 0 without gaps: int64 of shape (rows,)."""
    offset = (predictions[BLOCK] - predictions[BLOCK].min()).to_numpy()
    seen = np.bincount(offset) > 0
    codes: NDArray[np.int64] = (np.cumsum(seen) - 1)[offset]
    return codes
