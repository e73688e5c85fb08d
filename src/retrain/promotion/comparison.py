"""How well each model did on the same rows, and how sure that is: statistics on predictions, no model in sight.

Rows of one block of time move together, so whole blocks are left out, one at a time (the delete-one-cluster jackknife).
With few blocks its interval, with Student's t at blocks - 1 degrees of freedom, is the least over-confident of the usual
ones (MacKinnon, Nielsen and Webb 2023, "Cluster-robust inference: a guide to empirical practice", J. Econometrics 232).
It needs no random numbers, and serves any metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.errors import PromotionError
from retrain.modeling.metrics import METRICS, Metric
from retrain.promotion.figures import BLOCK, CHALLENGER, INCUMBENT, TARGET, Comparison, Estimate


def compare(predictions: pl.DataFrame, models: Sequence[str]) -> Comparison:
    """Score models on the evaluation rows.

    `predictions` has `target` (0 or 1), `block` (any key) and one column of probabilities for each model.
    Raises PromotionError when there are no rows or a prediction is missing.
    """
    if predictions.is_empty():
        raise PromotionError(
            "There are no evaluation rows to compare on. Check `evaluation.share_of_newest_batch` and the newest batch."
        )
    for column in (TARGET, *models):
        if predictions[column].is_null().any() or predictions[column].is_nan().any():
            raise PromotionError(
                f"Some evaluation rows have no `{column}`. Run `dvc repro -f -s train` to make the predictions again."
            )
    target = predictions[TARGET].cast(pl.Float64).to_numpy()
    codes = predictions[BLOCK].rank("dense").to_numpy().astype(np.int64) - 1
    scores = {model: predictions[model].to_numpy() for model in models}
    replicates = {
        (model, name): _jackknife(metric, target, scores[model], codes)
        for model in models
        for name, metric in METRICS.items()
    }
    differences = {
        (other, name): replicates[CHALLENGER, name] - replicates[other, name]
        for other in models
        if other != CHALLENGER
        for name in METRICS
    }
    return Comparison(
        rows=len(target),
        blocks=int(codes.max()) + 1,
        positive_share=float(target.mean()),
        scores={key: _estimate(values) for key, values in replicates.items()},
        differences={key: _estimate(values) for key, values in differences.items()},
        identical=INCUMBENT in models and bool(np.array_equal(scores[CHALLENGER], scores[INCUMBENT])),
    )


def _jackknife(metric: Metric, target: NDArray, score: NDArray, codes: NDArray) -> NDArray:
    """The metric on all rows, then without each block in turn: shape (1 + blocks,)."""
    values = [metric(target, score, np.ones_like(score))]
    for block in range(codes.max() + 1):
        keep = codes != block
        values.append(metric(target[keep], score[keep], np.ones(keep.sum())) if keep.any() else math.nan)
    return np.array(values)


def _estimate(values: NDArray) -> Estimate:
    """From a figure and its leave-one-block-out replicates. One block tells nothing about its own variation."""
    left_out = values[1:]
    blocks = len(left_out)
    if blocks < 2:
        return Estimate(float(values[0]), math.nan, 0)
    variance = (blocks - 1) / blocks * np.sum((left_out - left_out.mean()) ** 2)
    return Estimate(float(values[0]), float(np.sqrt(variance)), blocks - 1)
