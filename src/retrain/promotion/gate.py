"""Whether a challenger may serve: the configured checks, one verdict."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from retrain.config import GateConfig, instantiate
from retrain.errors import PromotionError
from retrain.promotion.checks import Check, CheckResult, Outcome
from retrain.promotion.figures import Comparison, NotEnoughRows


class Verdict(enum.Enum):
    """What the gate says. Only `promote` moves the champion."""

    promote = "promote"
    keep = "keep"
    insufficient_evidence = "insufficient_evidence"


@dataclass(frozen=True)
class Judgement:
    """The verdict, its reason as a sentence, and the result of every check by name."""

    verdict: Verdict
    reason: str
    checks: dict[str, CheckResult]


def build_checks(gate: GateConfig, has_incumbent: bool) -> dict[str, Check]:
    """The checks for this comparison. Raises PromotionError when there are none: an empty gate lets nothing through."""
    group, nodes = ("checks", gate.checks) if has_incumbent else ("first_champion", gate.first_champion)
    if not nodes:
        raise PromotionError(
            f"`gate.{group}` is empty, so nothing can be promoted. Configure at least one check in conf/gate/."
        )
    return {name: instantiate(node, f"gate.{group}.{name}") for name, node in nodes.items()}


def judge(comparison: Comparison, checks: Mapping[str, Check]) -> Judgement:
    """Ask every check. All must pass; where the rows can't answer one, the others don't count."""
    if comparison.identical:
        reason = "The challenger predicts exactly what the incumbent predicts, so there is nothing to promote."
        return Judgement(Verdict.keep, reason, {})
    results = {name: _ask(check, comparison) for name, check in checks.items()}
    for outcome, verdict in ((Outcome.insufficient, Verdict.insufficient_evidence), (Outcome.failed, Verdict.keep)):
        reasons = [f"{name} ({result.reason})" for name, result in results.items() if result.outcome is outcome]
        if reasons:
            return Judgement(verdict, f"Not passed: {'; '.join(reasons)}.", results)
    if not all(result.outcome is Outcome.passed for result in results.values()):
        raise PromotionError("A check gave no clear answer, so nothing is promoted.")
    return Judgement(Verdict.promote, f"All {len(results)} checks passed: {', '.join(results)}.", results)


def _ask(check: Check, comparison: Comparison) -> CheckResult:
    try:
        return check.judge(comparison)
    except NotEnoughRows as error:
        return CheckResult(Outcome.insufficient, str(error))
