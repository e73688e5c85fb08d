"""Each policy on situations that are easy to judge; the limits that all share; and that a no is
explained as well as a yes."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from retrain.config import compose, instantiate
from retrain.errors import ConfigError
from retrain.monitoring.forecast import (
    TRUNCATED,
    Forecast,
    _truncated_mean,
    fit_forecast,
    measure_forecast,
    plan_ahead,
)
from retrain.monitoring.gain import RetrainingGain
from retrain.monitoring.policies import (
    AllOf,
    Always,
    AnyOf,
    CostAware,
    Every,
    Never,
    OnDecay,
    OnDrift,
)
from retrain.monitoring.policy import Policy, PolicyContext, Score
from retrain.types import Decision

QUIET = PolicyContext(
    period="2013-06",
    newest=5,
    trained_through=2,
    new_rows=900,
    attempts=(0, 2),
    expected=0.5,
    drift={"features": 0.4, "target": 0.3},
)


def scores(
    *values: float, blocks: int = 10, baseline_loss: float = float("nan")
) -> tuple[Score, ...]:
    random = np.random.default_rng(0)
    return tuple(
        Score(
            f"b{number}",
            value,
            blocks=tuple(random.normal(value, 0.01, blocks)),
            baseline_loss=baseline_loss,
        )
        for number, value in enumerate(values)
    )


def changed(**values: object) -> PolicyContext:
    return dataclasses.replace(QUIET, **values)


CASES = {
    "always": (Always(), QUIET, True),
    "never": (Never(), QUIET, False),
    "every: not yet": (Every(4), QUIET, False),
    "every: now": (Every(3), QUIET, True),
    "drift: none": (OnDrift(), QUIET, False),
    "drift: of the target": (OnDrift(), changed(drift={"features": 0.4, "target": 0.02}), True),
    "drift: of a family that does not count": (
        OnDrift(["features"]),
        changed(drift={"features": 0.4, "target": 0.01}),
        False,
    ),
    "drift: shared between the families": (
        OnDrift(),
        changed(drift={"features": 0.03, "target": 0.9}),
        False,
    ),
    "drift: not known yet": (OnDrift(), changed(drift={"features": float("nan")}), False),
    "decay: none": (OnDecay(), changed(scores=scores(0.5, 0.51, 0.49)), False),
    "decay: one bad batch of three": (OnDecay(), changed(scores=scores(0.5, 0.5, 0.6)), False),
    "decay: two bad batches of three": (OnDecay(), changed(scores=scores(0.6, 0.5, 0.6)), True),
    "decay: not tried yet": (OnDecay(), QUIET, False),
    "decay: two batches that are hard for everybody": (
        OnDecay(),
        changed(scores=scores(0.6, 0.5, 0.6, baseline_loss=0.72), expected_baseline_loss=0.6),
        False,
    ),
    "decay: no worse than before, but on two easy batches": (
        OnDecay(),
        changed(scores=scores(0.5, 0.5, 0.5, baseline_loss=0.5), expected_baseline_loss=0.6),
        True,
    ),
    "decay: rows of one class only say nothing about how hard a batch is": (
        OnDecay(),
        changed(
            scores=scores(0.002, 0.002, 0.002, baseline_loss=2e-16),
            expected=0.05,
            expected_baseline_loss=0.1,
        ),
        False,
    ),
    "adwin: steady": (OnDecay("adwin"), changed(scores=scores(0.5, 0.5, 0.5)), False),
    "adwin: risen": (OnDecay("adwin"), changed(scores=scores(0.5, 0.5, 0.8, blocks=60)), True),
    "adwin: fallen": (OnDecay("adwin"), changed(scores=scores(0.8, 0.5, 0.5)), False),
    "page-hinkley: steady": (OnDecay("page_hinkley"), changed(scores=scores(0.5, 0.5, 0.5)), False),
    "page-hinkley: risen": (OnDecay("page_hinkley"), changed(scores=scores(0.5, 0.5, 0.8)), True),
    "cost: no retraining yet, cheap": (CostAware(0.01), QUIET, True),
    "cost: no retraining yet, dear": (CostAware(1.0), QUIET, False),
    "cost: nothing to judge by": (CostAware(0.01), changed(expected=None), False),
    "cost: cheap": (
        CostAware(0.02),
        changed(gains=(RetrainingGain(1, 1, 0.01), RetrainingGain(2, 1, 0.01))),
        True,
    ),
    "cost: dear": (
        CostAware(0.5),
        changed(gains=(RetrainingGain(1, 1, 0.01), RetrainingGain(2, 1, 0.01))),
        False,
    ),
    "cost: retraining brings nothing": (
        CostAware(0.05),
        changed(gains=(RetrainingGain(2, 1, -0.02),) * 20),
        False,
    ),
    "cost: nothing by then, but the champion has decayed": (
        CostAware(0.5),
        changed(gains=(RetrainingGain(2, 1, -0.02),) * 20, scores=scores(0.5, 0.6, 0.7)),
        True,
    ),
    "cost: it decayed before as well, and retraining brought nothing": (
        CostAware(0.5),
        changed(gains=(RetrainingGain(2, 1, -0.02, 0.1),) * 20, scores=scores(0.5, 0.6, 0.7)),
        False,
    ),
    "any": (AnyOf({"one": Never(), "other": Always()}), QUIET, True),
    "all": (AllOf({"one": Never(), "other": Always()}), QUIET, False),
    "cooldown": (Always(cooldown_batches=3), QUIET, False),
    "cooldown is over": (Always(cooldown_batches=2), QUIET, True),
    "maximum age": (Never(maximum_age_batches=3), QUIET, True),
    "not that old": (Never(maximum_age_batches=4), QUIET, False),
    "few rows": (Always(minimum_new_rows=901), QUIET, False),
    "budget spent": (Always(budget={"retrainings": 1, "batches": 4}), QUIET, False),
    "budget left": (Always(budget={"retrainings": 2, "batches": 4}), QUIET, True),
}


@pytest.mark.parametrize("name", CASES)
def test_decisions(name: str) -> None:
    policy, situation, expected = CASES[name]
    decision = policy.decide_within_limits(situation)
    assert decision.retrain is expected
    assert (
        len(decision.reason) > 20
        and decision.reason.endswith(".")
        and {"age_batches", "new_rows"} <= set(decision.figures)
    )


def test_the_cost_aware_cycle_is_the_cheapest_one() -> None:
    """Against the average cost a batch of every cycle length, with a loss that grows by 0.01 a
    batch of age."""
    ageing = 0.01
    for cost in (0.001, 0.01, 0.05, 0.2, 0.5):
        policy = CostAware(cost, horizon_batches=200)
        policy.forecast = lambda situation: Forecast(ageing, 0.0)
        cycle = next(
            age
            for age in range(1, 50)
            if policy.decide_within_limits(changed(trained_through=0, newest=age, gains=())).retrain
        )
        averages = {
            length: (cost + sum(ageing * age for age in range(length))) / length
            for length in range(1, 50)
        }
        assert averages[cycle] == pytest.approx(min(averages.values()))


def test_the_plan_is_the_cheapest_of_all() -> None:
    forecast, horizon = Forecast(staleness_rate=0.004, value_of_data=0.3, persistence=0.5), 6
    for known, come, decay, cost in itertools.product(
        (1, 3), (4, 5), (0.0, 0.1), (0.0, 0.01, 0.05, 0.2)
    ):
        totals: dict[bool, list[float]] = {True: [], False: []}
        for retrained in itertools.product((False, True), repeat=horizon):
            model, total = known, 0.0
            for step, retrains in enumerate(retrained):
                if retrains:
                    model, total = come + step, total + cost
                total += forecast.excess(model, come + step) + (
                    0.5 * decay if model == known else 0
                )
            totals[retrained[0]].append(total)
        keep, retrain = plan_ahead(forecast, known, come, decay, cost, horizon)
        assert (keep, retrain) == (
            pytest.approx(min(totals[False])),
            pytest.approx(min(totals[True])),
        )


def test_a_forecast_is_learnt_from_what_retrainings_brought() -> None:
    true = Forecast(staleness_rate=0.002, value_of_data=0.1, persistence=0.6)

    def gain(known: int, added: int, decay: float, noise: float = 0.0) -> RetrainingGain:
        brought = true.excess(known, known + added) - true.excess(known + added, known + added)
        return RetrainingGain(known, added, brought + true.persistence * decay + noise, decay)

    gains = [
        gain(*values) for values in itertools.product(range(1, 9), range(1, 4), (0.0, 0.02, 0.1))
    ]
    assert astuple(measure_forecast(gains)) == pytest.approx(astuple(true))
    prior = Forecast(0.003, 0.2, 0.5)
    assert astuple(fit_forecast(gains * 50, prior, prior, 0.01)) == pytest.approx(
        astuple(true), rel=0.02
    )
    strange = [
        RetrainingGain(3, -1, 0.4),
        RetrainingGain(2, 1, float("nan")),
        RetrainingGain(2, 1, 0.3, None),
    ]
    assert fit_forecast([*gains, *strange], prior, prior, 0.01) == fit_forecast(
        gains, prior, prior, 0.01
    )


def test_what_has_not_been_seen_yet_stays_possible() -> None:
    prior, noise = Forecast(0.01, 0.2, 0.5), 0.05
    assert astuple(fit_forecast([], prior, prior, noise)) == pytest.approx(astuple(prior), rel=1e-3)
    assert fit_forecast([], Forecast(0, 0, 0), prior, noise).staleness_rate > 0, (
        "a prior that was measured as zero is not certain"
    )
    ageing = [
        fit_forecast([RetrainingGain(9, 1, -0.1)] * count, prior, prior, noise).staleness_rate
        for count in (0, 1, 5, 20, 80, 320)
    ]
    assert ageing == sorted(ageing, reverse=True) and 0 < ageing[-1] < 0.001, (
        "the less the more has been seen"
    )
    brought = [
        fit_forecast([RetrainingGain(9, 1, value)] * 20, prior, prior, noise).staleness_rate
        for value in (0, 0.02, 0.1, 0.5, 5)
    ]
    assert brought == sorted(brought) and brought[-1] > 1, "the more the more a retraining brought"
    surprised = fit_forecast(
        [RetrainingGain(9, 1, 0.0)] * 20 + [RetrainingGain(9, 1, 1.0)], prior, prior, noise
    )
    steady = fit_forecast([RetrainingGain(9, 1, 0.0)] * 21, prior, prior, noise)
    assert surprised.staleness_rate > 2 * steady.staleness_rate, (
        "one retraining that brought much makes the next one likely to"
    )


def test_a_normal_value_that_is_not_negative() -> None:
    sampled = np.random.default_rng(0).normal(size=(400_000, 3)) * (1.0, 2.0, 0.5) + (
        1.0,
        -2.0,
        3.0,
    )
    means = [column[column > 0].mean() for column in sampled.T]
    assert _truncated_mean(np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 0.5])) == pytest.approx(
        means, rel=0.01
    )
    assert _truncated_mean(np.ones(1), np.ones(1)) == pytest.approx(TRUNCATED, rel=1e-4)
    assert 0 < _truncated_mean(np.array([-1e3]), np.array([1.0]))[0] < 0.0011


def test_a_champion_that_was_perfect_does_not_stop_the_policy() -> None:
    perfect = changed(expected=0.0, scores=scores(0.0, 0.0, 0.5, 0.5))
    decision = CostAware(0.01).decide_within_limits(perfect)
    assert decision.retrain and "nan" not in decision.reason
    assert (
        not CostAware(0.01)
        .decide_within_limits(changed(expected=0.0, scores=scores(0.0, 0.0)))
        .retrain
    )
    unknown = CostAware(0.01).decide_within_limits(changed(expected=None, scores=scores(0.5, 0.9)))
    assert (
        "how much worse the champion has become is not known" in unknown.reason
        and "decay" not in unknown.figures
    )


def test_decay_is_how_much_worse_than_at_its_promotion_a_champion_is() -> None:
    assert changed(scores=scores(0.5, 0.9, 0.6, 0.8), expected=0.6).decay == pytest.approx(
        (0 + 0.2) / 2
    )
    harder = changed(
        scores=scores(0.9, baseline_loss=0.9), expected=0.6, expected_baseline_loss=0.6
    )
    assert harder.decay == pytest.approx(0), "a batch that is hard for everybody"
    assert changed(scores=(), expected=0.6).decay is changed(expected=None).decay is None


def test_a_combination_says_what_each_part_said() -> None:
    decision = AnyOf({"slow": Every(9), "fast": Every(2)}).decide_within_limits(QUIET)
    assert "slow: no" in decision.reason and "fast: yes" in decision.reason
    assert decision.figures["slow batches_since"] == 3


def test_more_of_n_batches_than_there_are_can_not_be_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"policy\.k` is 3.*policy\.n`, 2"):
        OnDecay(k=3, n=2)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "conf/policy").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_policy_can_be_built_and_asked(path: Path) -> None:
    config = compose(REPOSITORY / "conf", [f"policy={path.stem}"])
    policy: Policy = instantiate(config.policy, "policy")
    assert policy.decide_within_limits(QUIET).reason


class SaysYes(Policy):
    def decide(self, context: PolicyContext) -> Decision:
        return True  # type: ignore[return-value]


def test_a_policy_that_returns_no_decision_is_named() -> None:
    with pytest.raises(ConfigError, match="policy SaysYes returns True") as error:
        SaysYes().decide_within_limits(QUIET)
    assert "Decision(" in error.value.hint
