"""Two models on the same rows, as the pipeline would compare them: from scores, without the models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, Task
from retrain.modeling.metrics import loss_beside
from retrain.modeling.pipeline import to_codes, to_target
from retrain.promotion.comparison import compare
from retrain.promotion.figures import BASELINE, CHALLENGER, EVALUATION, TARGET, WINDOW, Comparison

# Latency and size are no part of a replay: nothing is stored, and the machine is another one.
FACTS = {"latency_one_row_ms": 0.0, "latency_1000_rows_ms": 0.0, "model_megabytes": 0.0}


def compare_scored(
    config: Config,
    rows: pl.DataFrame,
    scores: Mapping[str, NDArray],
    classes: Mapping[str, Sequence[str]],
    baseline: NDArray,
    metrics: Sequence[str],
) -> Comparison:
    """The comparison of models on labelled rows that carry `block`.

    `scores`, by model, have shape (rows,), or with several classes (rows, the classes of that model in `classes`);
    `baseline` is the best constant for the challenger's training rows.
    """
    data, target = config.data, to_target(rows, config)
    several = data.task is Task.multiclass
    union: list[str] = []
    if several:
        union = sorted({str(label) for label in np.unique(target)}.union(*classes.values()))
    elif data.task is Task.binary:
        union = ["0", "1"]
    spread = {
        name: spread_classes(values, classes[name], union) if several else values for name, values in scores.items()
    }
    constant = spread_classes(baseline[None, :], classes[CHALLENGER], union)[0] if several else float(baseline[0])
    spread[BASELINE] = np.broadcast_to(constant, spread[CHALLENGER].shape)
    dtype = pl.Array(pl.Float64, len(union)) if several else pl.Float64
    codes = to_codes(target, union, data.task)
    judged = rows.with_columns(
        pl.lit(EVALUATION).alias(WINDOW),
        pl.Series(TARGET, codes),
        *(pl.Series(name, np.asarray(values, dtype=np.float64), dtype=dtype) for name, values in spread.items()),
    )
    counted = {label: int((target.astype(str) == label).sum()) for label in union}
    known = {name: set(names) if several else set(union) for name, names in classes.items()}
    comparison = compare(judged, list(spread), [data.metric, *metrics], data.task)
    return dataclasses.replace(
        comparison,
        facts=FACTS,
        metric=data.metric,
        loss=loss_beside(data.metric, data.task),
        classes=union,
        unknown_classes={
            name: {label: counted[label] for label in union if label not in names} for name, names in known.items()
        },
        rows_judged=judged,
    )


def spread_classes(values: NDArray, classes: Sequence[str], union: Sequence[str]) -> NDArray:
    """Probabilities of a model's classes, shape (rows, classes), as those of more classes: 0 for those that it does not know."""
    spread = np.zeros((len(values), len(union)))
    spread[:, [list(union).index(name) for name in classes]] = values
    return spread
