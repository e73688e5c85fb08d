"""Names of earlier versions. Read for one version more, with a warning that says what to write now.

`TARGETS` maps what a `_target_` or a list of trusted types may still say. A prefix ends with a dot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

TARGETS = {
    "retrain.data.flights.": "project.source.",
    "retrain.modeling.": "retrain.models.",
    "retrain.promotion.checks.Limit": "retrain.gate.checks.MetricLimit",
    "retrain.promotion.guardrails.Deterioration": "retrain.gate.guardrails.NoProvenHarm",
    "retrain.promotion.guardrails.Floor": "retrain.gate.guardrails.BaselineFloor",
    "retrain.promotion.guardrails.Budget": "retrain.gate.guardrails.ResourceLimit",
    "retrain.promotion.": "retrain.gate.",
}
log = logging.getLogger("retrain")


def current_name(name: str) -> str:
    """What a class or function is called now; the name itself where it was not renamed."""
    for old, new in TARGETS.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name[len(old) :]
    return name


def original_name(name: str) -> str:
    """What a class or function was called first: digests of recipes stay what they were."""
    for old, new in TARGETS.items():
        if name == new or (new.endswith(".") and name.startswith(new)):
            return old + name[len(new) :]
    return name


def all_names(names: Iterable[str]) -> list[str]:
    """Types that a model file may hold, under every name that they have had: stored models keep the old ones."""
    return list(
        dict.fromkeys(
            each
            for name in names
            for each in (current_name(name), original_name(current_name(name)))
        )
    )


def with_current_targets(content: Any) -> Any:
    """A resolved configuration with today's names of classes. Warns of those that are older ones."""
    found: dict[str, str] = {}

    def visit(node: Any, key: str = "") -> Any:
        if isinstance(node, Mapping):
            return {name: visit(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [visit(value, key) for value in node]
        if not isinstance(node, str) or key not in ("_target_", "path"):
            return node
        now = current_name(node)
        if now != node:
            found[node] = now
        return now

    visited = visit(content)
    for old, new in found.items():
        log.warning(
            "`%s` in conf/ is called `%s` now. Write that: the old name goes with the next version.",
            old,
            new,
        )
    return visited


def with_original_targets(content: Any) -> Any:
    """Plain configuration as earlier versions would have written it."""
    if isinstance(content, Mapping):
        return {
            key: original_name(value)
            if key == "_target_" and isinstance(value, str)
            else with_original_targets(value)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [with_original_targets(value) for value in content]
    return content
