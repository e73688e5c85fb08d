"""Models on the same rows, as the pipeline would compare them: from scores, without a store or stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, Task
from retrain.gate.comparison import compare
from retrain.gate.estimates import (
    BASELINE,
    CHALLENGER,
    EVALUATION,
    TARGET,
    WINDOW,
    Comparison,
    score_column,
)
from retrain.gate.slices import sliced_columns
from retrain.models.fitting import to_codes, to_target
from retrain.models.metrics import row_loss_for
from retrain.models.scoring import Scored

# Latency and size are no part of a replay: nothing is stored, and the machine is another one.
FACTS = {"latency_one_row_ms": 0.0, "latency_1000_rows_ms": 0.0, "model_megabytes": 0.0}


def to_scored(
    config: Config,
    rows: pl.DataFrame,
    scores: Mapping[str, NDArray],
    classes: Mapping[str, Sequence[str]],
) -> Scored:
    """Stored scores of models, by name, on labelled rows: of shape (rows,), or with several classes (rows, the `classes` of
    that model)."""
    task, target = config.data.task, to_target(rows, config)
    union: list[str] = []
    if task is Task.multiclass:
        union = sorted({str(label) for label in np.unique(target)}.union(*classes.values()))
        scores = {
            name: spread_classes(values, classes[name], union) for name, values in scores.items()
        }
    counted = {label: int((target.astype(str) == label).sum()) for label in union}
    unknown = {
        name: {label: counted[label] for label in union if label not in classes[name]}
        for name in scores
    }
    if task is Task.binary:
        union = ["0", "1"]
    scores = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    return Scored(to_codes(target, union, task), scores, union, unknown)


def spread_classes(values: NDArray, classes: Sequence[str], union: Sequence[str]) -> NDArray:
    """Probabilities of a model's classes, shape (rows, classes), as those of more classes: 0 for those that it does not know."""
    spread = np.zeros((len(values), len(union)))
    spread[:, [list(union).index(name) for name in classes]] = values
    return spread


def compare_scored(
    config: Config, rows: pl.DataFrame, scored: Scored, constant: NDArray, metrics: Sequence[str]
) -> Comparison:
    """The comparison of scored models on labelled rows that carry BLOCK; `constant` is the baseline's prediction, of shape ()
    or (classes,)."""
    data = config.data
    scores = scored.scores | {BASELINE: np.broadcast_to(constant, scored.scores[CHALLENGER].shape)}
    dtype = (
        pl.Array(pl.Float64, len(scored.classes)) if data.task is Task.multiclass else pl.Float64
    )
    judged = rows.with_columns(
        pl.lit(EVALUATION).alias(WINDOW),
        pl.Series(TARGET, scored.target),
        *(pl.Series(score_column(name), values, dtype=dtype) for name, values in scores.items()),
    )
    return dataclasses.replace(
        compare(judged, list(scores), [data.metric, *metrics], data.task),
        facts=FACTS,
        metric=data.metric,
        loss=row_loss_for(data.metric, data.task),
        classes=scored.classes,
        unknown_classes=scored.unknown_classes,
        rows_judged=judged,
        categories=sliced_columns(data),
    )
