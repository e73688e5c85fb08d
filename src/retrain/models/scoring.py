"""Several models on the same raw rows, each with its own features, classes and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrain.config import ColumnType, Config, Task
from retrain.models.block_sums import Array
from retrain.models.fitting import known_classes, predict, to_codes, to_target
from retrain.models.metrics import baseline_score, find_metric, monitoring_loss, row_loss_for

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Model:
    """A fitted Pipeline and the features that it was trained on, which need not be those of today's
    config."""

    pipeline: Pipeline
    features: Mapping[str, ColumnType]


@dataclass(frozen=True)
class Scored:
    """Target and scores as `retrain.models.metric` takes them, and the labels behind the target's
    numbers.

    `unknown_classes`: for each model the classes that it was not trained on, with the number of
    rows of each.
    """

    target: Array
    scores: dict[str, Array]
    classes: list[str]
    unknown_classes: dict[str, dict[str, int]]

    def loss(self, model: str, config: Config) -> float:
        """The primary metric of a model, or the loss of single rows that stands in for it."""
        metric = find_metric(row_loss_for(config.data.metric, config.data.task))
        return metric.value(self.target, self.scores[model])


def baseline_loss(rows: pl.DataFrame, config: Config) -> float:
    """The loss of the best constant prediction for these very labelled rows: how hard they are for
    whoever knows no feature."""
    task, target = config.data.task, to_target(rows, config)
    classes: list[str] = np.unique(target).tolist() if task is Task.multiclass else []
    codes, loss = to_codes(target, classes, task), monitoring_loss(config.data.metric, task)
    constant = baseline_score(codes, loss, task, len(classes))
    return find_metric(loss, task).value(
        codes, np.broadcast_to(constant, (len(codes), *constant.shape))
    )


def score_rows(models: Mapping[str, Model], rows: pl.DataFrame, config: Config) -> Scored:
    """Score labelled rows. With several classes, those of the rows and of every model count.

    Raises ModelError when a model can't score the rows.
    """
    several = config.data.task is Task.multiclass
    known = {name: known_classes(model.pipeline) for name, model in models.items()}
    scores = {
        name: predict(model.pipeline, rows, model.features, known[name] if several else [])
        for name, model in models.items()
    }
    return to_scored(config, rows, scores, known)


def to_scored(
    config: Config,
    rows: pl.DataFrame,
    scores: Mapping[str, Array],
    known: Mapping[str, Sequence[str]],
) -> Scored:
    """Predictions of models on labelled rows, put together.

    Parameters
    ----------
    scores
        By model, shape (rows,), or with several classes (rows, classes that it knows).
    known
        By model the classes that it was trained on, sorted.
    """
    task, target = config.data.task, to_target(rows, config)
    classes: list[str] = []
    if task is Task.multiclass:
        classes = sorted({str(label) for label in np.unique(target)}.union(*known.values()))
        scores = {
            name: spread_classes(values, known[name], classes) for name, values in scores.items()
        }
    elif task is Task.binary:
        classes = ["0", "1"]
    counted = {label: int((target.astype(str) == label).sum()) for label in classes}
    unknown = {
        name: {label: counted[label] for label in classes if label not in (known[name] or classes)}
        for name in scores
    }
    return Scored(to_codes(target, classes, task), dict(scores), classes, unknown)


def spread_classes(values: Array, known: Sequence[str], classes: Sequence[str]) -> Array:
    """Probabilities of some classes, shape (..., known), as those of more; 0 for the others."""
    spread = np.zeros((*values.shape[:-1], len(classes)))
    spread[..., [list(classes).index(name) for name in known]] = values
    return spread
