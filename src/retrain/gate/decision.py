"""Whether a challenger may serve: the configured checks, one verdict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrain.config import Config, DataConfig, GateConfig, Task, build
from retrain.errors import ConfigError, PromotionError
from retrain.gate.check import Check, CheckResult, Outcome
from retrain.gate.comparison import Comparison, NotEnoughRows, Verdict
from retrain.gate.slices import sliced_columns, table_columns
from retrain.models.metrics import SHOWN, find_metric, fits_task
from retrain.renamed import with_original_names

# Names of the check without which nothing is promoted; the second one only for a first champion.
PRIMARY = ("primary", "baseline")


@dataclass(frozen=True)
class CheckSpec:
    """A check of the gate, whether it stops a promotion or only warns, and whether it may be left
    out where its metric says nothing about the task."""

    check: Check
    blocks: bool = True
    skip_if_unfit: bool = False


def build_checks(
    gate: GateConfig, has_incumbent: bool, data: DataConfig | None = None
) -> dict[str, CheckSpec]:
    """The questions for this comparison, the primary one first, without those that are off.

    Raises ConfigError when the primary check is missing, off or only warns: nothing could be
    promoted by right. With `data` also for metrics that say nothing about its task, and for slices
    that its columns don't allow.
    """
    group, nodes = (
        ("checks", gate.checks) if has_incumbent else ("first_champion", gate.first_champion)
    )
    specs = {}
    for name, node in (nodes or {}).items():
        question = _build(node, f"gate.{group}.{name}")
        if question is not None:
            specs[name] = question
    primary = _require_primary(specs, group)
    specs = {primary: specs[primary]} | specs
    if data is not None:
        for name, question in specs.items():
            _check_fit(question, data.task, f"gate.{group}.{name}", may_skip=name != primary)
            _check_columns(question.check, data, f"gate.{group}.{name}")
    return specs


def primary_check(specs: Mapping[str, CheckSpec]) -> str | None:
    """Name of the check without which nothing is promoted: `primary`, or for a first champion
    `baseline`."""
    return next((name for name in PRIMARY if name in specs), None)


def gate_digest(config: Config, has_incumbent: bool) -> str:
    """16 hex digits that stand for all that makes a verdict of predictions: the same ones under
    another gate are a new look."""
    nodes = config.gate.checks if has_incumbent else config.gate.first_champion
    asked = {name: node for name, node in nodes.items() if _on_failure(node, name) != "off"}
    data, block = config.data, config.evaluation.block_hours
    content = [
        with_original_names(asked, "gate.checks"),
        data.metric,
        data.task.name,
        sliced_columns(data),
        block,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


def _require_primary(specs: Mapping[str, CheckSpec], group: str) -> str:
    names = PRIMARY if group == "first_champion" else PRIMARY[:1]
    found = next((name for name in names if name in specs), None)
    if found is None:
        others = f" (there is: {', '.join(specs)})" if specs else ""
        raise ConfigError(
            f"`gate.{group}` has no check named `{'` or `'.join(names)}` that is on{others}, and "
            "without it nothing can be promoted.",
            hint="give the check that has to pass that name, in conf/gate/",
        )
    if not specs[found].check.compares:
        raise ConfigError(
            f"`gate.{group}.{found}` is a {type(specs[found].check).__name__}, which compares the "
            "challenger with nothing: a worse model would pass it.",
            hint="choose NonInferiority, Superiority or BeatsBaseline, or a check of your own with "
            "`compares = True`",
        )
    if not specs[found].blocks:
        raise ConfigError(
            f"`gate.{group}.{found}.on_failure` is warn, but the primary check has to block: "
            "otherwise a worse model would be promoted.",
            hint="remove the line, or give the check a wider margin, in conf/gate/",
        )
    return found


def _build(node: Any, key: str) -> CheckSpec | None:
    """None for a check that is off."""
    action = _on_failure(node, key)
    if action == "off":
        return None
    skip = node.get("skip_if_unfit", False)
    if not isinstance(skip, bool):
        raise ConfigError(f"`{key}.skip_if_unfit` is {skip!r}, but must be true or false.")
    arguments = {
        name: value for name, value in node.items() if name not in ("on_failure", "skip_if_unfit")
    }
    return CheckSpec(build(Check, arguments, key), action == "block", skip)


def _on_failure(node: Any, key: str) -> str:
    if not isinstance(node, Mapping):
        raise ConfigError(f"`{key}` must name a check with `_target_`, but is {node!r}.")
    action = node.get("on_failure", "block")
    action = "off" if action is False else action  # YAML reads a bare `off` as false
    if action not in ("block", "warn", "off"):
        raise ConfigError(f"`{key}.on_failure` is {action!r}, but must be block, warn or off.")
    return action


def _unfit(check: Check, task: Task) -> str | None:
    """The metric of a check that says nothing about the task, None if there is none."""
    for metric in (check.metric, check.loss):
        if metric is not None and not fits_task(metric, task):
            return metric
    return None


def _check_fit(question: CheckSpec, task: Task, key: str, may_skip: bool) -> None:
    """Raises ConfigError for a metric that nobody knows, or that says nothing about the task and
    may not be skipped."""
    if question.check.metric is not None:
        find_metric(question.check.metric, task)
    metric = _unfit(question.check, task)
    if metric is None or (question.skip_if_unfit and may_skip):
        return
    way_out = (
        ", or write `skip_if_unfit: true` beside it, if it may be left out where it does not fit"
        if may_skip
        else ""
    )
    raise ConfigError(
        f"`{key}` asks for {metric}, which says nothing about {task.name} (`data.task`).",
        hint=f"choose one of {', '.join(SHOWN[task])}, or a scorer of scikit-learn{way_out}",
    )


def _check_columns(check: Check, data: DataConfig, key: str) -> None:
    """Raises ConfigError, with the key, where a check asks for columns that the data don't have."""
    try:
        check.columns_among(table_columns(data))
    except ConfigError as error:
        raise ConfigError(f"`{key}`: {error.message}", hint=error.hint) from error


def decide(comparison: Comparison, specs: Mapping[str, CheckSpec]) -> Comparison:
    """The comparison with the gate's verdict: every question is asked.

    The primary check must pass, all others that block must pass or not apply; where the rows can't
    answer one, the others don't count. Raises PromotionError without a primary check that blocks.
    """
    primary = primary_check(specs)
    if primary is None or not specs[primary].blocks:
        raise PromotionError(
            "The gate has no primary check that blocks, so nothing can be promoted.",
            hint="mend it in conf/gate/",
        )
    if comparison.identical:
        reason = (
            "The challenger predicts exactly what the incumbent predicts, so there is nothing to "
            "promote."
        )
        return dataclasses.replace(comparison, verdict=Verdict.keep, reason=reason)
    results = {name: _ask(spec, comparison) for name, spec in specs.items()}
    verdict, reason = _conclude(results, primary)
    return dataclasses.replace(comparison, verdict=verdict, reason=reason, checks=results)


def _conclude(results: Mapping[str, CheckResult], primary: str) -> tuple[Verdict, str]:
    for outcome, verdict in (
        (Outcome.insufficient, Verdict.insufficient_evidence),
        (Outcome.failed, Verdict.keep),
    ):
        reasons = [
            f"{name} ({result.reason})"
            for name, result in results.items()
            if result.outcome is outcome and result.blocks
        ]
        if reasons:
            return verdict, f"Not passed: {'; '.join(reasons)}."
    if results[primary].outcome is not Outcome.passed:
        reason = (
            f"The primary check gave no answer, so nothing is promoted: {primary} "
            f"({results[primary].reason})."
        )
        return Verdict.keep, reason
    return Verdict.promote, _explain(results)


def _explain(results: Mapping[str, CheckResult]) -> str:
    """Why a challenger is promoted, with all that a reader should still know."""
    passed = [name for name, result in results.items() if result.outcome is Outcome.passed]
    left = [name for name, result in results.items() if result.outcome is Outcome.not_applicable]
    failed = {
        name: result
        for name, result in results.items()
        if result.outcome in (Outcome.failed, Outcome.insufficient)
    }
    warnings = [f"{name} ({result.reason})" for name, result in failed.items()]
    warnings += [f"{name} ({result.warning})" for name, result in results.items() if result.warning]
    reason = (
        f"Passed: {', '.join(passed)}."
        if failed
        else f"All {len(passed)} checks passed: {', '.join(passed)}."
    )
    reason += f" Warning: {'; '.join(warnings)}." if warnings else ""
    return reason + (f" Not applicable: {', '.join(left)}." if left else "")


def _ask(spec: CheckSpec, comparison: Comparison) -> CheckResult:
    metric = _unfit(spec.check, comparison.task)
    if metric is not None:  # config refuses one that may not be skipped; else it fails here
        outcome = Outcome.not_applicable if spec.skip_if_unfit else Outcome.failed
        result = CheckResult(outcome, f"{metric} says nothing about {comparison.task.name}")
    else:
        try:
            result = spec.check.evaluate(comparison)
        except NotEnoughRows as error:
            result = CheckResult(Outcome.insufficient, str(error))
        if not isinstance(result, CheckResult):
            raise ConfigError(
                f"`evaluate` of the check {type(spec.check).__name__} returns {result!r}.",
                hint='return a retrain.CheckResult, such as CheckResult(Outcome.passed, "why")',
            )
    figures = {name: float(value) for name, value in result.figures.items()}
    return dataclasses.replace(result, figures=figures, blocks=spec.blocks)
