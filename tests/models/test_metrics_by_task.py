"""Metrics of several classes and of numbers against scikit-learn, on all rows and without each
block in turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray

from retrain.config import Task
from retrain.errors import ConfigError
from retrain.models.metrics import (
    baseline_score,
    find_metric,
    find_row_loss,
    fits_task,
    row_loss_for,
)

CLASSES, ROWS, BLOCKS = 4, 600, 6


def several_classes(seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(seed)
    target = random.integers(0, CLASSES, ROWS).astype(np.float64)
    logits = random.normal(size=(ROWS, CLASSES)) + 1.5 * np.eye(CLASSES)[target.astype(int)]
    score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return target, score, random.integers(0, BLOCKS, ROWS)


def numbers(seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(seed)
    target = random.normal(1000, 3, ROWS)
    return target, target + random.normal(0.2, 1, ROWS), random.integers(0, BLOCKS, ROWS)


def brier(target: NDArray, score: NDArray) -> float:
    return float(((score - np.eye(CLASSES)[target.astype(int)]) ** 2).sum(axis=1).mean())


MANY: dict[str, Callable[[NDArray, NDArray], float]] = {
    "log_loss": lambda target, score: reference.log_loss(target, score, labels=range(CLASSES)),
    "brier": brier,
    "macro_f1": lambda target, score: reference.f1_score(
        target, score.argmax(axis=1), average="macro"
    ),
    "roc_auc": lambda target, score: reference.roc_auc_score(
        target, score, multi_class="ovr", average="macro"
    ),
    "balanced_accuracy": lambda target, score: reference.balanced_accuracy_score(
        target, score.argmax(axis=1)
    ),
}
VALUES: dict[str, Callable[[NDArray, NDArray], float]] = {
    "mae": reference.mean_absolute_error,
    "mse": reference.mean_squared_error,
    "rmse": reference.root_mean_squared_error,
    "r2": reference.r2_score,
    "pinball_0.9": lambda target, score: reference.mean_pinball_loss(target, score, alpha=0.9),
    "neg_median_absolute_error": lambda target, score: (
        -reference.median_absolute_error(target, score)
    ),
}


@pytest.mark.parametrize("name", [*MANY, *VALUES])
def test_as_scikit_learn_says_on_all_rows_and_without_each_block(name: str) -> None:
    several = name in MANY
    target, score, codes = several_classes() if several else numbers()
    metric = find_metric(name, Task.multiclass if several else Task.regression)
    keep = [np.ones(ROWS, dtype=bool), *(codes != block for block in range(BLOCKS))]
    expected = [(MANY if several else VALUES)[name](target[rows], score[rows]) for rows in keep]
    assert metric.replicates(target, score, codes) == pytest.approx(expected, rel=1e-9)
    assert metric.value(target, score) == pytest.approx(expected[0], rel=1e-9)


def test_two_classes_say_the_same_as_one_probability() -> None:
    target, score, codes = several_classes()
    target, score = (target > 1).astype(np.float64), score[:, 2:].sum(axis=1)
    both = np.column_stack([1 - score, score])
    for name in ("log_loss", "roc_auc", "macro_f1"):
        one, two = (find_metric(name).replicates(target, given, codes) for given in (score, both))
        assert one == pytest.approx(two), name
    assert find_metric("brier").value(target, both) == pytest.approx(
        2 * find_metric("brier").value(target, score)
    )


def test_a_class_that_a_model_does_not_know_costs_much_but_not_everything() -> None:
    target, score, _ = several_classes()
    score[:, 3] = 0
    score /= score.sum(axis=1, keepdims=True)
    value = find_metric("log_loss").value(target, score)
    assert (
        np.isfinite(value) and value > 8
    )  # a quarter of the rows at -log of the smallest step of a float64


def test_a_class_of_one_block_only_does_not_make_the_area_unknown() -> None:
    target, score, codes = several_classes()
    codes[target == 3] = 0
    assert np.isfinite(find_metric("roc_auc").replicates(target, score, codes)).all()


@pytest.mark.parametrize("name", ["pinball_", "pinball_2", "pinball_x", "rmse"])
def test_a_loss_of_single_rows_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="pinball_<quantile"):
        find_row_loss(name)


def test_metrics_know_their_tasks() -> None:
    assert fits_task("roc_auc", Task.multiclass) and not fits_task("roc_auc", Task.regression)
    assert fits_task("pinball_0.1", Task.regression) and not fits_task("rmse", Task.binary)
    assert fits_task("max_error", Task.regression)
    assert (
        row_loss_for("macro_f1", Task.multiclass) == "log_loss"
        and row_loss_for("rmse", Task.regression) == "mse"
    )
    assert row_loss_for("pinball_0.9", Task.regression) == "pinball_0.9"


def test_no_constant_beats_the_baseline() -> None:
    target, _, _ = numbers()
    for metric in ("mae", "rmse", "pinball_0.9"):
        best = float(baseline_score(target, metric, Task.regression, 0))
        loss = find_metric(metric)
        values = [loss.value(target, np.full(ROWS, best + shift)) for shift in (-0.5, 0.0, 0.5)]
        assert min(values) == values[1], metric
    classes, _, _ = several_classes()
    assert baseline_score(classes, "log_loss", Task.multiclass, CLASSES).sum() == pytest.approx(1)
