"""Whether a search finds more than chance: 40 trials of TPE against 120 random ones.

    python tests/benchmarks/search.py             # five seeds; about half an hour on two cores
    python tests/benchmarks/search.py --through 2013-03 --processes 1

Both search the shipped space of the default model on the flights, by the command that users run, and
are compared by the log loss on the validation window, which is what a search can see. Each seed has
two studies of its own. The loss after as many random trials as TPE's stands beside them, and so does
that of the recipe as it is shipped.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
from run import FLIGHTS
from sweep import prepare

# As many rounds as the trial says: with so few rows, the recipe would choose them itself.
SPACE = ["sweep=hist_gradient_boosting", "model.choose_iterations_below=0"]
SAMPLERS = {"tpe": 40, "random": 120}
LOSS = "log_loss/validation"


def losses(project: Path, parent: str) -> list[float]:
    """The finished trials' losses, in the order in which they were proposed."""
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    where = f"tags.`mlflow.parentRunId` = '{parent}'"
    runs = client.search_runs(experiments, where, max_results=1000, order_by=["start_time ASC"])
    return [run.data.metrics[LOSS] for run in runs if LOSS in run.data.metrics]


def parents(project: Path) -> list[str]:
    """The sweeps in a store, the newest first."""
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, "tags.kind = 'sweep'", order_by=["start_time DESC"])
    return [run.info.run_id for run in found]


def search(folder: Path, sampler: str, seed: int, through: str) -> list[float]:
    """The losses of one study, in a project of its own."""
    where = folder / f"{sampler} {seed}"
    run, project = prepare(where, through), where / "project"
    more = [f"hydra/sweeper/sampler={sampler}", f"hydra.sweeper.n_trials={SAMPLERS[sampler]}"]
    run(project, "retrain", "train", "-m", *SPACE, *more, f"hydra.sweeper.sampler.seed={seed}")
    found = losses(project, parents(project)[0])
    print(f"{sampler:6} seed {seed}: {min(found):.5f}, {len(found)} trials", flush=True)
    return found


def shipped(folder: Path, through: str) -> float:
    """The loss of the recipe as it is shipped, on the same rows."""
    run, project = prepare(folder / "shipped", through), folder / "shipped/project"
    run(project, "retrain", "train", "-m", "model=hist_gradient_boosting", "seed=0,1,2")
    return statistics.mean(losses(project, parents(project)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a search with chance.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--through", default="2013-02", help="the newest month of the snapshot")
    parser.add_argument("--processes", type=int, default=2, help="studies at a time")
    options = parser.parse_args()
    jobs = [(sampler, seed) for seed in range(options.seeds) for sampler in SAMPLERS]
    with (
        tempfile.TemporaryDirectory(prefix="search-") as temporary,
        ThreadPoolExecutor(options.processes) as pool,
    ):
        folder = Path(temporary)
        plain = shipped(folder, options.through)
        found = pool.map(lambda job: search(folder, *job, options.through), jobs)
        studies = dict(zip(jobs, found, strict=True))
    print(f"\nas shipped: {plain:.5f} ({FLIGHTS} through {options.through})")
    print("seed  40 of TPE  40 random  120 random")
    for seed in range(options.seeds):
        tpe, random = studies["tpe", seed], studies["random", seed]
        print(f"{seed:4}  {min(tpe):9.5f}  {min(random[:40]):9.5f}  {min(random):10.5f}")
    won = sum(min(studies["tpe", s]) <= min(studies["random", s]) for s in range(options.seeds))
    print(f"40 trials of TPE were at least as good as 120 random ones in {won} of {options.seeds}")


if __name__ == "__main__":
    main()
