"""Which process a run belongs to, so that the runs of a killed one can be ended by the next."""

from __future__ import annotations

import os
import socket

from retrain.lazy import psutil
from retrain.registry.store import CANDIDATES, Store, ensure_experiment

PROCESS = "process"  # tag: host, id, and when it started
CLOCK_SECONDS = 5  # by which the start of one process may seem to differ


def this_process() -> str:
    """The tag of a run that this process writes."""
    started = psutil.Process().create_time()
    return f"{socket.gethostname()} {os.getpid()} {started:.0f}"


def is_gone(process: str) -> bool:
    """Whether a process of this machine has ended. Of another machine's nobody here can say: no."""
    try:
        host, number, started = process.rsplit(" ", 2)
        if host != socket.gethostname():
            return False
        found = psutil.Process(int(number))
        alive = found.status() != psutil.STATUS_ZOMBIE
        return not alive or abs(found.create_time() - float(started)) > CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def end_abandoned(store: Store) -> None:
    """Mark the candidates and sweeps of killed processes: MLflow would show them as running for
    ever."""
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    for run in store.client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get(PROCESS, "")):
            store.client.set_terminated(run.info.run_id, "KILLED")
