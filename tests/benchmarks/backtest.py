"""What a backtest costs beside the fits that it needs: python tests/benchmarks/backtest.py

Run it in a project whose snapshot is there (`dvc repro snapshot`). In a copy of the project without
any stored fit it replays three strategies, six policies and three gates, then once more with every
fit known, which leaves the replays. Beside it the same fits by scikit-learn alone: rows ready in
memory as pandas, one fit after the other on one thread; their seconds divided by the cores are the
yardstick.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRATEGIES, POLICIES = (
    "full,sliding_window,recency",
    "always,every,on_drift,on_decay,cost_aware,never",
)
GATES = ("non_inferiority", "superiority", "wide")
COPIED = ("conf", "data/snapshot", "params.yaml", "dvc.yaml")
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


def main() -> None:
    if sys.argv[1:] == ["--bare"]:
        bare()
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, goal = Path(name), Path(folder, name)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, goal) if source.is_dir() else shutil.copy(source, goal)
        gate = Path(folder, "conf/gate/non_inferiority.yaml").read_text(encoding="utf-8")
        Path(folder, "conf/gate/wide.yaml").write_text(
            gate.replace("margin: 0.05", "margin: 0.1"), encoding="utf-8"
        )
        first, again = replay(folder), replay(folder)
        fits = json.loads(
            run(
                [sys.executable, str(Path(__file__).resolve()), "--bare"],
                folder,
                OMP_NUM_THREADS="1",
            )
        )
    cores = os.cpu_count()
    share = fits["seconds"] / cores
    print(
        f"{fits['count']} fits by scikit-learn alone: {fits['seconds']:.1f} s, over {cores} cores "
        f"{share:.1f} s"
    )
    print(
        f"backtest, training:  {first['training']:.1f} s, {first['training'] / share:.2f} times as "
        "much"
    )
    print(f"backtest, all of it: {first['all']:.1f} s, {first['all'] / share:.2f} times as much")
    print(f"again, nothing to train: {again['all']:.1f} s")


def replay(folder: str) -> dict[str, float]:
    asked = [f"strategy={STRATEGIES}", f"policy={POLICIES}", f"gate={','.join(GATES)}"]
    started = time.perf_counter()
    run([str(Path(sys.executable).with_name("retrain")), "backtest", "-m", *asked], folder)
    print(f"whole command: {time.perf_counter() - started:.1f} s")
    return json.loads(Path(folder, "reports/backtest.json").read_text(encoding="utf-8"))["seconds"]


def run(command: list[str], folder: str, **more: str) -> str:
    environment = os.environ | ENVIRONMENT | {"DVC_ROOT": folder} | more
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def bare() -> None:
    """Each fit of the backtest once, by scikit-learn alone. Prints their number and seconds."""
    import numpy as np
    import polars as pl

    from retrain.backtest.grid import build_plans, read_grid
    from retrain.backtest.model_cache import read_batch
    from retrain.backtest.replay import Replay
    from retrain.commands.backtest import CONF, read_history
    from retrain.config import class_name, feature_types
    from retrain.data.snapshot import SnapshotStore
    from retrain.data.windows import batches_in
    from retrain.models.fitting import build_pipeline, to_features, to_target
    from retrain.workspace import SNAPSHOT

    config, grid = read_grid(
        CONF, [f"strategy={STRATEGIES}", "policy=always", "gate=non_inferiority"]
    )
    plans, store = build_plans(CONF, grid), SnapshotStore(SNAPSHOT)
    history = read_history(config, store, store.manifest(), plans)
    jobs = {job.key: job for plan in plans for job in Replay(history, plan).jobs()}
    time_column, seconds = config.data.time_column, 0.0
    for job in jobs.values():
        batches = batches_in(job.batches, job.window)
        kind = class_name(job.config.strategy)
        if kind == "SlidingWindow":
            batches = batches[-job.config.strategy["batches"] :]
        parts = [
            job.window.rows(read_batch(config, SNAPSHOT, batch), time_column) for batch in batches
        ]
        weights = {}
        if kind == "Recency":
            ages = np.repeat(np.arange(len(parts) - 1, -1, -1), [len(part) for part in parts])
            weights = {"estimator__sample_weight": 0.5 ** (ages / job.config.strategy["half_life"])}
        rows = pl.concat(parts)
        features, target, pipeline = (
            to_features(rows, feature_types(config)),
            to_target(rows, config),
            build_pipeline(config),
        )
        started = time.perf_counter()
        pipeline.fit(features, target, **weights)
        seconds += time.perf_counter() - started
    print(json.dumps({"count": len(jobs), "seconds": seconds}))


if __name__ == "__main__":
    main()
