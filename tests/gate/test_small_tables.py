"""Tables that the shipped gate has to let live: few rows, rare classes. Predictions are simulated;
window and gate are real."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY
from numpy.typing import NDArray

from retrain.config import Config, compose
from retrain.data.manifest import Batch
from retrain.data.snapshot import time_marks
from retrain.data.windows import plan_windows
from retrain.gate.compare import compare
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import build_checks, decide
from retrain.gate.estimates import BASELINE, BLOCK, CHALLENGER, INCUMBENT, TARGET, score_column

FACTS = {"latency_one_row_ms": 1.0, "model_megabytes": 1.0}


def monthly(times: list[datetime], classes: dict[str, int] | None = None) -> list[Batch]:
    batches = []
    for period in sorted({f"{time:%Y-%m}" for time in times}):
        rows = [time for time in times if f"{time:%Y-%m}" == period]
        span = (min(rows), max(rows), "content", {}, classes or {})
        batches.append(
            Batch(period, 1, len(rows), 0, 0, None, *span, marks=time_marks(pl.Series(rows)))
        )
    return batches


def judge_window(
    config: Config,
    batches: list[Batch],
    times: list[datetime],
    target: NDArray,
    scores: dict[str, NDArray],
    classes: list[str],
) -> Comparison:
    """The shipped gate's verdict on the evaluation window that the pipeline would plan."""
    window = plan_windows(batches, config.evaluation).evaluation
    inside = np.array([window.start <= time < window.end for time in times])
    block = np.array([time.toordinal() for time in times])[inside]
    columns = {TARGET: target[inside], BLOCK: block}
    columns |= {score_column(name): values[inside] for name, values in scores.items()}
    frame = pl.DataFrame(columns)
    task, has_incumbent = config.data.task, INCUMBENT in scores
    specs = build_checks(config.gate, has_incumbent, config.data)
    made = compare(frame, list(scores), [config.data.metric, "brier"] if classes else ["mse"], task)
    more = {
        "metric": config.data.metric,
        "loss": "log_loss" if classes else "mse",
        "facts": FACTS,
        "classes": classes,
    }
    return decide(dataclasses.replace(made, rows_judged=frame, categories=[], **more), specs)


@pytest.mark.parametrize("has_incumbent", [False, True])
def test_a_daily_table_of_three_years_gets_a_champion_and_promotes(has_incumbent: bool) -> None:
    """R squared about .91, one row a day."""
    config = compose(REPOSITORY / "conf", ["data.task=regression", "data.metric=rmse"])
    random = np.random.default_rng(0)
    times = [datetime(2020, 1, 1, 12) + timedelta(days=day) for day in range(3 * 365)]
    target = random.normal(0, 1, len(times))
    shared = target + random.normal(0, 0.3, len(times))
    scores = {
        CHALLENGER: shared + random.normal(0, 0.03, len(times)),
        BASELINE: np.zeros(len(times)),
    }
    scores |= {INCUMBENT: shared + random.normal(0, 0.05, len(times))} if has_incumbent else {}
    decision = judge_window(config, monthly(times), times, target, scores, [])
    assert decision.verdict is Verdict.promote, decision.reason


@pytest.mark.parametrize("has_incumbent", [False, True])
def test_a_table_of_48_classes_most_of_them_rare_gets_a_champion_and_promotes(
    has_incumbent: bool,
) -> None:
    config = compose(REPOSITORY / "conf", ["data.task=multiclass"])
    random = np.random.default_rng(0)
    classes = [f"kind {number}" for number in range(48)]
    share = 0.75 ** np.arange(48)
    times = [datetime(2020, 1, 1) + timedelta(hours=8 * row) for row in range(3000)]
    target = random.choice(48, len(times), p=share / share.sum())

    def probabilities(noise: float) -> NDArray:
        logits = np.log(share / share.sum()) + random.normal(0, noise, (len(times), 48))
        logits[np.arange(len(times)), target] += 2
        odds = np.exp(logits)
        return odds / odds.sum(axis=1, keepdims=True)

    scores = {
        CHALLENGER: probabilities(0.3),
        BASELINE: np.tile(share / share.sum(), (len(times), 1)),
    }
    scores |= {INCUMBENT: probabilities(0.35)} if has_incumbent else {}
    counts = {name: int((target == number).sum()) // 33 for number, name in enumerate(classes)}
    decision = judge_window(config, monthly(times, counts), times, target, scores, classes)
    assert decision.verdict is Verdict.promote, decision.reason
    assert "Warning: classes (too few rows to be evaluated by themselves" in decision.reason


def test_a_challenger_that_is_proven_worse_is_kept_on_small_tables_too() -> None:
    config = compose(REPOSITORY / "conf", ["data.task=regression", "data.metric=rmse"])
    random = np.random.default_rng(0)
    times = [datetime(2020, 1, 1, 12) + timedelta(days=day) for day in range(3 * 365)]
    target = random.normal(0, 1, len(times))
    scores = {
        CHALLENGER: target + random.normal(0, 0.4, len(times)),
        INCUMBENT: target + random.normal(0, 0.3, len(times)),
        BASELINE: np.zeros(len(times)),
    }
    assert judge_window(config, monthly(times), times, target, scores, []).verdict is Verdict.keep
