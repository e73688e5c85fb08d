"""With few rows, later training rows choose how long boosting goes on; with many, all is as it
was."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY
from sklearn.metrics import log_loss

from retrain.config import Column, ColumnType, Config, Task, compose
from retrain.errors import ConfigError
from retrain.models.fitting import build_pipeline, fit, to_features, to_target
from retrain.models.from_scratch import from_scratch
from retrain.models.iterations import choose_iterations


def rare_classes(rows: int, seed: int = 0) -> pl.DataFrame:
    """Twelve classes, most of them rare, of which the features tell little."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 13) ** 1.5
    label = random.choice(12, rows, p=weights / weights.sum())
    return pl.DataFrame(
        {
            "time": [datetime(2024, 1, 1) + timedelta(minutes=number) for number in range(rows)],
            "noise": random.normal(size=rows),
            "hint": label % 3 + random.normal(size=rows),
            "label": [f"class {value:02}" for value in label],
        }
    )


def recipe(task: Task, *overrides: str) -> Config:
    config = compose(REPOSITORY / "conf", [f"data.task={task.name}", *overrides])
    config.data.features = {name: Column(ColumnType.numeric) for name in ("noise", "hint")}
    config.data.time_column, config.data.target_column = "time", "label"
    return config


def constant_loss(training: pl.DataFrame, later: pl.DataFrame) -> float:
    shares = dict(training["label"].value_counts(normalize=True).iter_rows())
    return float(np.mean([-np.log(shares.get(name, 1e-6)) for name in later["label"]]))


def test_many_rare_classes_end_better_than_a_constant_and_it_is_said() -> None:
    rows, later = rare_classes(600), rare_classes(600, seed=1)
    losses = {}
    for most in (0, 10_000):
        config = recipe(Task.multiclass, f"model.choose_iterations_below={most}")
        fit_result = from_scratch(rows, config)
        known = later.filter(pl.col("label").is_in(rows["label"].unique().implode()))
        probabilities = fit_result.pipeline.predict_proba(
            to_features(known, {"noise": ColumnType.numeric, "hint": ColumnType.numeric})
        )
        losses[most] = log_loss(
            to_target(known, config), probabilities, labels=fit_result.pipeline.classes_
        )
        assert ("boosting iterations" in fit_result.note) == bool(most)
    assert losses[10_000] < constant_loss(rows, known) < losses[0]


def test_with_many_rows_of_every_class_the_model_is_the_configured_one() -> None:
    rows = rare_classes(600).with_columns((pl.col("hint") > 1).alias("label"))
    config = recipe(Task.binary, "model.choose_iterations_below=100", "model.estimator.max_iter=7")
    fitted = fit(build_pipeline(config), rows, config)
    assert fitted[-1].max_iter == fitted[-1].n_iter_ == 7


def test_iterations_are_chosen_on_later_rows_alone() -> None:
    """What the newest rows say decides, however well the older ones can be learnt by heart."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    random = np.random.default_rng(0)
    feature, times = random.normal(size=(1000, 1)), np.arange(1000)
    model = HistGradientBoostingRegressor(max_iter=50, min_samples_leaf=5, random_state=0)
    assert choose_iterations(model, feature, random.normal(size=1000), times) <= 3
    assert choose_iterations(model, feature, 10 * feature[:, 0], times) > 25


def test_few_or_simultaneous_rows_leave_the_number_as_it_is() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(max_iter=50)
    some = np.random.default_rng(0).normal(size=(60, 1))
    assert choose_iterations(model, some[:30], some[:30, 0], np.arange(30)) is None
    assert choose_iterations(model, some, some[:, 0], np.zeros(60)) is None


def test_a_column_that_came_later_and_a_class_that_came_later_do_no_harm() -> None:
    rows = rare_classes(1000).with_columns(
        noise=pl.when(pl.int_range(pl.len()) >= 700).then("noise"),
        label=pl.when(pl.int_range(pl.len()) >= 900).then(pl.lit("new")).otherwise("label"),
    )
    config = recipe(Task.multiclass)
    assert "new" in fit(build_pipeline(config), rows, config).classes_


def test_an_estimator_that_can_not_choose_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)choose_iterations_below.*RandomForest.*hint: set it to 0"
    ):
        build_pipeline(
            recipe(Task.multiclass, "model=random_forest", "+model.choose_iterations_below=10")
        )
