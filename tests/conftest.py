"""Temporary projects: copies of this repository with a slice of the data, run as users do."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import polars as pl
import pytest
from omegaconf import OmegaConf

from project.source import NycFlights
from retrain.config import Config, compose
from retrain.registry.store import Store

if TYPE_CHECKING:
    from servers import ObjectStore, Postgres

# As the command line does, before scikit-learn is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).parents[1]
TARGET, TIME = "late", "scheduled_departure"
RESULTS = (
    "dvc.lock",
    "params.yaml",
    "reports/",
    "mlruns/",
)  # of a pipeline that ran in this repository


def pytest_configure(config: pytest.Config) -> None:
    """The workers share one server of processes; it ends with this process."""
    if not hasattr(config, "workerinput"):
        os.environ[forked.FOLDER] = tempfile.mkdtemp(prefix=f"{os.getpid()}-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(forked.FOLDER), ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with temporary projects first: begun last, a long one keeps one worker alone to the end."""
    items.sort(key=lambda item: not hasattr(getattr(item, "module", None), "Project"))


class Project:
    """A copy of the repository; its data set `slice` is every sixth flight, a file a month."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's root, this environment's tools first on the path."""
        tools = filter(None, [forked.folder(), Path(sys.executable).parent, os.environ["PATH"]])
        path = os.pathsep.join(map(str, tools))
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MLFLOW_", "DVC_", "AWS_"))
        }
        result = subprocess.run(
            command,
            cwd=self.root,
            env=inherited | {"PATH": path, "COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if check:
            assert result.returncode == 0, (
                f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
            )
        return result

    def repro(self, *arguments: str) -> str:
        result = self.run("dvc", "repro", *arguments)
        return result.stdout + result.stderr

    def stages_run(self, *arguments: str) -> list[str]:
        """`dvc repro`; names of the stages that it ran, in order."""
        lines = self.repro(*arguments).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new))

    def arrive(
        self, *months: str, change: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    ) -> None:
        """Put batches into `data/incoming`."""
        for month in months:
            batch = flights(month)
            (change(batch) if change else batch).write_parquet(
                self.root / f"data/incoming/{month}.parquet"
            )

    def copy(self, root: Path) -> Project:
        """A copy of the files. The database is copied by SQLite: to close a file by other means takes its locks
        away from clients in this process, which then read a damaged one."""
        database = self.root / "mlflow.db"
        whole = shutil.ignore_patterns("mlflow.db*") if database.is_file() else None
        shutil.copytree(self.root, root, symlinks=True, ignore=whole)
        if whole:
            with (
                contextlib.closing(sqlite3.connect(database)) as made,
                contextlib.closing(sqlite3.connect(root / "mlflow.db")) as copy,
            ):
                made.backup(copy)
        return Project(root)

    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")


_batches: dict[str, pl.DataFrame] = {}


def flights(month: str) -> pl.DataFrame:
    """Every sixth flight of a month."""
    if not _batches:
        source = NycFlights(weather_lag_hours=3)
        _batches.update({key: source.read(key).gather_every(6) for key in source.periods()})
    return _batches[month]


def make_project(root: Path) -> Project:
    """Copy what git would commit, choose the slice, commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(RESULTS):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    project = Project(root)
    data = OmegaConf.load(root / "conf/data/flights.yaml")
    data.name, data.as_of = "slice", "2013-03"
    data.source = {"_target_": "retrain.data.sources.BatchFiles", "folder": "data/incoming"}
    OmegaConf.save(data, root / "conf/data/slice.yaml")
    chosen = OmegaConf.load(root / "conf/config.yaml").defaults
    named = next(entry.data for entry in chosen if "data" in entry)
    project.edit("conf/config.yaml", f"- data: {named} ", "- data: slice ")
    project.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 100", "max_iter: 20")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    return project


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server: make a database in it for each use."""
    from servers import run_postgres

    with run_postgres() as made:
        yield made


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A server that speaks S3, with an empty bucket `team`."""
    from servers import run_object_store

    with run_object_store(tmp_path_factory.mktemp("objects") / "s3") as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project before its first run, with three months of data."""
    made = make_project(tmp_path / "my project")
    made.arrive("2013-01", "2013-02", "2013-03")
    return made


@pytest.fixture(scope="session")
def champion_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with its first champion. Shared: copy it before changing it."""
    made = make_project(tmp_path_factory.mktemp("first") / "my project")
    made.arrive("2013-01", "2013-02", "2013-03")
    made.repro()
    return made


@pytest.fixture
def grown(champion_project: Project, tmp_path: Path) -> Project:
    """A copy, at another place, of the project with a champion."""
    return champion_project.copy(tmp_path / "moved project")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """An empty tracking database: making one takes MLflow seconds, a copy none."""
    from retrain.registry.store import open_store

    root = tmp_path_factory.mktemp("empty store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        open_store(config)
    with sqlite3.connect(root / "mlflow.db") as made, sqlite3.connect(root / "copy.db") as copy:
        made.backup(copy)  # with what is still in its write-ahead log
    return root / "copy.db"


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, empty_database: Path
) -> Store:
    """An empty tracking store of the shipped configuration."""
    from retrain.registry.store import open_store

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return open_store(config)


@pytest.fixture(scope="session")
def config() -> Config:
    """The shipped configuration, on the flights whatever a clone has chosen."""
    return compose(REPOSITORY / "conf", ["data=flights"])


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a snapshot of two small months. Tests of a module leave runs behind in it."""
    made = make_project(tmp_path_factory.mktemp("two_months") / "my project")
    made.arrive("2013-01", "2013-02", change=lambda rows: rows.gather_every(2))
    made.run("retrain", "snapshot")
    return made
