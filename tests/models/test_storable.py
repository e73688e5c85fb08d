"""A model that could not be loaded again is refused before it is fitted, not after."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import polars as pl
import pytest
from conftest import flights

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.data.windows import Window
from retrain.errors import ConfigError, ModelError
from retrain.models import storable, training
from retrain.models.storable import check_storable
from retrain.targets import allow


@pytest.fixture
def rows() -> pl.DataFrame:
    return flights("2013-01").drop_nulls("late").head(500)


@pytest.fixture(autouse=True)
def nothing_passed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storable, "_passed", set())


def with_estimator(config: Config, **estimator: object) -> Config:
    allow(estimator)
    model = dataclasses.replace(config.model, estimator=estimator, choose_iterations_below=0)
    return dataclasses.replace(config, model=model)


def test_the_shipped_list_is_enough_for_the_shipped_model(
    config: Config, rows: pl.DataFrame
) -> None:
    check_storable(config, rows)
    assert storable._passed


def test_types_that_only_a_fitted_model_holds_are_named(config: Config, rows: pl.DataFrame) -> None:
    with pytest.raises(
        ModelError, match=r"TreePredictor.*trusted_types.*conf/model/.*Nothing has been fitted"
    ):
        check_storable(dataclasses.replace(config, trusted_types=[]), rows)
    neighbours = with_estimator(config, _target_="sklearn.neighbors.KNeighborsClassifier")
    numeric = {
        "temp": config.data.features["distance"],
        "distance": config.data.features["distance"],
    }
    data = dataclasses.replace(config.data, features=numeric)
    with pytest.raises(ModelError, match="KDTree"):
        check_storable(dataclasses.replace(neighbours, data=data), rows.drop_nulls("temp"))


def test_recipes_that_differ_in_numbers_alone_are_tried_once(
    config: Config, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_storable(config, rows)
    monkeypatch.setattr(storable, "why_not_stored", lambda *_: "asked again")
    check_storable(with_estimator(config, **config.model.estimator | {"max_iter": 7}), rows)
    with pytest.raises(ModelError, match="asked again"):
        check_storable(with_estimator(config, **config.model.estimator | {"scoring": "x"}), rows)


def test_parameters_that_do_not_fit_are_refused_before_all_rows_are(
    config: Config, rows: pl.DataFrame
) -> None:
    estimator = config.model.estimator | {"learning_rate": -1}
    with pytest.raises(ConfigError, match=r"`model.estimator.learning_rate`: The 'learning_rate'"):
        check_storable(with_estimator(config, **estimator), rows)


def test_a_fit_asks_first(
    config: Config, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "run_strategy", lambda *_: pytest.fail("it was fitted"))
    times = rows["scheduled_departure"]
    batch = Batch("2013-01", 1, len(rows), 0, 0, None, times.min(), times.max(), "2013-01", {})
    strict = dataclasses.replace(config, trusted_types=[])
    with pytest.raises(ModelError, match="TreePredictor"):
        training.fit(strict, [batch], Window(datetime.min, datetime.max), lambda _: rows, None)
