"""What a sweep costs beside a bare joblib loop of the same fits that logs to MLflow too.

    python tests/benchmarks/sweep.py              # 16 trials on two processes, in turn, three pairs
    python tests/benchmarks/sweep.py --resume     # and a finished sweep of 100 jobs again

CPU seconds, of all processes, tell more than those of the clock where others share the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from run import FLIGHTS, REPOSITORY, SCRIPT, SWEEP, Runner, copy_project

# 16, each one fit as in the script, which does not look for the best number of rounds.
TRIALS = ["model.estimator.learning_rate=0.1,0.05", "model.choose_iterations_below=0", *SWEEP]
PARALLEL = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
MANY = ["model=dummy", "seed=range(1,101)"]


@dataclass(frozen=True)
class Seconds:
    clock: float
    cpu: float


def measured(work: Callable[[], object]) -> Seconds:
    """What the processes that `work` starts and waits for took."""
    before, started = os.times(), time.perf_counter()
    work()
    after, clock = os.times(), time.perf_counter() - started
    cpu = after.children_user + after.children_system
    return Seconds(clock, cpu - before.children_user - before.children_system)


def prepare(folder: Path, through: str | None = None) -> Runner:
    """A project with a snapshot and without a champion, whose recipe would be one fit more.

    `through` is the snapshot's newest month, else the shipped one.
    """
    project = folder / "project"
    project.mkdir(parents=True)
    copy_project(project)
    if through is not None:
        flights = project / FLIGHTS
        flights.write_text(re.sub("(?m)^as_of: .*$", f"as_of: {through}", flights.read_text()))
    run = Runner(folder, project / "src", threads=1)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com"]
        subprocess.run(["git", *identity, *command], cwd=project, check=True)
    run(project, "retrain", "snapshot")
    return run


def compare(run: Runner, folder: Path, pair: int) -> tuple[Seconds, Seconds]:
    """The project's sweep and the bare loop, one after the other, each into an empty store."""
    project, plain = folder / "project", folder / f"plain-{pair}"
    plain.mkdir()
    for path in project.glob("mlflow.db*"):
        path.unlink()
    ours = measured(lambda: run(project, "retrain", "train", "-m", *TRIALS, *PARALLEL))
    loop = [str(REPOSITORY / SCRIPT), "--through", "2013-10", "--sweep", "16", "--jobs", "2"]
    other = measured(lambda: run(plain, "python", *loop))
    print(f"pair {pair}: {ours} against {other}", flush=True)
    return ours, other


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a sweep costs.")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--resume", action="store_true", help="also a finished sweep of 100 jobs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-") as temporary:
        folder = Path(temporary)
        run = prepare(folder)
        pairs = [compare(run, folder, number) for number in range(options.pairs)]
        for kind in ("clock", "cpu"):
            ratios = [getattr(ours, kind) / getattr(other, kind) for ours, other in pairs]
            print(f"{kind}: {statistics.median(ratios):.2f} x the loop (limit 1.3)")
        if options.resume:
            again = ["retrain", "train", "-m", *MANY]
            run(folder / "project", *again)
            print("resume of 100 jobs:", measured(lambda: run(folder / "project", *again)))


if __name__ == "__main__":
    main()
