"""Runs of jobs that work side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

# Two processes enter the same snapshot at the same moment, twenty times, each time one that the store doesn't know yet.
AT_ONCE = """
import multiprocessing, sys
from pathlib import Path
from retrain.config import compose
from retrain.data.manifest import Manifest
from retrain.registry import runs
from retrain.registry.store import open_store

def enter(barrier, conf):
    config = compose(conf, [])
    store = open_store(config)
    for number in range(20):
        with runs.start_run(store, "job", config, {}):
            barrier.wait(60)
            runs.log_dataset(config, Manifest(f"contract {number}", ()), "training")

if __name__ == "__main__":
    conf = Path(sys.argv[1])
    open_store(compose(conf, []))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    jobs = [context.Process(target=enter, args=(barrier, conf)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    found = open_store(compose(conf, []))
    experiment = found.client.get_experiment_by_name(found.experiment).experiment_id
    inputs = [len(run.inputs.dataset_inputs) for run in found.client.search_runs([experiment])]
    print("exit codes", *(job.exitcode for job in jobs), "inputs", *inputs)
"""


def test_jobs_that_enter_the_same_snapshot_at_once_are_all_kept(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(AT_ONCE, encoding="utf-8")
    command = [sys.executable, "jobs.py", str(REPOSITORY / "conf")]
    environment = os.environ | {"DVC_ROOT": str(tmp_path)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["exit", "codes", "0", "0", "inputs", *["1"] * 40], (
        result.stderr
    )
