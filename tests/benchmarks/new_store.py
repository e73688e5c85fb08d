"""Processes of two hosts that log into a store that does not exist yet, all at the same moment: is anything lost?

A host of its own has its own HOME, folder for temporary files, and clone of the project, so that they share no lock but the
one that the store itself gives. What each process does: open the store, log a run with its params, 20 metrics, a data set
and an artifact, and end it. Run it with `python tests/benchmarks/new_store.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

from servers import run_postgres  # noqa: E402

METRICS = 20
# A host: it has loaded everything, and forks a process for each job at the start signal.
HOST = """
import os, sys, time
from pathlib import Path
from retrain.config import compose
from retrain.data.manifest import Manifest
from retrain.registry import runs
from retrain.registry.store import open_store
import mlflow, mlflow.store.tracking.sqlalchemy_store, mlflow.tracking.fluent

conf, metrics, jobs = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]

def work(job, start, artifacts):
    config = compose(conf, ["data=flights", "tracking=server", f"tracking.artifacts={artifacts}"])
    time.sleep(max(0, start - time.time()))
    with runs.start_run(open_store(config), f"job {job}", config, {"kind": "race"}):
        for step in range(metrics):
            mlflow.log_metric("loss", step / 10, step=step)
        runs.log_dataset(config, Manifest("schema", ()), "training")

for line in sys.stdin:
    start, artifacts, os.environ["MLFLOW_TRACKING_URI"] = line.rstrip().split("\\t")
    children = []
    for job in jobs:
        child = os.fork()
        if not child:
            work(job, float(start), artifacts)
            os._exit(0)
        children.append(child)
    print(sum(os.waitpid(child, 0)[1] != 0 for child in children), flush=True)
"""


def start_host(home: Path, jobs: Sequence[int]) -> subprocess.Popen[str]:
    (home / "tmp").mkdir(parents=True)
    command = [sys.executable, "-c", HOST, REPOSITORY / "conf", METRICS, *jobs]
    return subprocess.Popen(
        list(map(str, command)),
        env=host(home),
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def trial(address: str, folder: Path, hosts: Sequence[subprocess.Popen[str]]) -> tuple[int, float]:
    """How many runs are whole after all processes have ended, and how long that took."""
    start = time.time() + 2  # when all stand ready
    for one in hosts:
        one.stdin.write(f"{start}\tfile://{folder}/artifacts\t{address}\n")
        one.stdin.flush()
    failed = sum(int(one.stdout.readline()) for one in hosts)
    seconds = time.time() - start
    if failed:
        print(f"{failed} processes failed", file=sys.stderr)
    return sum(1 for _ in whole_runs(address)), seconds


def host(home: Path) -> dict[str, str]:
    """The environment of another machine."""
    dropped = ("MLFLOW_", "DVC_")
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(dropped)}
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "DVC_ROOT": str(home)}
    return inherited | own | {"HOSTNAME": home.name, "PYTHONPATH": str(REPOSITORY / "src")}


def whole_runs(address: str) -> Iterator[str]:
    """Ids of the runs of which everything arrived."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    named = [one for one in client.search_experiments() if one.name == "flights"]
    assert len(named) == 1, "one experiment, whoever was first"
    for run in client.search_runs([named[0].experiment_id]):
        if (
            run.info.status == "FINISHED"
            and len(client.get_metric_history(run.info.run_id, "loss")) == METRICS
            and run.data.params["seed"]
            and len(run.inputs.dataset_inputs) == 1
            and [item.path for item in client.list_artifacts(run.info.run_id)][:1]
            == ["config.yaml"]
        ):
            yield run.info.run_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--store", choices=["sqlite", "postgres"], action="append")
    options = parser.parse_args()
    print("| store | repetition | whole runs | seconds from the start signal |\n|---|---|---|---|")
    lost = 0
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs = range(options.processes)
        hosts = [start_host(root / f"host {one}", jobs[one::2]) for one in (0, 1)]
        for one in hosts:
            stack.callback(one.stdin.close)
        for store in options.store or ["sqlite", "postgres"]:
            postgres = stack.enter_context(run_postgres()) if store == "postgres" else None
            for repetition in range(1, options.repetitions + 1):
                folder = root / f"{store} {repetition}"
                folder.mkdir()
                address = f"sqlite:///{folder / 'store.db'}"
                if postgres is not None:
                    address = postgres.create(f"new {repetition}")
                whole, seconds = trial(address, folder, hosts)
                lost += options.processes - whole
                row = f"{store} | {repetition} | {whole} of {options.processes} | {seconds:.1f}"
                print(f"| {row} |", flush=True)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
