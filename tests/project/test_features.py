"""What to test of features of one's own: values, missing ones, and that a model can be stored."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, flights

from project.features import known_mean, on_circle
from retrain.config import compose, feature_types
from retrain.models.fitting import build_pipeline, fit, predict
from retrain.models.model_files import load_model
from retrain.models.storable import why_not_stored

DERIVED = "logistic_regression_periodic"


def test_the_minute_before_midnight_lies_next_to_midnight() -> None:
    points = on_circle([[0.0], [1439.0], [720.0]], period=1440)
    assert np.linalg.norm(points[0] - points[1]) < 0.005
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(2)


def test_a_missing_number_has_no_place_on_the_circle() -> None:
    assert on_circle([[np.nan]], period=7).tolist() == [[0, 0]]


@pytest.mark.parametrize("model", [DERIVED, "logistic_regression", "hist_gradient_boosting"])
def test_what_the_model_predicts_is_the_same_in_training_and_serving(
    model: str, tmp_path: Path
) -> None:
    import skops.io

    config = compose(REPOSITORY / "conf", ["data=flights", f"model={model}"])
    rows = flights("2013-01").drop_nulls("late").head(600)
    pipeline = fit(build_pipeline(config), rows, config)
    assert why_not_stored(pipeline, config.trusted_types) is None
    skops.io.dump(pipeline, tmp_path / "model.skops")
    served = load_model(tmp_path / "model.skops", config.trusted_types, None)
    expected, found = (predict(one, rows, feature_types(config)) for one in (pipeline, served))
    np.testing.assert_array_equal(found, expected)
    one_row = predict(served, rows[7:8], feature_types(config))
    np.testing.assert_allclose(one_row, expected[7:8])


def test_the_derived_feature_takes_the_place_of_its_column() -> None:
    config = compose(REPOSITORY / "conf", ["data=flights", f"model={DERIVED}"])
    rows = flights("2013-01").drop_nulls("late").head(600)
    encoder = fit(build_pipeline(config), rows, config)[0]
    steps = {name: columns for name, _, columns in encoder.transformers_}
    assert steps["periodic_departure_minute"] == ["departure_minute"]
    assert "departure_minute" not in steps["numeric"]


def test_a_mean_over_other_rows_knows_only_what_was_known_before() -> None:
    day = [datetime(2013, 1, number) for number in range(1, 7)]
    history = pl.DataFrame(
        {"store": ["a", "a", "b", "a"], "known": [day[0], day[2], day[0], day[4]]}
    ).with_columns(sales=pl.Series([10.0, 20.0, 7.0, None]))
    rows = pl.DataFrame(
        {"store": ["a", "a", "b", "a", "c"], "known": [day[5], day[2], day[1], day[0], day[5]]}
    )
    found = known_mean(rows, history, by="store", value="sales", known_at="known")
    assert found.to_list() == [15, 10, 7, None, None], "of the same moment nothing is known yet"
