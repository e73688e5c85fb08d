"""How well each model did on the same rows, and how sure that is: statistics on predictions, no model in sight.

Rows of one block of time move together, so whole blocks are left out, one at a time (the delete-one-cluster jackknife).
With few blocks its interval, with Student's t at blocks - 1 degrees of freedom, is the least over-confident of the usual
ones (MacKinnon, Nielsen and Webb 2023, "Cluster-robust inference: a guide to empirical practice", J. Econometrics 232).
It needs no random numbers, serves any metric, and for all but scikit-learn's scorers is a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import PromotionError
from retrain.gate.estimates import (
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    Comparison,
    Estimate,
    score_column,
)
from retrain.models.metrics import find_metric, shown_metrics


def compare(
    predictions: pl.DataFrame,
    models: Sequence[str],
    also: Sequence[str] = (),
    task: Task = Task.binary,
) -> Comparison:
    """Score models on the evaluation rows, by the task's metrics and those named in `also` that fit it.

    `predictions` has TARGET, BLOCK (int64, any numbers) and the score column of each model, as
    `retrain.models.metrics` says; probabilities of several classes are an array a row.
    Raises PromotionError when there are no rows or a prediction is missing.
    """
    if predictions.is_empty():
        raise PromotionError(
            "There are no evaluation rows to compare on. Check `evaluation.share_of_newest_batch` and the newest batch."
        )
    for name, column in [("target", TARGET), *((model, score_column(model)) for model in models)]:
        if (
            predictions[column].is_null().any()
            or not np.isfinite(predictions[column].to_numpy()).all()
        ):
            raise PromotionError(
                f"Some evaluation rows have no `{name}`. Run `dvc repro -f -s train` to make the predictions again."
            )
    target, codes = to_target(predictions), block_codes(predictions)
    scores = {model: predictions[score_column(model)].to_numpy() for model in models}
    names = shown_metrics(task, also)
    replicates = {
        (model, name): find_metric(name, task).replicates(target, scores[model], codes)
        for model in models
        for name in names
    }
    differences = {
        (other, name): replicates[CHALLENGER, name] - replicates[other, name]
        for other in models
        if other != CHALLENGER
        for name in names
    }
    return Comparison(
        rows=len(target),
        blocks=int(codes.max()) + 1,
        target_mean=math.nan if task is Task.multiclass else float(target.mean()),
        scores={key: jackknife(values) for key, values in replicates.items()},
        differences={key: jackknife(values) for key, values in differences.items()},
        identical=INCUMBENT in models
        and bool(np.array_equal(scores[CHALLENGER], scores[INCUMBENT])),
        task=task,
        replicates=replicates,
    )


def to_target(predictions: pl.DataFrame) -> NDArray:
    """The target as float64 of shape (rows,): 0 and 1, the index of a class, or a value."""
    return predictions[TARGET].cast(pl.Float64).to_numpy()


def block_codes(predictions: pl.DataFrame) -> NDArray:
    """The rows' blocks, numbered from 0 without gaps: int64 of shape (rows,)."""
    offset = (predictions[BLOCK] - predictions[BLOCK].min()).to_numpy()
    seen = np.bincount(offset) > 0
    return (np.cumsum(seen) - 1)[offset]


def jackknife(replicates: NDArray) -> Estimate:
    """From a figure and its leave-one-block-out values, shape (1 + blocks,). One block tells nothing about its own variation."""
    left_out = replicates[1:]
    blocks = len(left_out)
    if blocks < 2:
        return Estimate(float(replicates[0]), math.nan, 0)
    variance = (blocks - 1) / blocks * np.sum((left_out - left_out.mean()) ** 2)
    return Estimate(float(replicates[0]), float(np.sqrt(variance)), blocks - 1)
