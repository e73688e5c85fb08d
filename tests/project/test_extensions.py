"""What to test of extensions of one's own: what each decides, and that it can be chosen."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import REPOSITORY

from project.extensions import CostOfAlarms, InMonths, NewEnough, SameSeason
from retrain import Check, Outcome, Policy, PolicyContext, Strategy
from retrain.config import build, compose


@pytest.mark.parametrize(("period", "wanted"), [("2013-10", True), ("2013-11", False)])
def test_the_policy_retrains_in_its_months_only(period: str, wanted: bool) -> None:
    context = PolicyContext(period=period, newest=9, trained_through=8, new_rows=100)
    assert InMonths(months=[10]).decide(context).retrain is wanted


def test_the_strategy_takes_the_newest_batches_and_those_of_the_season() -> None:
    months = [f"{year}-{month:02}" for year in (2012, 2013) for month in range(1, 13)]
    chosen = SameSeason(recent=2, cycle=12).select(months)
    assert chosen == ["2012-11", "2012-12", "2013-11", "2013-12"]


@pytest.mark.parametrize(
    ("unseen", "outcome"), [(0.6, Outcome.passed), (0.4, Outcome.insufficient)]
)
def test_the_check_waits_for_new_rows(unseen: float, outcome: Outcome) -> None:
    from retrain import Comparison

    comparison = Comparison(1000, 10, 0.2, {}, {}, False, unseen=unseen)
    assert NewEnough(minimum_share=0.5).evaluate(comparison).outcome is outcome


def test_the_metric_is_the_mean_cost_of_the_cheaper_decision() -> None:
    late, probability = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.9, 0.1])
    assert CostOfAlarms().rows(late, probability) == pytest.approx([0, 5, 1, 0])
    assert CostOfAlarms().value(late, probability) == pytest.approx(1.5)


def test_each_can_be_chosen_in_conf() -> None:
    config = compose(
        REPOSITORY / "conf",
        [
            "data=flights",
            "policy=in_months",
            "strategy=same_season",
            "gate=own_check",
            "data.metric=project.extensions.CostOfAlarms",
        ],
    )
    assert isinstance(build(Policy, config.policy, "policy"), Policy)
    assert isinstance(build(Strategy, config.strategy, "strategy"), Strategy)
    assert isinstance(build(Check, config.gate.checks["new_rows"], "gate.checks"), Check)
    assert config.data.metric == "project.extensions.CostOfAlarms"
