"""`retrain backtest`: which policy, strategy and gate would have served best on the snapshot's
history, and at what cost."""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrain.backtest.fault_injection import FaultInjection, run_fault_injections
from retrain.backtest.grid import build_plans, read_grid
from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import ModelCache
from retrain.backtest.outcome import Outcome, Plan
from retrain.backtest.regret import best_sequence, forecast_in_hindsight, loss_matrix
from retrain.backtest.replay import ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE, Replay, simulate
from retrain.backtest.result import Result
from retrain.clusters import connect
from retrain.commands.conf_files import show_and_write
from retrain.config import Config, class_name
from retrain.data.snapshot import SnapshotStore
from retrain.gate.decision import build_checks
from retrain.models.block_sums import Array
from retrain.renamed import written_name
from retrain.report import backtest as reporting
from retrain.workspace import (
    BACKTEST,
    BACKTEST_CACHE,
    BACKTEST_REPORT,
    SNAPSHOT,
    write_json,
    write_text,
)
from retrain.yaml_text import change, inline, load

log = logging.getLogger("retrain")
CONF = Path("conf")


def run(options: argparse.Namespace) -> None:
    """Raises DataError when the history is too short, ConfigError for a combination that can't
    be."""
    started = time.perf_counter()
    config, grid = read_grid(CONF, options.overrides)
    connect(config.compute)  # what doesn't answer is said first
    plans = build_plans(CONF, grid)
    history = read_history(config, SnapshotStore(SNAPSHOT), plans)
    result = summarize(history, plans, simulate(history, plans))
    models = history.models
    log.info(
        "%d models: %d trained in %.0f s, the rest known from before",
        len({fit.model for fit in models.known.values()}),
        models.trained,
        models.seconds,
    )
    result.seconds = {"training": models.seconds, "all": time.perf_counter() - started}
    if options.inject_faults:
        result.drills = inject(history, plans, result)
    models.remembered.save(forget=False)
    reporting.to_terminal(result)
    write_json(BACKTEST, reporting.to_json(result))
    write_text(BACKTEST_REPORT, reporting.to_html(result))
    reporting.to_mlflow(config, result, BACKTEST_REPORT)
    log.info("Report: %s, and in MLflow", BACKTEST_REPORT)
    if options.adopt:
        adopt(result)


def read_history(config: Config, store: SnapshotStore, plans: Sequence[Plan]) -> HistoryView:
    """All labelled batches, with their profiles."""
    found = store.manifest().batches
    on_hold = [batch.period for batch in found if batch.on_hold]
    if on_hold:
        log.warning(
            "Left out, since they look broken (`retrain snapshot` says why): %s", ", ".join(on_hold)
        )
    batches = [batch for batch in found if batch.rows and not batch.on_hold]
    specs = [
        spec
        for plan in plans
        if plan.gate is not None
        for spec in build_checks(plan.gate, True, config.data).values()
    ]
    profiles = [store.profile(batch) for batch in batches]
    return HistoryView(config, batches, profiles, ModelCache(BACKTEST_CACHE, SNAPSHOT), specs=specs)


def summarize(history: HistoryView, plans: Sequence[Plan], outcomes: list[Outcome]) -> Result:
    """Regret, the matrix, and what to do."""
    config, cost = history.config, history.config.backtest.retraining_cost
    matrices: dict[str, Array] = {}
    for plan in plans:
        replay = Replay(history, plan)
        if plan.names[1] not in matrices and replay.refits and not replay.continues:
            matrices[plan.names[1]] = loss_matrix(history, replay)
    best, sequence = math.nan, list[int]()
    if matrices:
        best, sequence = best_sequence(list(matrices.values()), history.served, cost)
    return Result(
        data=config.data.name,
        model=class_name(config.model.estimator),
        loss=history.loss,
        retraining_cost=cost,
        periods=[batch.period for batch in history.batches],
        outcomes=outcomes,
        matrices=matrices,
        best=best,
        best_sequence=[history.batches[number].period for number in sequence],
        forecast=forecast_in_hindsight(next(iter(matrices.values()), np.empty((0, 0)))),
    )


def inject(history: HistoryView, plans: Sequence[Plan], result: Result) -> list[FaultInjection]:
    """The recommended combination, and its baselines, on a history with broken batches."""
    found = result.recommended
    wanted = [(found.policy, found.strategy, found.gate)]
    wanted += [("always", found.strategy, gate) for gate in (ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE)]
    chosen = [plan for plan in plans if plan.names in wanted]
    return run_fault_injections(history, sorted(chosen, key=lambda plan: plan.names != wanted[0]))


def adopt(result: Result) -> None:
    """Write the recommended policy, strategy and gate into conf/config.yaml, and what was measured
    for `cost_aware`."""
    found, path = result.recommended, CONF / "config.yaml"
    chosen = {"policy": found.policy, "strategy": found.strategy, "gate": found.gate}
    text = path.read_text(encoding="utf-8")
    for group, name in chosen.items():
        if (CONF / group / f"{name}.yaml").is_file():  # else a gate that is never asked
            text = change(text, str(path), ["defaults", group], inline(name))
    files = {path: text}  # written when all of them are known
    policy = CONF / "policy" / "cost_aware.yaml"
    if result.forecast is not None and policy.is_file():
        text = policy.read_text(encoding="utf-8")
        measured = {
            "prior_staleness_rate": result.forecast.staleness_rate,
            "prior_value_of_data": result.forecast.value_of_data,
            "retraining_cost": result.retraining_cost,
        }
        for key, value in measured.items():
            name = written_name(f"policy.{key}", load(text))
            text = change(text, str(policy), [name], f"{value:.6g}")
        files[policy] = text
    show_and_write(files)
    named = ", ".join(f"{group} {name}" for group, name in chosen.items())
    log.info("Adopted: %s in %s. `dvc repro` uses them.", named, path)
