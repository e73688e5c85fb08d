"""The statistics of the comparison: against closed forms, and by simulation of days whose rows move
together."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.stats
from conftest import REPOSITORY

from retrain.config import Task, compose
from retrain.errors import PromotionError
from retrain.gate.compare import compare
from retrain.gate.estimates import BLOCK, EVALUATION, TARGET, WINDOW, score_column
from retrain.models.metrics import find_row_loss, monitoring_loss
from retrain.pipeline.evaluate import compare_stored
from retrain.types import ChallengerRecord

row_log_loss, row_brier = map(find_row_loss, ("log_loss", "brier"))
MODELS = ["challenger", "incumbent"]
NEW, OLD = map(score_column, MODELS)


def simulate(generator: np.random.Generator, days: int, rows: int = 200) -> pl.DataFrame:
    """Two models whose true scores are equal, wrong in opposite directions by as much each day as
    that day is unusual."""
    day = np.repeat(np.arange(days), rows)
    shift = generator.normal(0, 0.6, days)[day]
    base = generator.normal(0, 1, days * rows)
    target = generator.random(days * rows) < 1 / (1 + np.exp(-(base - 1 + shift)))
    tilt = 0.25
    challenger, incumbent = (1 / (1 + np.exp(-(base - 1 + sign * tilt))) for sign in (1, -1))
    return pl.DataFrame({TARGET: target.astype(int), BLOCK: day, NEW: challenger, OLD: incumbent})


def test_with_blocks_of_equal_size_the_interval_is_student_t_of_the_daily_means() -> None:
    frame = simulate(np.random.default_rng(1), days=8)
    estimate = compare(frame, MODELS).differences["incumbent"]["brier"]
    target = frame[TARGET].to_numpy()
    daily = (
        frame.with_columns(
            d=pl.Series(
                row_brier(target, frame[NEW].to_numpy()) - row_brier(target, frame[OLD].to_numpy())
            )
        )
        .group_by(BLOCK)
        .agg(pl.col("d").mean())["d"]
        .to_numpy()
    )
    low, high = scipy.stats.t.interval(0.95, 7, daily.mean(), scipy.stats.sem(daily))
    assert estimate.value == pytest.approx(daily.mean())
    assert estimate.interval() == pytest.approx((low, high))
    assert estimate.quantile(0.95) == pytest.approx(
        scipy.stats.t.ppf(0.95, 7, daily.mean(), scipy.stats.sem(daily))
    )


def test_with_blocks_of_unequal_size_it_is_close_to_the_ratio_estimator() -> None:
    frame = simulate(np.random.default_rng(2), days=40).filter(
        pl.int_range(pl.len()) % (pl.col(BLOCK) % 5 + 1) == 0
    )
    estimate = compare(frame, MODELS).differences["incumbent"]["log_loss"]
    target = frame[TARGET].to_numpy()
    loss = row_log_loss(target, frame[NEW].to_numpy()) - row_log_loss(target, frame[OLD].to_numpy())
    sums = np.bincount(frame[BLOCK].to_numpy(), loss - loss.mean())
    linearized = math.sqrt(40 / 39 * np.sum(sums**2)) / len(frame)
    assert estimate.value == pytest.approx(loss.mean())
    assert estimate.standard_error == pytest.approx(linearized, rel=0.1)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_the_interval_covers_the_truth_when_days_move_together(metric: str) -> None:
    """95 % intervals over 10 days: ours holds its word, one that believes in independent rows does
    not."""
    generator, simulations = np.random.default_rng(3), 300
    truth = 0.0  # the tilts are mirror images, and a shift of all scores changes no ranking
    covered = by_row = 0
    for _ in range(simulations):
        frame = simulate(generator, days=10, rows=100)
        if metric == "log_loss":
            truth = TRUE_DIFFERENCE
        estimate = compare(frame, MODELS).differences["incumbent"][metric]
        low, high = estimate.interval()
        covered += low <= truth <= high
        target = frame[TARGET].to_numpy()
        loss = row_log_loss(target, frame[NEW].to_numpy()) - row_log_loss(
            target, frame[OLD].to_numpy()
        )
        by_row += abs(loss.mean() - truth) < 1.96 * scipy.stats.sem(loss)
    assert 0.92 <= covered / simulations <= 1
    if metric == "log_loss":
        assert by_row / simulations < 0.8


def _true_difference() -> float:
    """By averaging over a thousand times more days than a simulation has."""
    frame = simulate(np.random.default_rng(4), days=10_000, rows=100)
    target = frame[TARGET].to_numpy()
    return float(
        np.mean(
            row_log_loss(target, frame[NEW].to_numpy())
            - row_log_loss(target, frame[OLD].to_numpy())
        )
    )


TRUE_DIFFERENCE = _true_difference()


def test_identical_predictions_are_noticed_and_differ_by_nothing() -> None:
    frame = simulate(np.random.default_rng(5), days=5).with_columns(pl.col(NEW).alias(OLD))
    comparison = compare(frame, MODELS)
    assert comparison.identical
    assert comparison.differences["incumbent"]["log_loss"].value == 0


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda frame: frame.clear(), "no evaluation rows"),
        (
            lambda frame: frame.with_columns(pl.lit(None, pl.Float64).alias(NEW)),
            "have no `challenger`",
        ),
        (lambda frame: frame.with_columns(pl.lit(math.nan).alias(OLD)), "have no `incumbent`"),
    ],
)
def test_what_can_not_be_compared_is_an_error(frame, words: str) -> None:
    with pytest.raises(PromotionError, match=words):
        compare(frame(simulate(np.random.default_rng(6), days=5)), MODELS)


def test_one_class_or_one_block_gives_no_figure_to_pass_a_check_on() -> None:
    frame = simulate(np.random.default_rng(7), days=5)
    with pytest.raises(PromotionError, match="roc_auc"):
        compare(frame.with_columns(pl.lit(1).alias(TARGET)), MODELS).worsening(
            "incumbent", "roc_auc"
        )
    with pytest.raises(PromotionError, match="log_loss"):
        compare(frame.with_columns(pl.lit(1).alias(BLOCK)), MODELS).worsening(
            "incumbent", "log_loss"
        )
    with pytest.raises(PromotionError, match="was not measured"):
        compare(frame, MODELS).worsening("incumbent", "accuracy")


@pytest.mark.parametrize(
    ("metric", "task"), [("r2", "regression"), ("mae", "regression"), ("roc_auc", "binary")]
)
def test_the_loss_that_policies_watch_is_measured_under_every_metric(
    metric: str, task: str
) -> None:
    config = compose(REPOSITORY / "conf", [f"data.task={task}", f"data.metric={metric}"])
    hours = [datetime(2013, 1, 1) + timedelta(hours=number) for number in range(400)]
    random = np.random.default_rng(0)
    predictions = pl.DataFrame(
        {
            "scheduled_departure": hours,
            WINDOW: EVALUATION,
            TARGET: random.integers(0, 2, 400).astype(float),
            **{score_column(name): random.uniform(0.1, 0.9, 400) for name in (*MODELS, "baseline")},
        }
    )
    found = compare_stored(config, predictions, ChallengerRecord(True, "", "", ""), {})
    loss = monitoring_loss(metric, config.data.task)
    assert loss in found.scores["challenger"] and loss in found.differences["incumbent"]


def test_a_relative_margin_is_as_uncertain_as_the_score_that_it_is_a_share_of() -> None:
    """Its estimate is that of challenger - 1.05 * incumbent: for a mean of losses, Student's t of
    the daily means of that."""
    frame = simulate(np.random.default_rng(4), days=9)
    beyond, margin = compare(frame, MODELS).beyond_margin("incumbent", "log_loss", 0.05, "relative")
    target = frame[TARGET].to_numpy()
    losses = [row_log_loss(target, frame[score_column(model)].to_numpy()) for model in MODELS]
    daily = (losses[0] - 1.05 * losses[1]).reshape(9, -1).mean(axis=1)
    assert beyond.value == pytest.approx(daily.mean()) and margin == pytest.approx(
        0.05 * losses[1].mean()
    )
    assert beyond.standard_error == pytest.approx(scipy.stats.sem(daily))
    known = compare(frame, MODELS).worsening("incumbent", "log_loss")
    assert beyond.standard_error != pytest.approx(known.standard_error, rel=1e-3)


def test_an_absolute_margin_adds_no_uncertainty() -> None:
    made = compare(simulate(np.random.default_rng(4), days=9), MODELS)
    beyond, margin = made.beyond_margin("incumbent", "roc_auc", 0.02, "absolute")
    worsening = made.worsening("incumbent", "roc_auc")
    assert margin == 0.02 and beyond.standard_error == worsening.standard_error
    assert beyond.value == pytest.approx(worsening.value - 0.02)


@pytest.mark.parametrize(("noise", "sign"), [(0.3, 1), (3.0, -1)])
def test_a_share_of_r_squared_is_one_of_what_is_left_to_explain(noise: float, sign: int) -> None:
    """R squared may be negative, and 5 % of .91 would let half as much error again pass."""
    random = np.random.default_rng(0)
    target = random.normal(0, 1, 400)
    models = {score_column(name): target + random.normal(0, noise, 400) for name in MODELS}
    frame = pl.DataFrame({TARGET: target, BLOCK: np.arange(400) // 20, **models})
    made = compare(frame, MODELS, ["r2", "mse"], Task.regression)
    score = made.score("incumbent", "r2").value
    _, margin = made.beyond_margin("incumbent", "r2", 0.05, "relative")
    assert math.copysign(1, score) == sign and margin == pytest.approx(0.05 * (1 - score))
    mse = made.beyond_margin("incumbent", "mse", 0.05, "relative")[0]
    assert (made.beyond_margin("incumbent", "r2", 0.05, "relative")[0].value > 0) == (mse.value > 0)


def test_a_share_of_a_score_below_zero_is_one_of_its_distance_from_zero() -> None:
    random = np.random.default_rng(0)
    target = random.normal(0, 1, 200)
    models = {score_column(name): target + random.normal(0, 0.5, 200) for name in MODELS}
    frame = pl.DataFrame({TARGET: target, BLOCK: np.arange(200) // 20, **models})
    made = compare(frame, MODELS, ["neg_mean_absolute_error"], Task.regression)
    beyond, margin = made.beyond_margin("incumbent", "neg_mean_absolute_error", 0.05, "relative")
    same, absolute = made.beyond_margin("incumbent", "mae", 0.05, "relative")
    assert margin == pytest.approx(absolute) and beyond.value == pytest.approx(same.value)
    assert beyond.standard_error == pytest.approx(same.standard_error)
