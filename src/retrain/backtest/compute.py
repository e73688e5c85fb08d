"""Runs the jobs of a backtest where `compute` says: in processes of this machine, on a Dask cluster
or on a Ray cluster. Jobs of a process or worker that died are repeated."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, TypeVar

from retrain.backtest.worker import Place, libraries, run_apart, stop
from retrain.clusters import Cluster, connect
from retrain.config import ComputeConfig
from retrain.errors import RetrainError, first_line
from retrain.own_code import all_code
from retrain.workspace import BACKTEST_CACHE

Job = TypeVar("Job")
Result = TypeVar("Result")
PATIENCE = 10.0  # seconds between two looks whether the cluster still has workers


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], compute: ComputeConfig
) -> Iterator[tuple[int, Result]]:
    """Place and result of each job, as they end. Each has one thread.

    Parameters
    ----------
    work
        A function of a module, or a partial of one.

    Raises
    ------
    RetrainError
        If the cluster doesn't answer or can't do the work, or a job ends its process again and
        again. An error of a job itself is raised as it is.
    """
    cluster = connect(compute)
    waiting = ((number, pickle.dumps((work, job))) for number, job in enumerate(jobs))
    running: dict[Future[bytes], int] = {}
    with _shown_to_workers() as place:

        def submit(count: int | None) -> None:
            for number, job in itertools.islice(waiting, count):
                running[cluster.executor.submit(run_apart, place, job)] = number

        try:
            submit(compute.workers)
            while running:
                for future in _ended(running, cluster):
                    number, value = running.pop(future), _value(future)
                    submit(1)
                    yield number, value
        finally:
            for future in running:
                future.cancel()
            stop()


@contextlib.contextmanager
def _shown_to_workers() -> Iterator[Place]:
    folder = BACKTEST_CACHE.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    proof, root = folder / f".seen-{secrets.token_hex(8)}", Path.cwd()
    proof.touch()
    try:
        yield Place(root, proof, all_code(root), libraries())
    finally:
        proof.unlink(missing_ok=True)


def _ended(running: dict[Future[bytes], int], cluster: Cluster) -> set[Future[bytes]]:
    while not (ended := wait(running, PATIENCE, FIRST_COMPLETED).done):
        if not cluster.has_workers():
            raise RetrainError(
                "The cluster has no workers any more. What was trained stays.",
                hint="start workers, then run the command again",
            )
    return ended


def _value(future: Future[bytes]) -> Any:
    try:
        answer = future.result()
    except BaseException as error:  # errors of jobs come as answers; this is the cluster's own
        if isinstance(error, KeyboardInterrupt):
            raise
        why = first_line(error).rstrip(".")
        raise RetrainError(
            f"The cluster could not do a job: {why}. What was trained stays.",
            hint="each worker needs this project's environment (pip install -c constraints.txt -e "
            ".) and memory for its jobs; their logs say more",
        ) from error
    good, value = pickle.loads(answer)
    if not good:
        raise value
    return value
