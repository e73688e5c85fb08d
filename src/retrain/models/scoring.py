"""Several models on the same raw rows, each with its own features, classes and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import ColumnType, Config, Task
from retrain.models.fitting import known_classes, predict, to_codes, to_target
from retrain.models.metrics import baseline_score, find_metric, monitoring_loss, row_loss_for

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Model:
    """A fitted Pipeline and the features that it was trained on, which need not be those of today's config."""

    pipeline: Pipeline
    features: Mapping[str, ColumnType]


@dataclass(frozen=True)
class Scored:
    """Target and scores as `retrain.models.metrics` takes them, and the labels behind the target's numbers.

    `unknown_classes`: for each model the classes that it was not trained on, with the number of rows of each.
    """

    target: NDArray
    scores: dict[str, NDArray]
    classes: list[str]
    unknown_classes: dict[str, dict[str, int]]

    def loss(self, model: str, config: Config) -> float:
        """The primary metric of a model, or the loss of single rows that stands in for it."""
        metric = find_metric(row_loss_for(config.data.metric, config.data.task))
        return metric.value(self.target, self.scores[model])


def difficulty(rows: pl.DataFrame, config: Config) -> float:
    """The loss of the best constant prediction for these very labelled rows: how hard they are for whoever knows no feature."""
    task, target = config.data.task, to_target(rows, config)
    classes = np.unique(target) if task is Task.multiclass else []
    codes, loss = to_codes(target, classes, task), monitoring_loss(config.data.metric, task)
    constant = baseline_score(codes, loss, task, len(classes))
    return find_metric(loss, task).value(
        codes, np.broadcast_to(constant, (len(codes), *constant.shape))
    )


def score_rows(models: Mapping[str, Model], rows: pl.DataFrame, config: Config) -> Scored:
    """Score labelled rows. With several classes, those of the rows and of every model count.

    Raises ModelError when a model can't score the rows.
    """
    task, target = config.data.task, to_target(rows, config)
    known = {name: known_classes(model.pipeline) for name, model in models.items()}
    classes: list[str] = []
    if task is Task.multiclass:
        classes = sorted({str(label) for label in np.unique(target)}.union(*known.values()))
    elif task is Task.binary:
        classes = ["0", "1"]
    asked = classes if task is Task.multiclass else []
    scores = {
        name: predict(model.pipeline, rows, model.features, asked) for name, model in models.items()
    }
    counted = {label: int((target.astype(str) == label).sum()) for label in classes}
    unknown = {
        name: {label: counted[label] for label in classes if label not in known[name]}
        for name in models
    }
    return Scored(to_codes(target, classes, task), scores, classes, unknown)
