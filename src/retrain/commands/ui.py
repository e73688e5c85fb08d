"""`retrain ui`: MLflow's pages on the configured store, opened where there is something to see."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser

from retrain.config import Config
from retrain.errors import StoreError
from retrain.registry.experiments import describe_experiments, pages
from retrain.registry.shared_stores import is_web
from retrain.registry.store import open_store, tracking_uri
from retrain.workspace import store_root

LONGEST_START = 120  # seconds


def run(config: Config, options: argparse.Namespace) -> None:
    """Until Ctrl-C; of a server that runs elsewhere only the address is shown."""
    store = open_store(config)
    describe_experiments(store, config)
    address = tracking_uri(config.tracking)
    if is_web(address):
        _show(str(store.client.tracking_uri), pages(store), options.open)
        return
    server = _start(address, store.artifacts, options.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with this process
    try:
        _wait(server, options.port)
        _show(f"http://127.0.0.1:{options.port}", pages(store), options.open)
        print("Ctrl-C ends it.", flush=True)
        server.wait()
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()
    if server.returncode:
        raise StoreError(f"MLflow's server ended with exit code {server.returncode}.")


def _start(address: str, artifacts: str | None, port: int) -> subprocess.Popen[bytes]:
    """The server, on this machine alone. Its store is told by the environment, which other users
    can't read as they can a command line."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StoreError(
                f"Port {port} can't be used ({error.strerror}).",
                hint="Perhaps it is shown there already; otherwise `retrain ui --port 5001`.",
            ) from error
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # saves 2 GB of memory
    environment.setdefault("PYTHONWARNINGS", "ignore")
    if artifacts:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = artifacts
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    quiet = ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    return subprocess.Popen([*command, *quiet], cwd=store_root(), env=environment)


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + LONGEST_START
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise StoreError(
        "MLflow's server did not start.", hint="What it said is above; `mlflow ui` shows more."
    )


def _show(server: str, found: dict[str, str], opens: bool) -> None:
    width = max(map(len, found))
    for name, page in found.items():
        print(f"{name:<{width}}  {server.rstrip('/')}/{page}")
    if opens:
        webbrowser.open(f"{server.rstrip('/')}/{next(iter(found.values()))}")
