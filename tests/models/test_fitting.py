"""Every shipped recipe on real rows: unseen categories, missing values, the same result twice, no
pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from conftest import REPOSITORY, flights
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier

from retrain.config import Column, ColumnType, Config, compose, feature_types
from retrain.errors import ConfigError, ModelError
from retrain.models import encodings
from retrain.models.fitting import build_pipeline, fit, known_classes, predict, to_features
from retrain.models.model_files import file_digest, load_model
from retrain.models.transformers import DateParts

MODELS = sorted(
    path.stem
    for path in (REPOSITORY / "conf/model").glob("*.yaml")
    if path.stem not in ("ridge", "lightgbm")
)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return flights("2013-01").filter(pl.col("late").is_not_null()).sort("scheduled_departure")


def recipe(model: str, *overrides: str) -> Config:
    return compose(REPOSITORY / "conf", [f"model={model}", *overrides])


@pytest.mark.parametrize("model", MODELS)
def test_unseen_categories_and_missing_values_are_scored(model: str, rows: pl.DataFrame) -> None:
    config = recipe(model)
    fitted = fit(build_pipeline(config), rows, config)
    odd = rows.head(3).with_columns(
        pl.Series("carrier", ["never seen", None, "UA"]),
        pl.Series("plane_model", ["new model", None, None]),
        pl.lit(None, pl.Float64).alias("temp"),
        pl.lit(None, pl.Float64).alias("plane_year"),
    )
    scores = predict(fitted, odd, feature_types(config))
    assert scores.shape == (3,) and np.isfinite(scores).all()


@pytest.mark.parametrize("limit", [20, 254])
def test_levels_are_counted_only_where_some_are_too_many_and_the_model_is_that_of_scikit_learn(
    limit: int, rows: pl.DataFrame
) -> None:
    config = recipe(
        "hist_gradient_boosting",
        f"model.preprocessing.maximum_levels={limit}",
        "model.choose_iterations_below=0",
    )
    assert 20 < rows["dest"].n_unique() < 254
    fitted = fit(build_pipeline(config), rows, config)
    assert (fitted[0].named_transformers_["categorical"].max_categories is None) == (limit == 254)
    features = to_features(rows, feature_types(config))
    alone = build_pipeline(config).fit(features, rows["late"].cast(pl.Int8).to_numpy())
    assert alone[0].named_transformers_["categorical"].max_categories == limit
    assert np.array_equal(fitted.predict_proba(features), alone.predict_proba(features))


@pytest.mark.parametrize("model", MODELS)
def test_two_fits_predict_the_same_bit_for_bit_and_so_does_the_stored_model(
    model: str, rows: pl.DataFrame, tmp_path: Path
) -> None:
    config = recipe(model)
    first, second = (fit(build_pipeline(config), rows, config) for _ in range(2))
    assert np.array_equal(
        predict(first, rows, feature_types(config)), predict(second, rows, feature_types(config))
    )
    path = tmp_path / "model.skops"
    skops.io.dump(first, path)
    loaded = load_model(path, config.trusted_types, file_digest(path))
    assert np.array_equal(
        predict(first, rows, feature_types(config)), predict(loaded, rows, feature_types(config))
    )


@pytest.mark.parametrize("model", MODELS)
def test_none_of_a_server_and_nan_of_training_mean_the_same(model: str, rows: pl.DataFrame) -> None:
    config = recipe(model)
    fitted = fit(build_pipeline(config), rows, config)
    frame = to_features(
        rows.head(50).with_columns(pl.lit(None, pl.String).alias("plane_model")),
        feature_types(config),
    )
    served = frame.astype({"plane_model": object})
    served["plane_model"] = [None] * len(served)
    assert np.array_equal(fitted.predict_proba(frame), fitted.predict_proba(served))


def test_boosting_knows_its_categories_and_holds_no_random_rows_out(config: Config) -> None:
    estimator = build_pipeline(config)[-1]
    assert estimator.categorical_features == [0, 1, 2, 3, 4]
    assert estimator.early_stopping is False and estimator.random_state == config.seed


def numbers_first(**columns: list[str]) -> ColumnTransformer:
    columns = {"numeric": columns.pop("numeric"), **columns}
    steps = {"numeric": "passthrough", "categorical": encodings.level_codes(255)}
    return encodings.combine(steps, columns)


def columns_of_levels(**columns: list[str]) -> ColumnTransformer:
    steps = {"categorical": encodings.level_columns(50), "numeric": "passthrough"}
    return encodings.combine(steps, columns, dense=True)


def test_boosting_never_takes_numbers_for_categories() -> None:
    """Where the codes of categories stand elsewhere than in the first columns."""
    recipe_of = "~model.preprocessing +model.preprocessing={_target_:%s.%s}"
    with pytest.raises(ConfigError) as error:
        build_pipeline(
            recipe("hist_gradient_boosting", *(recipe_of % (__name__, "numbers_first")).split())
        )
    assert "categorical` first" in error.value.hint
    config = recipe(
        "hist_gradient_boosting", *(recipe_of % (__name__, "columns_of_levels")).split()
    )
    assert build_pipeline(config)[-1].categorical_features is None
    named = recipe(
        "hist_gradient_boosting",
        *(recipe_of % (__name__, "numbers_first")).split(),
        "+model.estimator.categorical_features=[16]",
    )
    assert build_pipeline(named)[-1].categorical_features == [16]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.estimator._target_=sklearn.ensemble.NoSuchModel", "model.estimator"),
        ("+model.estimator.no_such_parameter=1", "no_such_parameter"),
        (
            "model.preprocessing._target_=project.features.nothing",
            "model.preprocessing",
        ),
    ],
)
def test_a_recipe_that_can_not_be_built_names_its_key(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_pipeline(recipe("hist_gradient_boosting", override))


def test_a_parameter_that_scikit_learn_refuses_is_a_users_error() -> None:
    config = recipe("hist_gradient_boosting", "model.estimator.learning_rate=-1")
    with pytest.raises(ConfigError, match=r"`model\.estimator\.learning_rate`"):
        build_pipeline(config)


def test_a_column_that_the_rows_lack_is_scored_as_missing_and_one_too_many_is_no_matter(
    rows: pl.DataFrame,
) -> None:
    config = recipe("hist_gradient_boosting")
    fitted = fit(build_pipeline(config), rows, config)
    features = feature_types(config)
    without = rows.drop("temp").with_columns(pl.lit(1.0).alias("extra"))
    empty = rows.with_columns(pl.lit(None, pl.Float64).alias("temp"))
    assert np.array_equal(predict(fitted, without, features), predict(fitted, empty, features))
    assert features["carrier"] is ColumnType.categorical


TASKS = {
    "hist_gradient_boosting": "regression",
    "random_forest": "regression",
    "ridge": "regression",
    "sgd": "multiclass",
    "mlp": "regression",
    "lightgbm": "multiclass",
    "logistic_regression": "multiclass",
    "dummy": "regression",
}


@pytest.mark.parametrize("model", TASKS)
def test_texts_dates_many_levels_and_every_task(
    model: str, rows: pl.DataFrame, tmp_path: Path
) -> None:
    """Dates, texts and packed columns with gaps, thousands of levels, an empty column; stored,
    loaded and scored as a server would."""
    config = recipe(
        model,
        f"data.task={TASKS[model]}",
        f"data.metric={'rmse' if TASKS[model] == 'regression' else 'log_loss'}",
    )
    config.data.features = {
        "distance": Column(ColumnType.numeric),
        "nothing": Column(ColumnType.numeric, nullable=True),
        "tail": Column(ColumnType.categorical, nullable=True),
        "opened": Column(ColumnType.datetime, nullable=True),
        "comment": Column(ColumnType.text, nullable=True),
        "counts": Column(ColumnType.sparse, nullable=True),
    }
    number = pl.int_range(pl.len())
    frame = rows.with_columns(
        pl.lit(None, pl.Float64).alias("nothing"),
        (number % 3000).cast(pl.String).alias("tail"),
        pl.when(number % 10 > 0).then("scheduled_departure").alias("opened"),
        pl.when(number % 7 > 0)
        .then(pl.concat_str("carrier", "origin", "dest", separator=" flies "))
        .alias("comment"),
        pl.when(number % 5 > 0)
        .then(pl.format("c{}:{} c{}:-1.5", number % 50, number % 3, number % 70))
        .alias("counts"),
        (pl.col("distance") if TASKS[model] == "regression" else pl.col("origin")).alias("late"),
    )
    fitted = fit(build_pipeline(config), frame, config)
    features, classes = feature_types(config), known_classes(fitted)
    scores = predict(fitted, frame, features, classes)
    assert scores.shape == ((len(frame),) if TASKS[model] == "regression" else (len(frame), 3))
    if model not in ("dummy", "mlp"):
        baseline = (
            np.abs(frame["distance"] - frame["distance"].mean()).mean()
            if TASKS[model] == "regression"
            else 0.6
        )
        error = (
            np.abs(scores - frame["late"].to_numpy()).mean()
            if TASKS[model] == "regression"
            else 1 - scores.max(axis=1).mean()
        )
        assert error < baseline
    path = tmp_path / "model.skops"
    skops.io.dump(fitted, path)
    loaded = load_model(path, config.trusted_types, file_digest(path))
    odd = frame.head(3).with_columns(
        pl.Series("tail", ["never seen", None, "1"]),
        pl.lit(5.0).alias("nothing"),
        pl.Series("opened", [None, None, None], dtype=pl.Datetime("us")),
        pl.Series("comment", ["words never seen", None, ""]),
        pl.Series("counts", ["never_seen:3", None, ""]),
    )
    assert np.array_equal(
        predict(loaded, odd, features, classes), predict(fitted, odd, features, classes)
    )
    served = (
        to_features(odd, features)
        .astype({"tail": object, "comment": object, "counts": object})
        .where(lambda cells: cells.notna(), None)
    )
    served["opened"] = pd.to_datetime(served["opened"])
    served = served.astype({"distance": float, "nothing": float})
    said = loaded.predict(served) if TASKS[model] == "regression" else loaded.predict_proba(served)
    assert said == pytest.approx(predict(fitted, odd, features, classes))


def test_the_parts_of_a_date() -> None:
    frame = pd.DataFrame({"opened": pd.to_datetime(["2013-01-31 05:30", None])})
    parts = DateParts().fit(frame)
    names = dict(zip(parts.get_feature_names_out(), parts.transform(frame).T, strict=True))
    assert (
        names["opened_weekday"][0] == 3
        and names["opened_hour"][0] == 5
        and names["opened_month"][0] == 1
    )
    assert names["opened_days_since_1970"][0] == pytest.approx(15736 + 5.5 / 24)
    assert np.isnan([values[1] for values in names.values()]).all()


def test_a_classifier_is_refused_for_numbers() -> None:
    with pytest.raises(ConfigError, match="is a classifier"):
        build_pipeline(recipe("logistic_regression", "data.task=regression", "data.metric=rmse"))


def test_what_only_the_fit_of_a_library_refuses_is_one_message_with_the_model(
    rows: pl.DataFrame,
) -> None:
    """LightGBM raises an error of its own."""
    pytest.importorskip("lightgbm")
    for override in ("model.estimator.n_estimators=-1", "+model.estimator.num_leaves=-1"):
        config = recipe("lightgbm", override)
        with pytest.raises(
            ModelError,
            match=r"(?s)`model` \(lightgbm.*\) can't be fitted.*hint: mend conf/model/",
        ):
            fit(build_pipeline(config), rows.head(500), config)


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["0", "1", "2"]])
def test_which_of_several_classes_to_score_must_be_said(labels: list[str]) -> None:
    rows = pl.DataFrame({"x": [float(row) for row in range(30)]})
    model = DummyClassifier().fit(rows, labels * 10)
    features = {"x": ColumnType.numeric}
    with pytest.raises(ModelError, match=r"(?s)predicts the classes .*hint: .*classes="):
        predict(model, rows, features)
    assert predict(model, rows, features, labels).shape == (30, 3)
