"""Scores of several models on the same labelled rows, as the gate takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, Task
from retrain.data.windows import block_index, block_of
from retrain.gate.compare import compare
from retrain.gate.comparison import Comparison
from retrain.gate.decision import CheckSpec
from retrain.gate.estimates import (
    BASELINE,
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    score_column,
)
from retrain.gate.slices import sliced_columns
from retrain.models.metrics import monitoring_loss, row_loss_for
from retrain.models.scoring import Scored


def with_block(config: Config, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the number of the time block that each lies in."""
    index = block_index(config.data.time_column, block_of(config.evaluation))
    return rows.with_columns(index.alias(BLOCK))


def with_scores(
    config: Config, rows: pl.DataFrame, scored: Scored, baseline: NDArray[np.float64]
) -> pl.DataFrame:
    """The rows with target, each model's scores and the baseline's.

    Parameters
    ----------
    baseline
        The constant prediction, shape () or (1,), or with several classes (classes of `scored`,).
    """
    task = config.data.task
    constant = np.broadcast_to(baseline, scored.scores[CHALLENGER].shape)
    several = task is Task.multiclass
    dtype = pl.Array(pl.Float64, len(scored.classes)) if several else pl.Float64
    codes = np.float64 if task is Task.regression else np.int32
    return rows.with_columns(
        pl.Series(TARGET, scored.target.astype(codes)),
        *(
            pl.Series(score_column(name), values, dtype=dtype)
            for name, values in (scored.scores | {BASELINE: constant}).items()
        ),
    )


def asked_metrics(config: Config, specs: Iterable[CheckSpec]) -> list[str]:
    """The metrics to measure: the primary one, the one that is monitored, and those of checks."""
    data = config.data
    asked = [spec.check.metric for spec in specs if spec.check.metric]
    return list(dict.fromkeys([data.metric, monitoring_loss(data.metric, data.task), *asked]))


def compare_predictions(
    config: Config,
    rows: pl.DataFrame,
    metrics: Sequence[str],
    classes: Sequence[str] = (),
    unknown_classes: Mapping[str, Mapping[str, int]] | None = None,
) -> Comparison:
    """Compare the models that have scores on the rows, which also carry BLOCK.

    Parameters
    ----------
    rows
        As `with_scores` and `with_block` make them.
    metrics
        What to measure beside the task's usual metrics.
    classes
        The labels behind the target's numbers.
    unknown_classes
        By model the classes that it was not trained on, with their numbers of rows.
    """
    data = config.data
    models = [
        name for name in (CHALLENGER, INCUMBENT, BASELINE) if score_column(name) in rows.columns
    ]
    return dataclasses.replace(
        compare(rows, models, metrics, data.task),
        metric=data.metric,
        loss=row_loss_for(data.metric, data.task),
        classes=classes,
        unknown_classes=unknown_classes or {},
        rows_judged=rows,
        categories=sliced_columns(data),
    )
