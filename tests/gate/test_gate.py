"""From figures to a verdict, and the ways in which nothing may be promoted."""

from __future__ import annotations

import dataclasses
import math

import polars as pl
import pytest
from conftest import REPOSITORY

from retrain.config import Config, GateConfig, compose
from retrain.errors import ConfigError, PromotionError
from retrain.gate.check import Check, CheckResult, Outcome
from retrain.gate.checks import EnoughEvidence, MetricLimit, NonInferiority
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import CheckSpec, build_checks, decide, gate_digest
from retrain.gate.estimates import BLOCK, TARGET, Estimate, score_column

METRICS = ("log_loss", "roc_auc", "brier", "calibration_error")


def comparison(
    difference: float = 0.0,
    error: float = 0.001,
    rows: int = 5000,
    blocks: int = 10,
    auc: float = 0.0,
    baseline: float = -0.05,
) -> Comparison:
    """The challenger is worse by `difference` in log loss than the incumbent, and better by `auc`
    in AUC."""
    differences = {
        other: dict.fromkeys(METRICS, Estimate(0.0, error, blocks - 1))
        for other in ("incumbent", "baseline")
    }
    differences["incumbent"]["log_loss"] = Estimate(difference, error, blocks - 1)
    differences["baseline"]["log_loss"] = Estimate(baseline, error, blocks - 1)
    differences["incumbent"]["roc_auc"] = Estimate(auc, error, blocks - 1)
    scores = {
        model: dict.fromkeys(METRICS, Estimate(0.5, error, blocks - 1))
        for model in ("challenger", "incumbent", "baseline")
    }
    scores["baseline"]["log_loss"] = Estimate(0.55, error, blocks - 1)
    scores["challenger"]["calibration_error"] = Estimate(0.02, error, blocks - 1)
    return Comparison(
        rows,
        blocks,
        0.2,
        scores,
        differences,
        identical=False,
        facts={"latency_one_row_ms": 5.0, "model_megabytes": 1.0},
        classes=["0", "1"],
        rows_judged=pl.DataFrame({TARGET: [0, 1] * 50, BLOCK: 0, score_column("challenger"): 0.2}),
    )


def shipped(name: str, has_incumbent: bool = True) -> dict:
    return build_checks(compose(REPOSITORY / "conf", [f"gate={name}"]).gate, has_incumbent)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (-0.01, Verdict.promote),
        (0.0, Verdict.promote),
        (0.02, Verdict.promote),
        (0.0245, Verdict.keep),
        (0.03, Verdict.keep),
    ],
)
def test_non_inferiority_lets_pass_what_is_at_most_a_margin_worse(
    difference: float, verdict: Verdict
) -> None:
    assert decide(comparison(difference), shipped("non_inferiority")).verdict is verdict


def test_non_inferiority_keeps_what_it_can_not_be_sure_of() -> None:
    decision = decide(comparison(0.0, error=0.02), shipped("non_inferiority"))
    assert decision.verdict is Verdict.keep and "primary" in decision.reason


def test_a_worse_ranking_is_kept_even_if_the_loss_is_fine() -> None:
    decision = decide(comparison(-0.01, auc=-0.05), shipped("non_inferiority"))
    assert (
        decision.verdict is Verdict.keep
        and "ranking" in decision.reason
        and "primary" not in decision.reason
    )


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(-0.01, Verdict.promote), (-0.001, Verdict.keep), (0.0, Verdict.keep)],
)
def test_superiority_wants_proof(difference: float, verdict: Verdict) -> None:
    assert decide(comparison(difference), shipped("superiority")).verdict is verdict


@pytest.mark.parametrize(("rows", "blocks"), [(39, 10), (5000, 4)])
def test_too_little_evidence_is_said_whatever_the_figures(rows: int, blocks: int) -> None:
    for difference in (-0.1, 0.1):
        assert (
            decide(
                comparison(difference, rows=rows, blocks=blocks), shipped("non_inferiority")
            ).verdict
            is Verdict.insufficient_evidence
        )


@pytest.mark.parametrize(
    ("rows", "error", "verdict"),
    [(472, 0.001, Verdict.promote), (100, 0.002, Verdict.promote), (472, 0.03, Verdict.keep)],
)
def test_what_rows_can_tell_is_in_the_interval_not_in_their_number(
    rows: int, error: float, verdict: Verdict
) -> None:
    assert (
        decide(comparison(0.0, error=error, rows=rows), shipped("non_inferiority")).verdict
        is verdict
    )


def test_a_challenger_may_be_as_badly_calibrated_as_the_champion_but_not_proven_worse() -> None:
    both = comparison(-0.01)
    for model in ("challenger", "incumbent"):
        both.scores[model]["calibration_error"] = Estimate(0.3, 0.01, 9)
    both.differences["incumbent"]["calibration_error"] = Estimate(-0.02, 0.01, 9)
    assert decide(both, shipped("non_inferiority")).verdict is Verdict.promote
    both.differences["incumbent"]["calibration_error"] = Estimate(0.1, 0.01, 9)
    decision = decide(both, shipped("non_inferiority"))
    assert decision.verdict is Verdict.keep and "calibration" in decision.reason


@pytest.mark.parametrize(("difference", "verdict"), [(-0.01, Verdict.promote), (0.0, Verdict.keep)])
def test_the_first_champion_must_beat_the_baseline(difference: float, verdict: Verdict) -> None:
    found = comparison(baseline=difference)
    assert decide(found, shipped("non_inferiority", has_incumbent=False)).verdict is verdict


@pytest.mark.parametrize("has_incumbent", [True, False])
def test_a_gate_without_checks_lets_nothing_through(has_incumbent: bool) -> None:
    with pytest.raises(ConfigError, match="no check named `primary`"):
        build_checks(GateConfig(checks={}, first_champion={}), has_incumbent)


def with_action(action: object, name: str = "ranking") -> GateConfig:
    gate = compose(REPOSITORY / "conf").gate
    gate.checks[name]["on_failure"] = action
    return gate


def test_a_check_that_warns_does_not_stop_a_promotion_but_is_said() -> None:
    decision = decide(comparison(-0.01, auc=-0.05), build_checks(with_action("warn"), True))
    assert decision.verdict is Verdict.promote and "Warning: ranking (roc_auc" in decision.reason


@pytest.mark.parametrize("off", ["off", False])
def test_a_check_that_is_off_is_not_asked(off: object) -> None:
    """YAML reads a bare `off` as false."""
    decision = decide(comparison(-0.01, auc=-0.05), build_checks(with_action(off), True))
    assert decision.verdict is Verdict.promote and "ranking" not in decision.checks


def test_an_action_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be block, warn or off"):
        build_checks(with_action("ignore"), True)


@pytest.mark.parametrize(
    ("action", "words"), [("off", "no check named `primary`"), ("warn", "has to block")]
)
def test_the_primary_check_can_not_be_switched_off_or_only_warn(action: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_checks(with_action(action, "primary"), True)
    gate = compose(REPOSITORY / "conf").gate
    gate.first_champion["baseline"]["on_failure"] = action
    with pytest.raises(ConfigError, match=words.replace("`primary`", "`primary` or `baseline`")):
        build_checks(gate, False)


def test_a_gate_without_a_primary_check_is_refused_whatever_else_it_asks() -> None:
    gate = compose(REPOSITORY / "conf").gate
    del gate.checks["primary"]
    with pytest.raises(ConfigError, match=r"no check named `primary`.*there is: .*slices"):
        build_checks(gate, True)
    with pytest.raises(PromotionError, match="no primary check"):
        decide(comparison(), {"evidence": CheckSpec(EnoughEvidence(500, 5))})


REGRESSION = ["data.task=regression", "data.metric=rmse"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["gate.checks.primary.metric=rmse"], "checks.primary` asks for rmse.*about binary"),
        (["gate.first_champion.baseline.metric=rmse"], "first_champion.baseline` asks for rmse"),
        (["gate.checks.slices.metric=mae"], "checks.slices` asks for mae"),
        (["gate.checks.forgetting.metric=pinball_0.9"], "checks.forgetting` asks for pinball_0.9"),
        (["gate.checks.primary.metric=neg_mean_squared_error"], "asks for neg_mean_squared_error"),
        (
            ["gate.checks.primary.metric=f1", "data.task=multiclass"],
            "asks for f1, which says nothing about multiclass",
        ),
        (
            [
                *REGRESSION,
                "gate.checks.primary.metric=roc_auc",
                "+gate.checks.primary.skip_if_unfit=true",
            ],
            "primary",
        ),
        (
            [*REGRESSION, "gate.checks.ranking.skip_if_unfit=false"],
            "(?s)ranking` asks for roc_auc.*skip_if_unfit",
        ),
        (
            [
                *REGRESSION,
                "gate.checks.ranking.metric=average_precision",
                "~gate.checks.ranking.skip_if_unfit",
            ],
            "ranking",
        ),
        (["gate.checks.primary.metric=nonsense"], "nonsense"),
        (["gate.checks.ranking.skip_if_unfit=sometimes"], "must be true or false"),
    ],
)
def test_a_metric_that_says_nothing_about_the_task_is_refused_with_the_config(
    overrides: list[str], words: str
) -> None:
    config = compose(REPOSITORY / "conf", overrides)
    with pytest.raises(ConfigError, match=words):
        for has_incumbent in (True, False):
            build_checks(config.gate, has_incumbent, config.data)


@pytest.mark.parametrize(
    "overrides", [REGRESSION, ["data.task=multiclass"], ["gate.checks.primary.metric=f1"], []]
)
def test_the_shipped_gate_fits_every_task(overrides: list[str]) -> None:
    config = compose(REPOSITORY / "conf", overrides)
    for has_incumbent in (True, False):
        assert build_checks(config.gate, has_incumbent, config.data)


def test_nothing_is_promoted_whose_primary_check_gave_no_answer() -> None:
    """However it got past the config: 49 times worse, and judged by a metric of another task."""
    unfit = NonInferiority("rmse", 0.05, "relative", 0.95)
    for skip in (True, False):
        decision = decide(
            comparison(),
            {"primary": CheckSpec(unfit, True, skip), "evidence": CheckSpec(EnoughEvidence(1, 1))},
        )
        assert (
            decision.verdict is Verdict.keep and "rmse says nothing about binary" in decision.reason
        )


def test_the_primary_question_is_asked_first() -> None:
    assert next(iter(shipped("superiority"))) == "primary"


def test_a_second_look_at_the_same_rows_needs_more_proof_and_says_so() -> None:
    gain = comparison(-0.0025)
    assert decide(gain, shipped("superiority")).verdict is Verdict.promote
    again = decide(dataclasses.replace(gain, look=2), shipped("superiority"))
    assert (
        again.verdict is Verdict.keep
        and "with 99.5 % confidence (look 2 at these rows)" in again.reason
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_figure_that_is_not_a_number_passes_nothing(bad: float) -> None:
    broken = comparison()
    broken.differences["incumbent"]["log_loss"] = Estimate(bad, 0.001, 9)
    decision = decide(broken, shipped("non_inferiority"))
    assert decision.verdict is Verdict.insufficient_evidence and "not a number" in decision.reason


def test_a_limit_is_absolute_and_runs_the_way_of_its_metric() -> None:
    assert MetricLimit("calibration_error", 0.02).evaluate(comparison()).outcome is Outcome.passed
    assert MetricLimit("calibration_error", 0.019).evaluate(comparison()).outcome is Outcome.failed
    assert MetricLimit("roc_auc", 0.5).evaluate(comparison()).outcome is Outcome.passed
    assert MetricLimit("roc_auc", 0.6).evaluate(comparison()).outcome is Outcome.failed


def test_a_margin_may_be_relative_to_the_incumbent() -> None:
    relative = NonInferiority("log_loss", 0.02, "relative", 0.95).evaluate(comparison())
    assert relative.figures["margin"] == pytest.approx(0.01)
    assert relative.figures["bound"] == pytest.approx(
        0.001 * 1.9726, rel=1e-3
    )  # t of 9 degrees of freedom, 96 %


def test_a_relative_margin_of_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"share of at most 0\.5"):
        NonInferiority("log_loss", 5, "relative", 0.95)
    NonInferiority("rmse", 5, "absolute", 0.95)


def test_enough_evidence_states_its_figures() -> None:
    result = EnoughEvidence(500, 5).evaluate(comparison())
    assert result.reason == "5,000 evaluation rows in 10 blocks, enough (at least 500 in 5)"


def test_a_gate_is_the_same_one_while_nothing_that_makes_its_verdict_changes() -> None:
    def digest(*overrides: str) -> str:
        return gate_digest(compose(REPOSITORY / "conf", list(overrides)), True)

    same = {digest(), digest("gate.approval=required", "gate.refit=false", "policy=never")}
    others = {
        "gate=superiority",
        "gate.checks.primary.margin=0.06",
        "evaluation.block_hours=12",
        "data.metric=brier",
    }
    assert len(same) == 1 and len(same | {digest(override) for override in others}) == 5
    assert digest("gate.checks.churn.on_failure=off") == digest("~gate.checks.churn")


def test_the_primary_check_has_to_compare(config: Config) -> None:
    evidence = {
        "_target_": "retrain.gate.checks.EnoughEvidence",
        "minimum_rows": 1,
        "minimum_blocks": 1,
    }
    gate = dataclasses.replace(config.gate, checks=config.gate.checks | {"primary": evidence})
    with pytest.raises(ConfigError, match="compares the challenger with nothing"):
        build_checks(gate, True, config.data)


def test_a_check_with_the_old_name_of_its_method_is_asked_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class OfEarlierDays(Check):
        def judge(self, comparison: Comparison) -> CheckResult:
            return CheckResult(Outcome.passed, f"{comparison.rows} rows")

    assert OfEarlierDays().evaluate(comparison(rows=7)).reason == "7 rows"
    assert "`OfEarlierDays.judge` is called `OfEarlierDays.evaluate` now" in caplog.text


class SaysYes(Check):
    def evaluate(self, comparison: Comparison) -> CheckResult:
        return True  # type: ignore[return-value]


def test_a_check_that_returns_no_result_is_named() -> None:
    checks = shipped("non_inferiority") | {"own": CheckSpec(SaysYes(), blocks=True)}
    with pytest.raises(ConfigError, match="check SaysYes returns True") as error:
        decide(comparison(), checks)
    assert "CheckResult(" in error.value.hint
