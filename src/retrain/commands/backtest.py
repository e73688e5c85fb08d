"""`retrain backtest`: which policy, strategy and gate would have served best on the snapshot's history, and at what cost."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from retrain.backtest.fault_injection import FaultInjection, run_fault_injections
from retrain.backtest.grid import build_plans, read_grid
from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import FitJob, ModelCache
from retrain.backtest.regret import best_sequence, forecast_in_hindsight, loss_matrix
from retrain.backtest.replay import (
    ALWAYS_PROMOTE,
    BETTER_POINT_ESTIMATE,
    Outcome,
    Plan,
    Replay,
    simulate,
)
from retrain.backtest.result import Result
from retrain.config import Config
from retrain.data.manifest import Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.gate.decision import build_checks
from retrain.report import backtest as reporting
from retrain.workspace import (
    BACKTEST,
    BACKTEST_CACHE,
    BACKTEST_REPORT,
    SNAPSHOT,
    write_json,
    write_text,
)
from retrain.yaml_text import change, inline

log = logging.getLogger("retrain")
CONF = Path("conf")
Train: TypeAlias = Callable[[Sequence[FitJob]], None]


def run(options: argparse.Namespace) -> None:
    """Raises DataError when the history is too short, ConfigError for a combination that can't be."""
    started = time.perf_counter()
    config, grid = read_grid(CONF, options.overrides)
    plans = build_plans(CONF, grid)
    store = SnapshotStore(SNAPSHOT)
    manifest = store.manifest()
    history = read_history(config, store, manifest, plans)
    models = history.models
    train = trainer(models, config)
    outcomes = simulate(history, plans, train)
    result = summarize(config, history, plans, outcomes, train)
    log.info(
        "%d models: %d trained in %.0f s, the rest known from before",
        len({key for key, *_ in models.known}),
        models.trained,
        models.seconds,
    )
    result.seconds = {"training": models.seconds, "all": time.perf_counter() - started}
    if options.inject_faults:
        result.drills = drill(history, plans, result, train)
    history.models.remembered.save(forget=False)
    reporting.to_terminal(result)
    write_json(BACKTEST, reporting.to_json(result))
    write_text(BACKTEST_REPORT, reporting.to_html(result))
    reporting.to_mlflow(config, result, BACKTEST_REPORT)
    log.info("Report: %s, and in MLflow", BACKTEST_REPORT)
    if options.adopt:
        adopt(config, result)


def read_history(
    config: Config, store: SnapshotStore, manifest: Manifest, plans: Sequence[Plan]
) -> HistoryView:
    """All labelled batches, with their summaries."""
    batches = [batch for batch in manifest.batches if batch.rows and not batch.on_hold]
    held = [batch.period for batch in manifest.batches if batch.on_hold]
    if held:
        log.warning(
            "Left out, since they look broken (`retrain snapshot` says why): %s", ", ".join(held)
        )
    summaries = [store.profile(batch) for batch in batches]
    gates = {plan.names[2]: plan.gate for plan in plans if plan.gate is not None}
    specs = [
        question
        for gate in gates.values()
        for question in build_checks(gate, True, config.data).values()
    ]
    metrics = [question.check.metric for question in specs if question.check.metric]
    return HistoryView(
        config, batches, summaries, ModelCache(BACKTEST_CACHE, SNAPSHOT), metrics=metrics
    )


def trainer(models: ModelCache, config: Config) -> Train:
    """Trains what no earlier backtest has left behind, with a progress bar and the time that remains."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    def train(jobs: Sequence[FitJob]) -> None:
        missing = models.missing(jobs)
        if not missing:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
            task = progress.add_task("Training", total=len(missing))
            workers = config.backtest.workers or os.cpu_count() or 1
            models.train(missing, workers, lambda done: progress.update(task, completed=done))

    return train


def summarize(
    config: Config,
    history: HistoryView,
    plans: Sequence[Plan],
    outcomes: Sequence[Outcome],
    train: Train,
) -> Result:
    """Regret, the matrix, and what to do."""
    cost = config.backtest.retraining_cost
    matrices = {}
    for plan in plans:
        replay = Replay(history, plan)
        if plan.names[1] not in matrices and replay.refits and not replay.continues:
            challengers = [replay.job(number, False) for number in history.fit_result]
            train(challengers)
            jobs = [replay.refit(history.models.get(job)) for job in challengers]
            train(jobs)
            fits = [history.models.get(job) for job in jobs]
            matrix = np.full((len(history.batches), len(history.batches)), np.nan)
            matrix[history.fit_result] = loss_matrix(history, fits)
            matrices[plan.names[1]] = matrix
    best, sequence = (
        best_sequence(list(matrices.values()), history.served, cost)
        if matrices
        else (float("nan"), [])
    )
    return Result(
        data=config.data.name,
        model=config.model.estimator["_target_"].rsplit(".", 1)[-1],
        loss=history.loss,
        retraining_cost=cost,
        periods=[batch.period for batch in history.batches],
        outcomes=list(outcomes),
        matrices=matrices,
        best=best,
        best_sequence=[history.batches[number].period for number in sequence],
        forecast=forecast_in_hindsight(next(iter(matrices.values()), np.empty((0, 0)))),
    )


def drill(
    history: HistoryView, plans: Sequence[Plan], result: Result, train: Train
) -> list[FaultInjection]:
    """The recommended combination, and what it has to be worth, on a history with broken batches."""
    wanted = result.recommended.policy, result.recommended.strategy, result.recommended.gate
    chosen = [plan for plan in plans if plan.names == wanted]
    chosen += [
        plan
        for plan in plans
        if plan.names
        in {("always", wanted[1], ALWAYS_PROMOTE), ("always", wanted[1], BETTER_POINT_ESTIMATE)}
    ]
    return run_fault_injections(history, chosen, train)


def adopt(config: Config, result: Result) -> None:
    """Write the recommended policy, strategy and gate into conf/config.yaml, and what was measured for `cost_aware`."""
    found, path = result.recommended, CONF / "config.yaml"
    text = path.read_text(encoding="utf-8")
    for group, name in (
        ("policy", found.policy),
        ("strategy", found.strategy),
        ("gate", found.gate),
    ):
        if not (CONF / group / f"{name}.yaml").is_file():
            continue  # a gate that is never asked
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
            text = change(text, str(policy), [key], f"{value:.6g}")
        files[policy] = text
    for file, text in files.items():
        write_text(file, text)
    log.info(
        "Adopted: policy %s, strategy %s, gate %s in %s. `dvc repro` uses them.",
        found.policy,
        found.strategy,
        found.gate,
        path,
    )
