"""The tracking store: found, prepared once, and checked before anything is trained."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrain.config import Config, TrackingConfig
from retrain.errors import StoreError, first_line
from retrain.lazy import filelock, mlflow
from retrain.masking import split_address
from retrain.registry.shared_stores import check_server, is_web, prepare_database
from retrain.workspace import store_root

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CANDIDATES, LEDGER, MONITORING, BACKTESTS = "-candidates", "-ledger", "-monitoring", "-backtests"
SUBMITTED_FROM = "RETRAIN_SUBMITTED_FROM"  # the host that started a sweep, told to its jobs
log = logging.getLogger("retrain")
# Lets the UI open on training runs and models instead of traces.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
# Where an absolute path of the project stands in MLflow's tables (schema of mlflow 3.17).
PATH_COLUMNS = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
]


@dataclass(frozen=True)
class Store:
    """An open tracking store. `local_root` is None for a server; `artifacts` is where a database
    that is used without a server has them kept."""

    client: MlflowClient
    experiment: str
    registered_model: str
    local_root: Path | None
    artifacts: str | None = None


def tracking_uri(tracking: TrackingConfig) -> str:
    """The store's address. Raises StoreError when the environment should hold it and doesn't."""
    if tracking.uri_from_env is None:
        return f"sqlite:///{store_root() / 'mlflow.db'}"
    address = os.environ.get(tracking.uri_from_env)
    if not address:
        raise StoreError(
            f"The environment variable {tracking.uri_from_env} is empty (`tracking.uri_from_env`).",
            hint="Set it to the address of your tracking server, or choose `tracking: local` "
            "in conf/config.yaml.",
        )
    return address


def store_exists(tracking: TrackingConfig) -> bool:
    """False when it is certain, without importing MLflow, that nothing was ever tracked."""
    return tracking.uri_from_env is not None or (store_root() / "mlflow.db").is_file()


def open_store(config: Config) -> Store:
    """Prepare the store once, connect to it, and make sure that its experiments are there.

    Raises StoreError within 15 s when it does not answer.
    """
    tracking = config.tracking
    address = _hand_over_credentials(tracking_uri(tracking), tracking.uri_from_env)
    local = tracking.uri_from_env is None
    if local:
        _refuse_other_hosts()
    return _open(address, local, tracking.experiment, tracking.registered_model, tracking.artifacts)


def _refuse_other_hosts() -> None:
    """SQLite keeps its locks in the memory of one machine: others that write damage the file."""
    here, there = socket.gethostname(), os.environ.get(SUBMITTED_FROM)
    if there and there != here:
        raise StoreError(
            f"This job runs on {here}, and was started on {there}, whose `mlflow.db` can't be "
            "written by several machines: it would be damaged. Nothing was changed.",
            hint="Choose `tracking: server` in conf/config.yaml, with a server or database that "
            "all machines reach (docs/scaling.md), or a launcher that stays on one machine.",
        )


def _hand_over_credentials(address: str, variable: str | None) -> str:
    """The address without user and password, which MLflow gets through its environment variables.

    It would print them with the address of each run, and put them into its error messages.
    """
    if not is_web(address):
        return address
    bare, user, password = split_address(address)
    if user is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = user
        os.environ["MLFLOW_TRACKING_PASSWORD"] = password or ""
        os.environ[variable or "MLFLOW_TRACKING_URI"] = bare
    return bare


@functools.lru_cache(maxsize=4)  # the jobs of a sweep in one process share it
def _open(
    address: str, local: bool, experiment: str, registered_model: str, artifacts: str | None
) -> Store:
    _quiet_and_impatient()
    if not local:
        check_server(address)
    mlflow.set_tracking_uri(address)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Prints what is raised, as a traceback.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if local:
            _prepare_local(address)
        elif not is_web(address):
            prepare_database(address)
        root = store_root() if local else None
        client = mlflow.MlflowClient(address)
        store = Store(client, experiment, registered_model, root, None if local else artifacts)
        ensure_experiment(store, store.experiment)
    except mlflow.exceptions.MlflowException as error:
        raise StoreError(f"The tracking store {address} refused: {first_line(error)}") from error
    return store


def _quiet_and_impatient() -> None:
    """Settings that MLflow reads from the environment; what the user has set there wins."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # the project works without a network
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _prepare_local(address: str) -> None:
    """Create the database, under a lock: processes that create it at the same time destroy it.

    It gets its name when it is complete: a process killed in between leaves none that looks
    damaged.
    """
    database = Path(address.removeprefix("sqlite:///"))
    lock = store_root() / ".dvc" / "tmp" / "mlflow.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock, timeout=120).acquire()
    except OSError as error:
        raise StoreError(
            f"The project's tracking store can't be used: {lock} can't be written "
            f"({error.strerror}). Nothing was changed.",
            hint="Mend the permissions of the project's folder, or work in a clone of your own.",
        ) from error
    with held:
        if database.is_file():
            _follow_move(database)
            return
        unfinished = lock.with_name("mlflow.db.new")
        unfinished.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
        for rest in ("-wal", "-shm"):  # of a deleted database: they would damage the new one
            database.with_name(database.name + rest).unlink(missing_ok=True)
        os.replace(unfinished, database)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("pragma journal_mode=WAL")  # writers of a parallel sweep wait less


def settle_local_store() -> None:
    """Bring all that was written into `mlflow.db` itself, so that a copy of that one file is
    whole."""
    database = store_root() / "mlflow.db"
    if database.is_file():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(database, timeout=1)) as connection,
        ):
            connection.execute("pragma wal_checkpoint(truncate)")


def _follow_move(database: Path) -> None:
    """MLflow stores artifact paths absolutely: after the project was moved or copied, let them
    point here."""
    root = str(store_root() / "mlruns")
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        # Experiment 0 is MLflow's own and lies wherever the process stood that made the database.
        query = (
            "select artifact_location from experiments where experiment_id != 0 "
            "and artifact_location like '%/mlruns/%' order by experiment_id limit 1"
        )
        try:
            found = connection.execute(query).fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{database.name} is damaged ({error}). Nothing was changed.",
                hint="Restore it from a backup.",
            ) from error
        old = found[0].rsplit("/mlruns/", 1)[0] + "/mlruns" if found else root
        if old.removeprefix("file://") == root:
            return
        with connection:
            for table, column in PATH_COLUMNS:
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) "
                    f"where substr({column}, 1, ?) = ?",
                    (root, len(old) + 1, len(old) + 1, old + "/"),
                )
    log.info("The project has moved: the paths in mlflow.db now point to %s.", root)


def ensure_experiment(store: Store, name: str) -> tuple[str, bool]:
    """Id of an experiment, and whether this call created it: of several processes exactly one
    does."""
    client = store.client
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
            log.warning(
                "The experiment `%s` was deleted in MLflow. "
                "It is needed, and was restored with its runs.",
                name,
            )
        return found.experiment_id, False
    location = str(store.local_root / "mlruns" / name) if store.local_root else None
    if store.artifacts:
        location = f"{store.artifacts.rstrip('/')}/{name}"
    try:
        tags = dict(EXPERIMENT_TAGS)
        return client.create_experiment(name, artifact_location=location, tags=tags), True
    except mlflow.exceptions.MlflowException as error:
        other = client.get_experiment_by_name(name) if exists_already(error) else None
        if other is None:
            raise
        return other.experiment_id, False


def end_run(store: Store, run: Run) -> None:
    """Let a run that is written to for years, and by nobody in between, be shown as finished."""
    if run.info.status == "RUNNING":
        store.client.set_terminated(run.info.run_id)


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that what was asked for does not exist."""
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def exists_already(error: Exception) -> bool:
    """Whether MLflow says that another process was first."""
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"
