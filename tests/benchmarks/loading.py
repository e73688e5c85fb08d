"""Does every kind of model that the project ships load and score anywhere? In an environment that pip
fills with the models' requirements alone, through pyfunc, MLflow's scoring and `mlflow models serve`.

    PYTHONPATH=tests:tests/registry python tests/benchmarks/loading.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from conftest import REPOSITORY, free_port
from test_commands import ask
from test_needs import Logged, check_scores, every_kind, log

from retrain.config import compose
from retrain.lazy import mlflow
from retrain.registry.store import open_store


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["DVC_ROOT"] = name
        open_store(compose(REPOSITORY / "conf", ["data=flights"]))
        with mlflow.start_run():
            logged = log(every_kind())
        needed = sorted({line for one in logged.values() for line in one.requirements})
        started = time.monotonic()
        python = install(root / "fresh", needed)
        print(f"{len(needed)} packages named, installed in {time.monotonic() - started:.0f} s")
        (root / "elsewhere").mkdir()
        check_scores(python, logged, root / "elsewhere")
        print(f"{len(logged)} kinds score as here, through pyfunc and MLflow's scoring")
        chosen = {(tuple(one.requirements), own_code(one)): one for one in logged.values()}
        for one in chosen.values():
            serve(python, one, root / "elsewhere")
        print(f"{len(chosen)} of them, with other packages or own code each, are served")


def install(root: Path, requirements: list[str]) -> Path:
    python = root / "bin/python"
    if uv := shutil.which("uv"):
        commands = [[uv, "venv", "-q", str(root), "--python", sys.executable]]
        commands += [[uv, "pip", "install", "-q", "--python", str(python), *requirements]]
    else:
        commands = [[sys.executable, "-m", "venv", str(root)]]
        commands += [[str(python), "-m", "pip", "install", "-q", "--no-compile", *requirements]]
    for command in commands:
        subprocess.run(command, check=True)
    return python


def own_code(logged: Logged) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in logged.folder.rglob("*.py")))


def serve(python: Path, logged: Logged, home: Path) -> None:
    port = free_port()
    command = [python.parent / "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", str(logged.folder), "-p", str(port)]
    environment = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    said = home / "serve.log"
    with said.open("w") as output:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            body = Path(f"{logged.folder}.json").read_bytes()
            answer = ask(f"http://127.0.0.1:{port}/invocations", body, server, said)
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=30)
    np.testing.assert_allclose(answer["predictions"], logged.expected)


if __name__ == "__main__":
    main()
