"""Every strategy on real rows: what it learns from, what it keeps, and when it refuses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, flights

from retrain.config import Config, Task, compose, feature_types
from retrain.data.manifest import Batch
from retrain.data.windows import Window
from retrain.errors import ConfigError, DataError
from retrain.models.continuing import check_continuable
from retrain.models.correcting import corrections_of
from retrain.models.fitting import predict
from retrain.models.from_scratch import FitResult
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model, score_rows
from retrain.models.strategies import (
    BestOf,
    Full,
    Recalibrate,
    Recency,
    Replay,
    Residual,
    Sample,
    SlidingWindow,
    Strategy,
    Streaming,
    WarmStart,
    run_strategy,
)
from retrain.models.training_set import TrainingSet
from retrain.targets import allow

MONTHS = ("2013-01", "2013-02", "2013-03", "2013-04")
BORDER = datetime(2013, 4, 1)
EVERYTHING = Window(datetime.min, datetime.max)


def batch(
    period: str, rows: pl.DataFrame, target: str = "late", time: str = "scheduled_departure"
) -> Batch:
    classes = {str(name): int(count) for name, count in rows[target].value_counts().iter_rows()}
    return Batch(
        period, 1, len(rows), 0, 0, None, rows[time].min(), rows[time].max(), period, {}, classes
    )


def months() -> dict[str, pl.DataFrame]:
    return {
        month: flights(month)
        .filter(pl.col("late").is_not_null())
        .sort("scheduled_departure")
        .gather_every(3)
        for month in MONTHS
    }


def configured(model: str, *overrides: str) -> Config:
    return compose(REPOSITORY / "conf", [f"model={model}", *overrides])


def small(model: str) -> Config:
    settings = {
        "hist_gradient_boosting": "max_iter=20",
        "lightgbm": "n_estimators=20",
        "random_forest": "n_estimators=10",
    }
    return (
        configured(model, f"model.estimator.{settings[model]}")
        if model in settings
        else configured(model)
    )


def training_set(
    config: Config, rows: dict[str, pl.DataFrame], base: ParentModel | None = None
) -> TrainingSet:
    batches = [batch(period, part) for period, part in rows.items()]
    return TrainingSet(config, batches, EVERYTHING, lambda one: rows[one.period], base)


def base_of(config: Config, rows: dict[str, pl.DataFrame]) -> ParentModel:
    """A model of all months but the newest."""
    fit_result = Full().fit(training_set(config, {month: rows[month] for month in MONTHS[:-1]}))
    return ParentModel(Model(fit_result.pipeline, feature_types(config)), BORDER)


def loss(fit_result: FitResult, rows: pl.DataFrame, config: Config) -> float:
    return score_rows(
        {"model": Model(fit_result.pipeline, feature_types(config))}, rows, config
    ).loss("model", config)


BATCHES = [batch(month, part) for month, part in months().items()]


def periods(chosen: list[Batch]) -> list[str]:
    return [one.period for one in chosen]


def test_full_takes_all_history() -> None:
    assert Full().select(BATCHES) == BATCHES


def test_a_sliding_window_takes_the_newest_and_no_more_than_there_are() -> None:
    assert periods(SlidingWindow(2).select(BATCHES)) == ["2013-03", "2013-04"]
    assert SlidingWindow(9).select(BATCHES) == BATCHES
    assert periods(SlidingWindow(duration="31d").select(BATCHES)) == ["2013-03", "2013-04"]
    assert periods(SlidingWindow(duration="3d").select(BATCHES)) == ["2013-04"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SlidingWindow(), "either"),
        (lambda: SlidingWindow(2, "3d"), "either"),
    ],
)
def test_a_setting_that_can_not_be_is_refused(make: Callable[[], Strategy], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_recency_weighs_the_newest_batch_most() -> None:
    config, rows = small("hist_gradient_boosting"), months()
    config.model.choose_iterations_below = (
        0  # what is asked is how well the newest rows are learnt, not how well later ones are met
    )
    sharp, flat = (
        loss(run_strategy(Recency(life), training_set(config, rows)), rows["2013-04"], config)
        for life in (0.05, 1000)
    )
    full = loss(run_strategy(Full(), training_set(config, rows)), rows["2013-04"], config)
    assert sharp < full - 0.05
    assert flat == pytest.approx(full, abs=0.01)


def test_recency_needs_a_model_that_takes_weights() -> None:
    config = configured("mlp")
    config.model.estimator["_target_"] = "sklearn.neighbors.KNeighborsClassifier"
    allow(config.model.estimator)
    with pytest.raises(ConfigError, match="takes no weights"):
        Recency(4).check(config)


@pytest.mark.parametrize("model", ["sgd", "mlp", "lightgbm", "random_forest"])
@pytest.mark.parametrize("strategy", [WarmStart(passes=2, trees=5), Replay(passes=2, trees=5)])
def test_a_warm_start_keeps_the_base_and_learns_from_the_new_rows(
    model: str, strategy: Strategy
) -> None:
    config, rows = small(model), months()
    base = base_of(config, rows)
    before = predict(base.model.pipeline, rows["2013-04"], base.model.features)
    fit_result = run_strategy(strategy, training_set(config, rows, base))
    assert fit_result.continued and "Continued from" in fit_result.note
    assert fit_result.rows == len(rows["2013-04"]) * (2 if isinstance(strategy, Replay) else 1)
    old = predict(base.model.pipeline, rows["2013-04"], base.model.features)
    assert np.array_equal(before, old), "the base itself is left as it was"
    assert loss(fit_result, rows["2013-04"], config) < loss(
        FitResult(base.model.pipeline, 0), rows["2013-04"], config
    )
    again = run_strategy(strategy, training_set(config, rows, base))
    new = [
        predict(one.pipeline, rows["2013-04"], base.model.features) for one in (fit_result, again)
    ]
    assert np.array_equal(*new)


@pytest.mark.parametrize("model", ["hist_gradient_boosting", "sgd"])
def test_residual_corrects_what_the_base_gets_wrong(model: str) -> None:
    config, rows = small(model), months()
    base = base_of(config, rows)
    fit_result = run_strategy(Residual(), training_set(config, rows, base))
    assert fit_result.continued and fit_result.rows == len(rows["2013-04"])
    assert loss(fit_result, rows["2013-04"], config) < loss(
        FitResult(base.model.pipeline, 0), rows["2013-04"], config
    )
    twice = run_strategy(
        Residual(),
        training_set(
            config,
            rows,
            dataclasses.replace(base, model=Model(fit_result.pipeline, base.model.features)),
        ),
    )
    assert len(corrections_of(twice.pipeline[-1])) == 2
    chain = dataclasses.replace(base, model=Model(twice.pipeline, base.model.features))
    anew = run_strategy(Residual(maximum_corrections=2), training_set(config, rows, chain))
    assert (
        not anew.continued
        and "has 2 corrections already" in anew.note
        and corrections_of(anew.pipeline[-1]) == []
    )
    assert periods(list(anew.batches)) == list(MONTHS)


def test_recalibrate_mends_probabilities_and_does_not_pile_up() -> None:
    config, rows = small("hist_gradient_boosting"), months()
    base = base_of(config, rows)
    shifted = rows["2013-04"].with_columns(late=pl.col("late") | (pl.int_range(pl.len()) % 3 == 0))
    rows = rows | {"2013-04": shifted}
    once = run_strategy(Recalibrate(), training_set(config, rows, base))
    assert (
        loss(once, shifted, config)
        < loss(FitResult(base.model.pipeline, 0), shifted, config) - 0.01
    )
    again = run_strategy(
        Recalibrate(),
        training_set(
            config, rows, dataclasses.replace(base, model=Model(once.pipeline, base.model.features))
        ),
    )
    assert type(again.pipeline[-1].estimator.estimator).__name__ == "HistGradientBoostingClassifier"
    scores = [predict(one.pipeline, shifted, base.model.features) for one in (once, again)]
    assert np.array_equal(*scores)
    one_left = rows | {
        "2013-04": pl.concat([shifted.filter(~pl.col("late")), shifted.filter("late").head(1)])
    }
    assert (
        "calibration needs all"
        in run_strategy(Recalibrate(), training_set(config, one_left, base)).note
    )
    config.data.task = Task.regression
    with pytest.raises(ConfigError, match="regression"):
        Recalibrate().check(config)


def test_without_a_base_or_with_another_recipe_all_history_is_learnt_and_it_is_said() -> None:
    config, rows = small("sgd"), months()
    first = run_strategy(WarmStart(), training_set(config, rows))
    assert not first.continued and "there is no version to continue from" in first.note
    assert first.rows == sum(map(len, rows.values()))
    other = dataclasses.replace(
        base_of(config, rows), refusal="features, encoding or estimator are not those of version 4"
    )
    refused = run_strategy(Replay(), training_set(config, rows, other))
    assert "are not those of version 4" in refused.note and refused.rows == first.rows
    late = dataclasses.replace(other, refusal=None, trained_until=datetime(2014, 1, 1))
    assert (
        "no rows have come since"
        in run_strategy(WarmStart(), training_set(config, rows, late)).note
    )


def test_a_new_class_is_learnt_from_scratch() -> None:
    config = configured("sgd", "data.task=multiclass")
    rows = {
        month: part.with_columns(late=pl.col("late").cast(pl.Int8).cast(pl.String))
        for month, part in months().items()
    }
    base = base_of(config, rows)
    rows["2013-04"] = rows["2013-04"].with_columns(
        late=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("cancelled")).otherwise("late")
    )
    fit_result = run_strategy(WarmStart(), training_set(config, rows, base))
    assert (
        "class cancelled is new" in fit_result.note and "cancelled" in fit_result.pipeline.classes_
    )
    scored = score_rows(
        {"old": base.model, "new": Model(fit_result.pipeline, base.model.features)},
        rows["2013-04"],
        config,
    )
    assert scored.classes == ["0", "1", "cancelled"]
    assert scored.unknown_classes["old"]["cancelled"] > 0 and not scored.unknown_classes["new"]
    assert (scored.scores["old"][:, 2] == 0).all() and scored.loss("old", config) > scored.loss(
        "new", config
    )


def test_trees_are_not_added_when_a_class_is_missing() -> None:
    """scikit-learn would take the classes of the new rows for all there are, and say nothing."""
    config, rows = small("random_forest"), months()
    base = base_of(config, rows)
    rows["2013-04"] = rows["2013-04"].filter(pl.col("late"))
    fit_result = run_strategy(WarmStart(), training_set(config, rows, base))
    assert not fit_result.continued and "is missing among the new rows" in fit_result.note


@pytest.mark.parametrize("model", ["hist_gradient_boosting", "logistic_regression"])
def test_what_can_not_be_continued_is_refused_with_what_can(model: str) -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)can't honestly be continued.*MLPClassifier.*LightGBM.*residual"
    ):
        check_continuable(configured(model))
    with pytest.raises(ConfigError, match=r"needs all its rows at once.*SGDClassifier"):
        Streaming().check(configured(model))


@pytest.mark.parametrize("wanted", [1000, 40, 10**9])
def test_a_sample_is_drawn_from_every_batch_and_is_the_same_with_the_same_seed(wanted: int) -> None:
    config, rows = small("hist_gradient_boosting"), months()
    batches = [batch(period, part) for period, part in rows.items()]
    alive: list[str] = []

    def read(one: Batch) -> pl.DataFrame:
        alive.append(one.period)
        return rows[one.period]

    given = TrainingSet(config, batches, EVERYTHING, read)
    first, again = (run_strategy(Sample(wanted), given) for _ in range(2))
    held = sum(map(len, rows.values()))
    assert min(wanted, held) - len(batches) <= first.rows <= min(wanted, held)
    assert f"A sample of {first.rows:,} rows" in first.note
    assert alive == list(rows) * 2
    assert [one.period for one in first.batches] == list(rows)
    newest = rows["2013-04"]
    assert loss(first, newest, config) == loss(again, newest, config)


@pytest.mark.parametrize("model", ["sgd", "mlp"])
def test_streaming_learns_from_every_batch_and_holds_one_at_a_time(model: str) -> None:
    config, rows = small(model), months()
    alive: list[str] = []
    batches = [batch(period, part) for period, part in rows.items()]

    def read(one: Batch) -> pl.DataFrame:
        alive.append(one.period)
        return rows[one.period]

    fit_result = run_strategy(
        Streaming(passes=2, encoding_rows=1000), TrainingSet(config, batches, EVERYTHING, read)
    )
    assert fit_result.rows == sum(map(len, rows.values()))
    assert alive == ["2013-04", *MONTHS, *MONTHS]
    full = run_strategy(Full(), training_set(config, rows))
    assert loss(fit_result, rows["2013-04"], config) < loss(full, rows["2013-04"], config) + 0.05


def test_best_of_takes_the_winner_on_inner_rows_and_trains_it_on_all() -> None:
    config, rows = small("hist_gradient_boosting"), months()
    spoilt = rows["2013-01"].with_columns(~pl.col("late"))
    rows = {
        month: spoilt.with_columns(pl.col("scheduled_departure")) if month == "2013-01" else part
        for month, part in rows.items()
    }
    best = BestOf({"all": Full(), "newest": SlidingWindow(2)})
    fit_result = run_strategy(best, training_set(config, rows))
    assert "Strategy newest did best" in fit_result.note and periods(list(fit_result.batches)) == [
        "2013-03",
        "2013-04",
    ]
    assert fit_result.rows == len(rows["2013-03"]) + len(rows["2013-04"])


@pytest.mark.parametrize(("minimum_rows", "chosen"), [(100, True), (100_000, False)])
def test_best_of_chooses_on_enough_later_rows_or_takes_the_first_and_says_so(
    minimum_rows: int, chosen: bool
) -> None:
    config, rows = small("sgd"), months()
    best = BestOf(
        {"all": Full(), "newest": SlidingWindow(1)},
        validation_share=0.01,
        minimum_rows=minimum_rows,
    )
    fit_result = run_strategy(best, training_set(config, rows))
    if chosen:
        used = int(
            re.search(r"did best on ([\d,]+) inner validation rows", fit_result.note)[1].replace(
                ",", ""
            )
        )
        assert used >= minimum_rows
    else:
        assert (
            fit_result.choice == "all"
            and "Strategy all was taken as the first on the list" in fit_result.note
        )
        assert fit_result.rows == sum(map(len, rows.values()))


def test_what_scikit_learn_refuses_is_a_users_error() -> None:
    config, rows = configured("sgd", "model.estimator.alpha=-1"), months()
    with pytest.raises(ConfigError, match="alpha"):
        run_strategy(Streaming(encoding_rows=100), training_set(config, rows))


def test_rows_of_one_class_teach_nothing() -> None:
    config, rows = small("sgd"), months()
    with pytest.raises(DataError, match="one class"):
        run_strategy(
            Full(), training_set(config, {"2013-01": rows["2013-01"].filter(pl.col("late"))})
        )
