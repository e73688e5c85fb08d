"""A challenger that ends worse than a constant is said to, with what to try."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest
from conftest import REPOSITORY, Project

from retrain.config import Task, compose
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import BASELINE, CHALLENGER, Estimate, score_column
from retrain.pipeline.evaluate import worse_than_constant


def comparison(metric: str, challenger: float, constant: float) -> Comparison:
    scores = {
        name: {metric: Estimate(value, 0.01, 9)}
        for name, value in ((CHALLENGER, challenger), (BASELINE, constant))
    }
    differences = {BASELINE: {metric: Estimate(challenger - constant, 0.01, 9)}}
    return Comparison(1000, 10, 0.2, scores, differences, False, metric=metric)


@pytest.mark.parametrize(
    ("task", "metric", "challenger", "constant", "said"),
    [
        (
            Task.multiclass,
            "log_loss",
            21.0,
            3.4,
            ["21 against 3.4", "HistGradientBoosting", "`model=random_forest`"],
        ),
        (Task.regression, "rmse", 1.5e9, 45.0, ["1.5e+09 against 45", "`model=ridge`"]),
        (Task.binary, "roc_auc", 0.4, 0.5, ["0.4 against 0.5"]),
        (Task.binary, "log_loss", 0.30, 0.35, []),
        (Task.binary, "roc_auc", 0.7, 0.5, []),
        (Task.binary, "log_loss", 0.35, 0.35, []),
        (Task.binary, "log_loss", float("nan"), 0.35, []),
    ],
)
def test_worse_than_a_constant_is_said_whichever_way_the_metric_runs(
    task: Task, metric: str, challenger: float, constant: float, said: list[str]
) -> None:
    config = compose(REPOSITORY / "conf", [f"data.task={task.name}", f"data.metric={metric}"])
    warning = worse_than_constant(config, comparison(metric, challenger, constant))
    assert bool(warning) == bool(said) and all(part in warning for part in said)


def test_what_is_tried_already_is_not_proposed() -> None:
    config = compose(REPOSITORY / "conf", ["model=random_forest"])
    warning = worse_than_constant(config, comparison("log_loss", 0.5, 0.4))
    assert "model=logistic_regression" in warning and "model=random_forest" not in warning


def test_a_challenger_that_ends_worse_than_a_constant_is_named_where_its_verdict_is_shown(
    grown: Project,
) -> None:
    stored, pointer = (
        grown.root / "reports/predictions.parquet",
        grown.root / "reports/challenger.json",
    )
    assert "worse than a constant" not in grown.run("retrain", "evaluate").stderr
    turned = pl.read_parquet(stored).with_columns(
        (1 - pl.col(score_column(CHALLENGER))).name.keep()
    )
    turned.write_parquet(stored)
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    pointer.write_text(
        json.dumps(json.loads(pointer.read_text()) | {"predictions": digest, "looks": {}})
    )
    assert "ends worse than a constant prediction" in grown.run("retrain", "evaluate").stderr
