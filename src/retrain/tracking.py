"""Everything that is written to MLflow passes here: one prepared store, one run for each retraining."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain.config import ColumnType, Config, TrackingConfig, to_container, to_yaml
from retrain.data.snapshot import Manifest
from retrain.errors import ModelError, StoreError
from retrain.modeling.model_files import MODEL_FILE, file_digest
from retrain.project import SNAPSHOT, current_commit, store_root

if TYPE_CHECKING:
    import polars as pl
    from mlflow import MlflowClient
    from sklearn.pipeline import Pipeline

SERVER_TIMEOUT_SECONDS = 5
CANDIDATES, LEDGER = "-candidates", "-ledger"
# Where an absolute path of the project stands in MLflow's tables (schema of mlflow 3.17).
_PATH_COLUMNS = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
]


@dataclass(frozen=True)
class Store:
    """An open tracking store. `local_root` is None for a server."""

    client: MlflowClient
    experiment: str
    registered_model: str
    local_root: Path | None


def tracking_uri(tracking: TrackingConfig) -> str:
    """The store's address. Raises StoreError when the environment should hold it and doesn't."""
    if tracking.uri_from_env is None:
        return f"sqlite:///{store_root() / 'mlflow.db'}"
    address = os.environ.get(tracking.uri_from_env)
    if not address:
        raise StoreError(
            f"The environment variable {tracking.uri_from_env} is empty (`tracking.uri_from_env`). "
            "Set it to the address of your tracking server, or choose `tracking: local` in conf/config.yaml."
        )
    return address


def store_may_exist(tracking: TrackingConfig) -> bool:
    """False when it is certain, without importing MLflow, that nothing was ever tracked."""
    return tracking.uri_from_env is not None or (store_root() / "mlflow.db").is_file()


def open_store(config: Config) -> Store:
    """Prepare the store once, connect to it, and make sure that its experiments are there.

    Raises StoreError within 15 s when it does not answer.
    """
    tracking = config.tracking
    address = tracking_uri(tracking)
    local = tracking.uri_from_env is None
    _quiet_and_impatient()
    if not local:
        _check_server(address)
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(address)
    try:
        if local:
            _prepare_local(address)
        store = Store(MlflowClient(address), tracking.experiment, tracking.registered_model, store_root() if local else None)
        ensure_experiment(store, store.experiment)
    except MlflowException as error:
        raise StoreError(f"The tracking store {_without_password(address)} refused: {_first_line(error)}") from error
    return store


def _quiet_and_impatient() -> None:
    """Settings that MLflow reads from the environment; what the user has set there wins."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # the project works without a network
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def _check_server(address: str) -> None:
    """Ask a server for a sign of life before MLflow's own minutes of retries. Any HTTP answer will do."""
    if not address.startswith(("http://", "https://")):
        return
    parts = urllib.parse.urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    probe = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/health", "", ""))
    try:
        urllib.request.urlopen(probe, timeout=SERVER_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StoreError(
            f"The tracking server {_without_password(address)} does not answer ({reason}). "
            "Start it or correct its address in the environment, then run the command again; nothing was changed."
        ) from error


def _prepare_local(address: str) -> None:
    """Create the database, under a lock: processes that create it at the same time destroy it."""
    from filelock import FileLock
    from mlflow import MlflowClient

    database = Path(address.removeprefix("sqlite:///"))
    lock = store_root() / ".dvc" / "tmp" / "mlflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=120):
        if not database.is_file():
            MlflowClient(address).search_experiments(max_results=1)
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("pragma journal_mode=WAL")  # writers of a parallel sweep wait less
        else:
            _follow_move(database)


def _follow_move(database: Path) -> None:
    """MLflow stores artifact paths absolutely: after the project was moved or copied, let them point here."""
    root = str(store_root() / "mlruns")
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        query = "select artifact_location from experiments where artifact_location like '%/mlruns/%' order by experiment_id limit 1"
        try:
            found = connection.execute(query).fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{database.name} is damaged ({error}). Restore it from a backup; nothing was changed.") from error
        old = found[0].rsplit("/mlruns/", 1)[0] + "/mlruns" if found else root
        if old.removeprefix("file://") == root:
            return
        with connection:
            for table, column in _PATH_COLUMNS:
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
                    (root, len(old) + 1, len(old) + 1, old + "/"),
                )
    logging.getLogger("retrain").info("The project has moved: the paths in mlflow.db now point to %s.", root)


def ensure_experiment(store: Store, name: str) -> tuple[str, bool]:
    """Id of an experiment, and whether this call created it: of several processes exactly one does."""
    from mlflow.exceptions import MlflowException

    client = store.client
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id, False
    location = str(store.local_root / "mlruns" / name) if store.local_root else None
    try:
        return client.create_experiment(name, artifact_location=location), True
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name).experiment_id, False


@contextlib.contextmanager
def start_run(store: Store, name: str, config: Config, tags: Mapping[str, str], suffix: str = "", parent: str | None = None) -> Iterator[str]:
    """A run with the resolved config as params and artifact, ended as FAILED when the block raises. Yields its id."""
    import mlflow

    commit = current_commit()
    environment = {"dvc_experiment": os.environ.get("DVC_EXP_NAME")}
    always = {"git_commit": commit.sha or "none", "git_dirty": str(commit.dirty).lower()}
    always |= {key: value for key, value in environment.items() if value}
    experiment, _ = ensure_experiment(store, store.experiment + suffix)
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags={**always, **tags}, parent_run_id=parent, nested=parent is not None) as run:
        mlflow.log_params(flat_params(config))
        mlflow.log_text(to_yaml(config), "config.yaml")
        yield run.info.run_id


def flat_params(config: Config) -> dict[str, Any]:
    """The resolved config with dotted keys. The contract of the features is long, and stands in `config.yaml`."""
    content = to_container(config)
    content["data"]["features"] = ", ".join(content["data"]["features"])

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix, node

    return dict(walk(content, ""))


def log_dataset(config: Config, manifest: Manifest, context: str) -> None:
    """The snapshot as dataset input of the active run: its digest stands for every row, unlike MLflow's own sampling."""
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset

    from retrain.dataset_source import SnapshotSource

    source = SnapshotSource(str(SNAPSHOT), [batch.period for batch in manifest.batches], current_commit().sha)
    mlflow.log_input(MetaDataset(source, name=config.data.name, digest=manifest.digest, schema=feature_schema(config)), context=context)


def feature_schema(config: Config) -> Any:
    """MLflow's schema of the raw feature columns: strings and doubles, optional where the contract allows nulls."""
    from mlflow.types import ColSpec, DataType, Schema

    def spec(name: str) -> ColSpec:
        column = config.data.features[name]
        kind = DataType.string if column.type is ColumnType.categorical else DataType.double
        return ColSpec(kind, name, required=not column.nullable)

    return Schema([spec(name) for name in config.data.features])


def log_model(config: Config, pipeline: Pipeline, name: str, sample: pl.DataFrame) -> tuple[str, str]:
    """Store a Pipeline in the active run, with signature and input example. Returns model id and sha256 of the file.

    Raises ModelError when it holds types that `trusted_types` does not list: it could not be loaded again.
    """
    import mlflow
    import mlflow.sklearn
    import numpy as np
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from retrain.modeling.pipeline import to_features

    signature = ModelSignature(inputs=feature_schema(config), outputs=Schema([TensorSpec(np.dtype("float64"), (-1, len(pipeline.classes_)))]))
    requirements = [f"{package}=={importlib.metadata.version(package)}" for package in ("mlflow", "scikit-learn", "skops", "numpy", "pandas")]
    try:
        logged = mlflow.sklearn.log_model(
            pipeline,
            name=name,
            signature=signature,
            input_example=to_features(sample.head(5), config),
            serialization_format="skops",
            skops_trusted_types=list(config.trusted_types),
            pip_requirements=requirements,
            pyfunc_predict_fn="predict_proba",
        )
    except MlflowException as error:
        raise ModelError(_why_not_stored(pipeline, config.trusted_types) or f"The model can't be stored: {_first_line(error)}") from error
    location = mlflow.get_logged_model(logged.model_id).artifact_location
    return logged.model_id, file_digest(fetch_model_file(location))


def fetch_model_file(location: str) -> Path:
    """Local path of the model file of a version: where it lies in a local store, else downloaded."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"{location.rstrip('/')}/{MODEL_FILE}"))


def _why_not_stored(pipeline: Pipeline, trusted: Sequence[str]) -> str | None:
    import skops.io

    unlisted = set(skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))) - set(trusted)
    if not unlisted:
        return None
    return (
        f"The model holds types that are not on the list of those to load: {', '.join(sorted(unlisted))}. "
        "If you trust their code, add them to `trusted_types` in conf/config.yaml and run the command again."
    )


def _without_password(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urllib.parse.urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2], query=""))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:500]
