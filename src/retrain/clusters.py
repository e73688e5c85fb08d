"""Where jobs run: threads of this process, or a Dask or Ray cluster that runs already."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from retrain.config import Backend, ComputeConfig
from retrain.errors import RetrainError, first_line
from retrain.knock import knock_at_port
from retrain.lazy import distributed, ray

Result = TypeVar("Result")
CONNECT_SECONDS = 8.0  # an error comes within 15 s, start and imports included
VARIABLES = {Backend.dask: "DASK_SCHEDULER_ADDRESS", Backend.ray: "RAY_ADDRESS"}


@dataclass(frozen=True)
class Cluster:
    """What does jobs, again where a worker died, and whether any worker is left."""

    executor: Executor
    has_workers: Callable[[], bool]


class _RayExecutor(Executor):
    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        found: Future[Any] = ray.remote(work).remote(*arguments, **named).future()
        return found


def connect(compute: ComputeConfig) -> Cluster:
    """The configured cluster. The connection stays open until the command ends.

    Raises RetrainError, within 15 s, where its library is missing or it does not answer.
    """
    if compute.backend is Backend.local:
        return Cluster(ThreadPoolExecutor(compute.workers or os.cpu_count()), lambda: True)
    address = compute.address or os.environ.get(VARIABLES[compute.backend], "")
    return _connect(compute.backend, address)


@functools.cache
def _connect(backend: Backend, address: str) -> Cluster:
    extra, variable = backend.value, VARIABLES[backend]
    action = {Backend.dask: _to_dask, Backend.ray: _to_ray}[backend]
    try:
        _ = (distributed if backend is Backend.dask else ray).__version__
    except ModuleNotFoundError as error:
        raise RetrainError(
            f"`compute.backend` is {extra}, and {error.name} is not installed.",
            hint=f"pip install -c constraints.txt -e '.[{extra}]'",
        ) from error
    if not address:
        raise RetrainError(
            f"`compute.backend` is {extra}, and nothing says where the cluster is.",
            hint=f"set `compute.address` or {variable}; docs/scaling.md starts a cluster",
        )
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.hostname and parts.port:
            knock_at_port(parts.hostname, parts.port)  # the libraries would try for minutes
        return _within(CONNECT_SECONDS, lambda: action(address))
    except (OSError, ValueError, RuntimeError) as error:
        why = first_line(error).rstrip(".")
        raise RetrainError(
            f"The {extra.title()} cluster at {address} does not answer or has no workers: {why}.",
            hint=f"start it, or mend `compute.address` (or {variable}); `compute=local` goes "
            "without",
        ) from error


def _to_dask(address: str) -> Cluster:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    client = distributed.Client(address, timeout=CONNECT_SECONDS)
    client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    executor = client.get_executor(pure=False)
    return Cluster(executor, lambda: bool(client.scheduler_info()["workers"]))


def _to_ray(address: str) -> Cluster:
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return Cluster(_RayExecutor(), lambda: bool(ray.cluster_resources().get("CPU")))


def _within(seconds: float, action: Callable[[], Result]) -> Result:
    """What an action gives. Raises TimeoutError where it takes too long, and leaves it alone: what
    listens at an address may be something else, which neither answers nor hangs up."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # Ray ends the process where it can't connect
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
