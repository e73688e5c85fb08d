"""Permutation importance (Breiman 2001): by how much a model's loss grows when a feature is
shuffled."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import polars as pl

from retrain.config import Config
from retrain.models.metrics import find_metric, monitoring_loss
from retrain.models.scoring import Model, score_rows
from retrain.types import Importance

MOST_SCORED, FEWEST_ROWS, MOST_ROWS = 40_000, 50, 500  # rows, shuffled copies among them


def permutation_importance(
    models: Mapping[str, Model], rows: pl.DataFrame, config: Config
) -> dict[str, dict[str, float]]:
    """By model and feature. All shuffled copies of the rows are scored in one call."""
    metric = find_metric(monitoring_loss(config.data.metric, config.data.task), config.data.task)
    features = dict.fromkeys(name for model in models.values() for name in model.features)
    names = [name for name in features if name in rows.columns]
    copies = [
        rows,
        *(rows.with_columns(pl.col(name).shuffle(seed=config.seed)) for name in names),
    ]
    scored = score_rows(models, pl.concat(copies), config)
    targets = np.split(scored.target, len(copies))
    found = {}
    for which, model in models.items():
        parts = zip(targets, np.split(scored.scores[which], len(copies)), strict=True)
        before, *after = (metric.value(*part) for part in parts)
        found[which] = {
            name: loss - before
            for name, loss in zip(names, after, strict=True)
            if name in model.features
        }
    return found


def sampled_importance(
    models: Mapping[str, Model], rows: pl.DataFrame, config: Config
) -> Importance:
    """The same on so few of the rows that it takes no time to speak of; nothing where there are too
    few rows, or too many features for that."""
    started = time.perf_counter()
    features = {name for model in models.values() for name in model.features}
    most = min(MOST_ROWS, MOST_SCORED // (len(features) + 1))
    if min(most, len(rows)) < FEWEST_ROWS:
        return Importance()
    every = max(1, -(-len(rows) // most))
    sample = rows.gather_every(every)
    found = permutation_importance(models, sample, config)
    return Importance(len(sample), time.perf_counter() - started, found)
