"""What a run holds: the resolved config, the snapshot as a data set, the model; one run for each retraining."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain import __version__
from retrain.config import ColumnType, Config, Task, feature_types, to_container, to_yaml
from retrain.data.manifest import Manifest
from retrain.errors import ModelError
from retrain.masking import mask, mask_tree
from retrain.models.model_files import MODEL_FILE, file_digest
from retrain.models.storable import why_not_stored
from retrain.registry.names import fit_name, fit_text, log_figures
from retrain.registry.store import MONITORING, Store, ensure_experiment, first_line
from retrain.renamed import all_names
from retrain.types import CodeRecord, DecisionRecord, ScoreRecord
from retrain.workspace import SNAPSHOT, Commit, current_commit

if TYPE_CHECKING:
    import polars as pl
    from sklearn.pipeline import Pipeline

CONFIG, PATCH = "config.yaml", "code.patch"
MOST_WATCHED = 50  # features, the most worrying ones


@contextlib.contextmanager
def start_run(
    store: Store,
    name: str,
    config: Config,
    tags: Mapping[str, str],
    suffix: str = "",
    parent: str | None = None,
) -> Iterator[str]:
    """A run with the resolved config as params and artifact, ended as FAILED when the block raises. Yields its id."""
    import mlflow

    commit = current_commit()
    environment = {"dvc_experiment": os.environ.get("DVC_EXP_NAME")}
    always = {"git_commit": commit.sha or "none", "git_dirty": str(bool(commit.patch)).lower()}
    always |= {key: value for key, value in environment.items() if value}
    always["engine"] = f"retrain {__version__}"  # of an installed engine the commit says nothing
    experiment, _ = ensure_experiment(store, store.experiment + suffix)
    with mlflow.start_run(
        experiment_id=experiment,
        run_name=fit_text(mask(name)),
        tags=masked_tags(always | dict(tags)),
        parent_run_id=parent,
        nested=parent is not None,
    ) as run:
        mlflow.log_params({fit_name(key): value for key, value in flat_params(config).items()})
        mlflow.log_text(config_text(config), CONFIG)
        if commit.patch:
            _log_bytes(_patch_bytes(commit), PATCH)
        yield run.info.run_id


def masked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run or model, with those that MLflow would add: the address of git's remote holds a token in many a CI."""
    from mlflow.tracking.context.registry import resolve_tags

    return {key: mask(value) for key, value in resolve_tags(dict(tags)).items()}


def code_record(config: Config) -> CodeRecord:
    """What trains in this process, as the run keeps it: the commit, and the sha256 of config and uncommitted code."""
    commit = current_commit()
    config_digest = hashlib.sha256(config_text(config).encode()).hexdigest()
    patch_digest = hashlib.sha256(_patch_bytes(commit)).hexdigest() if commit.patch else ""
    return CodeRecord(commit.sha or "", config_digest, patch_digest)


def read_artifact(artifact_uri: str, name: str) -> bytes:
    """A file of a run, byte for byte: as text its line ends would be changed."""
    import mlflow

    return Path(
        mlflow.artifacts.download_artifacts(f"{artifact_uri.rstrip('/')}/{name}")
    ).read_bytes()


def _log_bytes(content: bytes, name: str) -> None:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        mlflow.log_artifact(str(Path(folder) / name))


def _patch_bytes(commit: Commit) -> bytes:
    return commit.patch.encode("utf-8", "surrogateescape")


def config_text(config: Config) -> str:
    """The resolved config as a run keeps it."""
    return mask(to_yaml(config))


def end_abandoned(store: Store) -> None:
    """Mark the runs of retrainings that were killed: MLflow would show them as running for ever.

    Only in a local store, whose project lock the caller holds: there nobody else can be at work.
    """
    if store.local_root is None:
        return
    experiment, _ = ensure_experiment(store, store.experiment)
    for run in store.client.search_runs(
        [experiment], "attributes.status = 'RUNNING' and tags.kind = 'retraining'"
    ):
        store.client.set_terminated(run.info.run_id, "KILLED")


def log_json(content: Any, path: str) -> None:
    """A JSON artifact of the active run."""
    import mlflow

    mlflow.log_dict(content, path)


def log_monitoring(store: Store, decision: DecisionRecord, step: int) -> None:
    """The decision, yes or no, and what was seen, in the one run that watches over a registered model; a step for each batch."""
    experiment, _ = ensure_experiment(store, store.experiment + MONITORING)
    found = store.client.search_runs(
        [experiment], max_results=1, order_by=["attributes.start_time ASC"]
    )
    run = (
        found[0]
        if found
        else store.client.create_run(
            experiment, run_name=fit_text(f"monitoring of {store.registered_model}")
        )
    )
    figures = {f"p/{name}": change.p_value for name, change in decision.families.items()}
    figures |= {
        f"distance/{name}": change.distance
        for name, change in list(decision.features.items())[:MOST_WATCHED]
    }
    figures |= {
        f"importance/{name}": change.importance
        for name, change in list(decision.features.items())[:MOST_WATCHED]
    }
    figures |= {f"policy/{name}": value for name, value in decision.figures.items()}
    figures |= {
        "retrain": float(decision.retrain),
        "champion_version": float(decision.champion_version or 0),
    }
    if decision.scores and decision.scores[-1].period == decision.newest_batch:
        newest = decision.scores[-1]
        figures |= {f"champion/{decision.loss}{end}": value for end, value in _with_ends(newest)}
        figures |= {
            "champion/scored_version": float(newest.version or decision.champion_version or 0)
        }
    figures |= {f"expected/{decision.loss}": score.value for score in decision.expected[-1:]}
    log_figures(store.client, run.info.run_id, figures, step)
    store.client.log_dict(
        run.info.run_id,
        dataclasses.asdict(decision),
        f"decisions/{decision.watched_batch or decision.newest_batch}.json",
    )


def _with_ends(score: ScoreRecord) -> list[tuple[str, float | None]]:
    return [("", score.value), ("_low", score.low), ("_high", score.high)]


def flat_params(config: Config) -> dict[str, Any]:
    """The resolved config with dotted keys. The contract of the features is long, and stands in `config.yaml`."""
    content = mask_tree(to_container(config))
    content["data"]["features"] = ", ".join(content["data"]["features"])

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix, node

    return dict(walk(content, ""))


def log_dataset(config: Config, manifest: Manifest, context: str) -> None:
    """The snapshot as dataset input of the active run: its digest stands for every row, unlike MLflow's own sampling.

    Of jobs that enter the same snapshot at the same moment MLflow refuses all but one; the second time they find it.
    """
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.exceptions import MlflowException

    from retrain.registry.dataset_source import SnapshotSource

    source = SnapshotSource(
        str(SNAPSHOT), [batch.period for batch in manifest.batches], current_commit().sha
    )
    dataset = MetaDataset(
        source, name=config.data.name, digest=manifest.digest, schema=feature_schema(config)
    )
    try:
        mlflow.log_input(dataset, context=context)
    except MlflowException:
        mlflow.log_input(dataset, context=context)


def feature_schema(config: Config) -> Any:
    """MLflow's schema of the raw feature columns: strings, doubles and times.

    A column may hold nulls, but not be left out: MLflow calls a column optional only when it may be absent.
    """
    from mlflow.types import ColSpec, DataType, Schema

    def spec(name: str) -> ColSpec:
        kinds = {
            ColumnType.categorical: DataType.string,
            ColumnType.text: DataType.string,
            ColumnType.sparse: DataType.string,
            ColumnType.datetime: DataType.datetime,
        }
        return ColSpec(kinds.get(config.data.features[name].type, DataType.double), name)

    return Schema([spec(name) for name in config.data.features])


@dataclass(frozen=True)
class StoredModel:
    """A model that a run has logged, and its file's digest and size in bytes."""

    model_id: str
    sha256: str
    size: int


def log_model(config: Config, pipeline: Pipeline, name: str, sample: pl.DataFrame) -> StoredModel:
    """Store a Pipeline in the active run, with signature and input example.

    Raises ModelError when it holds types that `trusted_types` does not list: it could not be loaded again.
    """
    import mlflow
    import mlflow.sklearn
    import numpy as np
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from retrain.models.fitting import to_features

    classifies = config.data.task is not Task.regression
    shape = (-1, len(pipeline.classes_)) if classifies else (-1,)
    outputs = Schema([TensorSpec(np.dtype("float64"), shape)])
    signature = ModelSignature(inputs=feature_schema(config), outputs=outputs)
    requirements = [
        f"{package}=={importlib.metadata.version(package)}"
        for package in ("mlflow", "scikit-learn", "skops", "numpy", "pandas")
    ]
    try:
        logged = mlflow.sklearn.log_model(
            pipeline,
            name=name,
            signature=signature,
            input_example=to_features(sample.head(5), feature_types(config)),
            serialization_format="skops",
            skops_trusted_types=all_names(config.trusted_types),
            pip_requirements=requirements,
            tags=masked_tags({}),
            pyfunc_predict_fn="predict_proba" if classifies else "predict",
        )
    except MlflowException as error:
        raise ModelError(
            why_not_stored(pipeline, config.trusted_types)
            or f"The model can't be stored: {first_line(error)}"
        ) from error
    location = mlflow.get_logged_model(logged.model_id).artifact_location
    path = fetch_model_file(location)
    return StoredModel(logged.model_id, file_digest(path), path.stat().st_size)


def fetch_model_file(location: str) -> Path:
    """Local path of the model file of a version: where it lies in a local store, else downloaded."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"{location.rstrip('/')}/{MODEL_FILE}"))


def read_requirements(location: str) -> list[str]:
    """The packages of a logged model, as `name==version`."""
    import mlflow

    path = mlflow.artifacts.download_artifacts(f"{location.rstrip('/')}/requirements.txt")
    return Path(path).read_text(encoding="utf-8").split()


def read_features(location: str) -> dict[str, ColumnType]:
    """The features that a logged model was trained on, from its signature: strings are categories, doubles numbers."""
    import mlflow
    from mlflow.models import Model
    from mlflow.types import DataType

    path = mlflow.artifacts.download_artifacts(f"{location.rstrip('/')}/MLmodel")
    columns = Model.load(path).signature.inputs.inputs
    kinds = {DataType.string: ColumnType.categorical, DataType.datetime: ColumnType.datetime}
    return {column.name: kinds.get(column.type, ColumnType.numeric) for column in columns}
