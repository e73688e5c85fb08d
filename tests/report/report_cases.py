"""A retraining's results, made by hand: what the tests of reports start from."""

from __future__ import annotations

from dataclasses import replace

from retrain.gate.check import CheckResult
from retrain.gate.check import Outcome as Found
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.estimates import Estimate
from retrain.report.outcome import Outcome
from retrain.types import ChallengerRecord, DecisionRecord, ModelRecord, PromotionRecord

FIRST, SECOND = "2013-01-01T00:00:00", "2013-02-01T00:00:00"
SCORES = {
    model: {"log_loss": Estimate(value, 0.01, 9)}
    for model, value in (("challenger", 0.41), ("incumbent", 0.43), ("baseline", 0.5))
}
COMPARED = Comparison(
    1000,
    10,
    scores=SCORES,
    differences={
        name: {"log_loss": Estimate(-0.02, 0.005, 9)} for name in ("incumbent", "baseline")
    },
    verdict=Verdict.promote,
    reason="All checks passed.",
    checks={"slices": CheckResult(Found.passed, "none is worse")},
)
OUTCOME = Outcome(
    DecisionRecord(
        True, "New rows.", policy="Always", snapshot="s", newest_batch="2013-02", new_rows=9
    ),
    ChallengerRecord(
        True,
        "New rows.",
        "s",
        "2013-02",
        ModelRecord(3, FIRST, SECOND, ["2013-01"]),
        ModelRecord(2, FIRST, FIRST),
        "run",
        evaluation_start=FIRST,
        evaluation_end=SECOND,
    ),
    COMPARED,
    PromotionRecord("promote", True, 4, 2, 1),
)


def refused(outcome: Outcome, verdict: Verdict = Verdict.keep) -> Outcome:
    failed = {"slices": CheckResult(Found.failed, "worse on two")}
    return replace(
        outcome,
        compared=replace(outcome.compared, verdict=verdict, checks=failed),
        promotion=PromotionRecord(verdict.value, False, 2, None, 1),
    )
