"""`retrain` and `dvc` as processes of their own that start at once.

Most of the time of a short command goes into importing MLflow, scikit-learn and DVC. Here one server
imports these libraries, and nothing of ours, and forks a process for each command: with the command's
own arguments, folder, environment and files. It imports the engine and the project as ever, and is
killed with the one who waits for it.

A command whose environment changes what the interpreter or a library does at its start, or that has
no server to ask, runs as always; with `RETRAIN_REAL=1 pytest` all do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import filelock

FOLDER = "RETRAIN_FORKED"  # names the folder of the server that this run of pytest shares
COMMANDS = {"retrain": "retrain.cli", "dvc": "dvc.cli"}
# What an interpreter or a library looks at when it starts.
AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "OPENBLAS_", "POLARS_", "RETRAIN_REAL")
LIBRARIES = [
    "scipy.special",
    "scipy.stats",
    "pandas",
    "pyarrow.pandas_compat",
    "polars",
    "mlflow",
    "mlflow.sklearn",
    "mlflow.pyfunc.scoring_server",
    "mlflow.data.meta_dataset",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.tracing.processor.base_mlflow",
    "alembic.command",
    "opentelemetry.sdk.metrics.export",
    "sqlalchemy.dialects.sqlite",
    "sklearn.ensemble",
    "sklearn.pipeline",
    "sklearn.compose",
    "sklearn.linear_model",
    "sklearn.neural_network",
    "skops.io",
    "river.drift",
    "joblib",
    "narwhals._pandas_like.namespace",
    "pydantic.dataclasses",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    "hydra._internal.hydra",
    "hydra.core.hydra_config",
    "rich.table",
    "rich.progress",
    "ruamel.yaml",
    "jinja2",
    "networkx",
    "git",
    "dulwich.repo",
    "dvc.cli.parser",
    "dvc.repo.index",
    "dvc.repo.graph",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "dvc.data_cloud",
    "dvc.repo.open_repo",
]

# Asks the server; what it can't do, the command itself does. Starts in a hundredth of a second.
# A first line can't name an interpreter in a folder with a space, so the shell starts it.
CLIENT = """#!/bin/sh
'''exec' {python} -IS "$0" "$@"
' '''
import json, os, socket, sys
command = {command!r}
environment = dict(os.environ)
same = {{key: value for key, value in environment.items() if key.startswith({at_start!r})}}
try:
    assert same == {same!r} and not os.isatty(0) and not os.isatty(1)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect({address!r})
except (AssertionError, OSError):
    os.execv(command, [command, *sys.argv[1:]])
request = json.dumps([command, sys.argv[1:], os.getcwd(), environment]).encode()
socket.send_fds(server, [request], [0, 1, 2])
status = int(server.recv(16) or 1)
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def folder() -> Path | None:
    """The folder whose `retrain` and `dvc` start at once, to be put first on the path."""
    if os.environ.get("RETRAIN_REAL") or FOLDER not in os.environ or not hasattr(os, "pidfd_open"):
        return None
    shared = Path(os.environ[FOLDER])
    with filelock.FileLock(shared / "lock"):
        if not (shared / "bin").is_dir():
            _start(shared)
    return shared / "bin"


def _start(shared: Path) -> None:
    address = shared / "socket"
    with (shared / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, str(address), shared.name.partition("-")[0]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_without_settings(os.environ),
            start_new_session=True,
        )
    same = {key: value for key, value in os.environ.items() if key.startswith(AT_START)}
    (shared / "new").mkdir()
    for name in COMMANDS:
        script = shared / "new" / name
        text = CLIENT.format(
            python=shlex.quote(sys.executable),
            command=str(Path(sys.executable).parent / name),
            at_start=AT_START,
            same=same,
            address=str(address),
        )
        script.write_text(text)
        script.chmod(0o755)
    while not address.exists() and server.poll() is None:  # without one, commands run as always
        time.sleep(0.05)
    (shared / "new").rename(shared / "bin")


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in environment.items()
        if not key.startswith(("MLFLOW_", "DVC_", "RETRAIN_"))
    }


class Server:
    """Forks a process for each command until the process that it works for ends."""

    def __init__(self, address: str, owner: int) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.selector = selectors.DefaultSelector()
        self.owner = os.pidfd_open(owner)
        self.listener.bind(address)
        self.listener.listen(64)
        self.selector.register(self.owner, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == self.owner:
                    return
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    key.data()

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        request, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
        process = os.fork()
        if process == 0:
            self.selector.close()
            self.listener.close()
            client.close()
            os.close(self.owner)
            _become(*json.loads(request), files)
        for file in files:
            os.close(file)
        ended = os.pidfd_open(process)

        def finish() -> None:
            self.selector.unregister(ended)
            os.close(ended)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if client in self.selector.get_map():
                self.selector.unregister(client)
                client.send(str(status).encode())
            client.close()

        def abandon() -> None:
            self.selector.unregister(client)
            os.kill(process, signal.SIGKILL)

        self.selector.register(ended, selectors.EVENT_READ, finish)
        self.selector.register(client, selectors.EVENT_READ, abandon)


def _become(
    command: str, arguments: list[str], cwd: str, environment: dict[str, str], files: list[int]
) -> None:
    """Be the command from here on."""
    status = 1
    try:
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, sys.path[0] = [command, *arguments], str(Path(command).parent)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115
        sys.modules["__main__"] = ModuleType("__main__")
        sys.modules["numpy"].random.seed()
        gc.enable()
        sys.exit(import_module(COMMANDS[Path(command).name]).main())
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def main() -> None:
    gc.disable()
    for name in LIBRARIES:
        import_module(name)
    # What they look for once in a process: plugins, and the modules of all packages.
    sys.modules["hydra.core.plugins"].Plugins.instance()
    sys.modules["mlflow.utils.requirements_utils"].warn_dependency_requirement_mismatches(["numpy"])
    assert not {"retrain", "project"} & {*sys.modules}, "they are the command's own to import"
    gc.freeze()
    Server(sys.argv[1], int(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
