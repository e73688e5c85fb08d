"""Whether a challenger may serve: the configured checks, one verdict."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrain.config import GateConfig, instantiate
from retrain.errors import ConfigError, PromotionError
from retrain.modeling.metrics import fits_task
from retrain.promotion.checks import Check, CheckResult, Outcome
from retrain.promotion.figures import Comparison, NotEnoughRows


class Verdict(enum.Enum):
    """What the gate says. Only `promote` moves the champion."""

    promote = "promote"
    keep = "keep"
    insufficient_evidence = "insufficient_evidence"


@dataclass(frozen=True)
class Question:
    """A check of the gate, and whether it stops a promotion or only warns."""

    check: Check
    blocks: bool = True


@dataclass(frozen=True)
class Judgement:
    """The verdict, its reason as a sentence, and the result of every check by name."""

    verdict: Verdict
    reason: str
    checks: dict[str, CheckResult]


def build_questions(gate: GateConfig, has_incumbent: bool) -> dict[str, Question]:
    """The questions for this comparison, without those that are off.

    Raises PromotionError when none could stop a promotion: an empty gate lets nothing through.
    """
    group, nodes = ("checks", gate.checks) if has_incumbent else ("first_champion", gate.first_champion)
    questions = {}
    for name, node in sorted((nodes or {}).items(), key=lambda item: item[0] != "primary"):
        action = _on_failure(node, f"gate.{group}.{name}")
        if action != "off":
            arguments = {key: value for key, value in node.items() if key != "on_failure"}
            questions[name] = Question(instantiate(arguments, f"gate.{group}.{name}"), action == "block")
    if not any(question.blocks for question in questions.values()):
        raise PromotionError(
            f"`gate.{group}` has no check that blocks, so nothing can be promoted. Configure at least one in conf/gate/."
        )
    return questions


def _on_failure(node: Any, key: str) -> str:
    if not isinstance(node, Mapping):
        raise ConfigError(f"`{key}` must name a check with `_target_`, but is {node!r}.")
    action = node.get("on_failure", "block")
    action = "off" if action is False else action  # YAML reads a bare `off` as false
    if action not in ("block", "warn", "off"):
        raise ConfigError(f"`{key}.on_failure` is {action!r}, but must be block, warn or off.")
    return action


def judge(comparison: Comparison, questions: Mapping[str, Question]) -> Judgement:
    """Ask every question. All that block must pass or not apply; where the rows can't answer one, the others don't count."""
    if comparison.identical:
        reason = "The challenger predicts exactly what the incumbent predicts, so there is nothing to promote."
        return Judgement(Verdict.keep, reason, {})
    results = {name: _ask(question.check, comparison) for name, question in questions.items()}
    for outcome, verdict in ((Outcome.insufficient, Verdict.insufficient_evidence), (Outcome.failed, Verdict.keep)):
        reasons = [
            f"{name} ({result.reason})"
            for name, result in results.items()
            if result.outcome is outcome and questions[name].blocks
        ]
        if reasons:
            return Judgement(verdict, f"Not passed: {'; '.join(reasons)}.", results)
    passed = [name for name, result in results.items() if result.outcome is Outcome.passed]
    if not any(questions[name].blocks for name in passed):
        raise PromotionError("No check of the gate that blocks gave a clear answer, so nothing is promoted.")
    warned = [name for name, result in results.items() if result.outcome in (Outcome.failed, Outcome.insufficient)]
    left = [name for name, result in results.items() if result.outcome is Outcome.not_applicable]
    reason = f"All {len(passed)} checks passed: {', '.join(passed)}." if not warned else f"Passed: {', '.join(passed)}."
    reason += f" Warning: {'; '.join(f'{name} ({results[name].reason})' for name in warned)}." if warned else ""
    reason += f" Not applicable: {', '.join(left)}." if left else ""
    return Judgement(Verdict.promote, reason, results)


def _ask(check: Check, comparison: Comparison) -> CheckResult:
    if check.metric is not None and not fits_task(check.metric, comparison.task):
        return CheckResult(Outcome.not_applicable, f"{check.metric} says nothing about {comparison.task.name}")
    try:
        return check.judge(comparison)
    except NotEnoughRows as error:
        return CheckResult(Outcome.insufficient, str(error))
