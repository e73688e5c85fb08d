"""Which combinations a backtest lives through."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain.backtest.outcome import Plan
from retrain.backtest.replay import ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE
from retrain.config import Config, compose, parse_overrides, swept_values
from retrain.errors import ConfigError

AXES = {"policy": "policies", "strategy": "strategies", "gate": "gates"}
BASELINE_POLICY = "always"
NEVER_ASKED = "never asked"


@dataclass(frozen=True)
class Grid:
    """Names along each axis, and the overrides that hold for all."""

    policies: list[str]
    strategies: list[str]
    gates: list[str]
    overrides: list[str]


def read_grid(conf: Path, overrides: Sequence[str]) -> tuple[Config, Grid]:
    """The configured grid, with the axes that overrides name (`policy=every,on_decay`) in place of
    their own, and the config without them. Raises ConfigError for a sweep over anything else, or an
    axis without values."""
    chosen: dict[str, list[str]] = {}
    fixed: list[str] = []
    for override in parse_overrides(overrides):
        if override.key_or_group in AXES:
            several = override.is_sweep_override()
            chosen[override.key_or_group] = (
                [str(v) for v in swept_values(override)] if several else [str(override.value())]
            )
        elif override.is_sweep_override():
            raise ConfigError(
                f"`{override.input_line}`: a backtest sweeps over policy, strategy and gate.",
                hint="make a file in conf/ for each value",
            )
        else:
            fixed.append(str(override.input_line))
    config = compose(conf, fixed)
    axes = {
        name: chosen.get(name) or list(getattr(config.backtest, field))
        for name, field in AXES.items()
    }
    for name, values in axes.items():
        if not values:
            raise ConfigError(
                f"`backtest.{AXES[name]}` names none.",
                hint=f"name some files of conf/{name}/, without .yaml",
            )
    return config, Grid(axes["policy"], axes["strategy"], axes["gate"], fixed)


def build_plans(conf: Path, grid: Grid) -> list[Plan]:
    """Every combination, and beside them what they have to be worth: the same strategies, always
    retrained, without a gate and with one that compares figures. Raises ConfigError for a
    combination that can't be."""

    def composed(name: str, values: Sequence[str]) -> dict[str, Config]:
        return {value: compose(conf, [*grid.overrides, f"{name}={value}"]) for value in values}

    policies = composed("policy", list(dict.fromkeys([BASELINE_POLICY, "never", *grid.policies])))
    strategies, gates = composed("strategy", grid.strategies), composed("gate", grid.gates)

    def joined(policy: str, strategy: str) -> Config:
        chosen = dict(policies[policy].policy)
        if "retraining_cost" in chosen:
            chosen["retraining_cost"] = policies[policy].backtest.retraining_cost
        return dataclasses.replace(strategies[strategy], policy=chosen)

    plans = [
        Plan((policy, strategy, gate), joined(policy, strategy), gates[gate].gate)
        for policy, strategy, gate in itertools.product(grid.policies, grid.strategies, grid.gates)
    ]
    for strategy in grid.strategies:
        plans += [
            Plan((BASELINE_POLICY, strategy, name), joined(BASELINE_POLICY, strategy), None)
            for name in (ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE)
        ]
        plans.append(Plan(("never", strategy, ALWAYS_PROMOTE), joined("never", strategy), None))
    return list(_distinct(plans))


def _distinct(plans: Sequence[Plan]) -> Iterator[Plan]:
    """Plans without those that differ only in a gate that is never asked."""
    seen = set()
    for plan in plans:
        never = (*plan.names[:2], NEVER_ASKED)
        names = never if plan.names[0] == "never" and plan.gate is not None else plan.names
        if names not in seen and not (names[0] == "never" and never in seen):
            seen.add(names)
            yield dataclasses.replace(plan, names=names)
