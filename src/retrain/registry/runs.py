"""What a run holds: the resolved config, the snapshot as a data set, the model; one run for each
retraining."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain import __version__
from retrain.config import ColumnType, Config, Task, feature_types, to_container, to_yaml
from retrain.data.manifest import Manifest
from retrain.errors import ModelError, first_line
from retrain.lazy import mlflow
from retrain.lazy import numpy as np
from retrain.masking import mask, mask_tree
from retrain.models.fitting import to_features
from retrain.models.model_files import MODEL_FILE, file_digest
from retrain.models.storable import why_not_stored
from retrain.registry.names import fit_model_name, fit_name, fit_text
from retrain.registry.needs import feature_schema, find_needs
from retrain.registry.processes import PROCESS, this_process
from retrain.registry.store import Store, ensure_experiment
from retrain.renamed import all_names
from retrain.types import CodeRecord
from retrain.workspace import SNAPSHOT, Commit, current_commit, find_root

if TYPE_CHECKING:
    import polars as pl
    from sklearn.pipeline import Pipeline

CONFIG, PATCH = "config.yaml", "code.patch"
REFIT = "refit"  # kind of a run
TRAINED_IN = "retrained_in"  # tag of a refit's run: the one that holds its code and config
_OF_THE_RECIPE = ("model", "strategy", "snapshot", "snapshot_dvc", "git_commit", "git_dirty")


@contextlib.contextmanager
def start_run(
    store: Store,
    name: str,
    config: Config,
    tags: Mapping[str, str],
    suffix: str = "",
    parent: str | None = None,
) -> Iterator[str]:
    """A run with the resolved config as params and artifact, ended as FAILED when the block raises,
    as KILLED when a person stops it. Yields its id."""
    commit = current_commit()
    always = {
        "git_commit": commit.sha or "none",
        "git_dirty": str(bool(commit.patch)).lower(),
        "engine": f"retrain {__version__}",  # of an installed engine the commit says nothing
        PROCESS: this_process(),
    }
    if experiment_name := os.environ.get("DVC_EXP_NAME"):
        always["dvc_experiment"] = experiment_name
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
        try:
            yield run.info.run_id
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise


@contextlib.contextmanager
def start_refit(store: Store, parent: str, name: str) -> Iterator[str]:
    """A run beside that of the retraining whose recipe is fitted again. Yields its id.

    MLflow shows and compares versions by their runs, so each has one of its own. Not nested:
    tables and charts hide what lies below a run, and this is the one that serves.
    """
    trained = store.client.get_run(parent)
    same = {key: value for key, value in trained.data.tags.items() if key in _OF_THE_RECIPE}
    with mlflow.start_run(
        experiment_id=trained.info.experiment_id,
        run_name=fit_text(mask(name)),
        tags=masked_tags(same | {"kind": REFIT, TRAINED_IN: parent, PROCESS: this_process()}),
    ) as run:
        mlflow.log_params(trained.data.params)
        yield run.info.run_id


def masked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run or model, with those that MLflow would add.

    The address of git's remote holds a token in many a CI.
    """
    return {
        key: mask(value)
        for key, value in mlflow.tracking.context.registry.resolve_tags(dict(tags)).items()
    }


def code_record(config: Config) -> CodeRecord:
    """What trains in this process, as the run keeps it."""
    commit = current_commit()
    config_digest = hashlib.sha256(config_text(config).encode()).hexdigest()
    patch_digest = hashlib.sha256(_patch_bytes(commit)).hexdigest() if commit.patch else ""
    return CodeRecord(commit.sha or "", config_digest, patch_digest)


def read_artifact(artifact_uri: str, name: str) -> bytes:
    """A file of a run, byte for byte: as text its line ends would be changed."""
    here = Path(artifact_uri) / name  # MLflow takes its time to find that out
    return (here if here.is_file() else _download(artifact_uri, name)).read_bytes()


def _download(location: str, name: str) -> Path:
    """Local path of an artifact: where it lies in a local store, else downloaded."""
    return Path(mlflow.artifacts.download_artifacts(f"{location.rstrip('/')}/{name}"))


def _log_bytes(content: bytes, name: str) -> None:
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
    for run in store.client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.data.tags.get("kind") in ("retraining", REFIT):
            store.client.set_terminated(run.info.run_id, "KILLED")


def flat_params(config: Config) -> dict[str, Any]:
    """The resolved config with dotted keys; of the features the names, their schema is long."""
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
    """The snapshot as dataset input of the active run.

    Its digest stands for every row, unlike MLflow's own sampling. Of jobs that enter the same
    snapshot at the same moment MLflow refuses all but one; the second time they find it.
    """
    from retrain.registry.dataset_source import SnapshotSource

    periods = [batch.period for batch in manifest.batches]
    source = SnapshotSource(str(SNAPSHOT), periods, current_commit().sha)
    dataset = mlflow.data.meta_dataset.MetaDataset(  # type: ignore[abstract]  # it is not
        source, name=config.data.name, digest=manifest.digest, schema=feature_schema(config)
    )
    try:
        mlflow.log_input(dataset, context=context)
    except mlflow.exceptions.MlflowException:
        mlflow.log_input(dataset, context=context)


@dataclass(frozen=True)
class StoredModel:
    """A model that a run has logged, and its file's digest and size in bytes."""

    model_id: str
    sha256: str
    size: int


def log_model(config: Config, pipeline: Pipeline, name: str, sample: pl.DataFrame) -> StoredModel:
    """Store a Pipeline in the active run, with signature, input example, and what it needs where
    it is loaded.

    Numbers are of any type in the signature: MLflow takes no whole number and no flag for a double.

    Raises ModelError when it holds types that `trusted_types` does not list: it could not be loaded
    again.
    """
    classifies = config.data.task is not Task.regression
    shape = (-1, len(pipeline.classes_)) if classifies else (-1,)
    output = mlflow.types.TensorSpec(np.dtype("float64"), shape)
    numbers = mlflow.types.schema.AnyType()  # type: ignore[no-untyped-call]
    signature = mlflow.models.ModelSignature(
        inputs=feature_schema(config, numbers),
        outputs=mlflow.types.Schema([output]),
    )
    needs = find_needs(pipeline, find_root())
    try:
        with tempfile.TemporaryDirectory() as folder:
            logged = mlflow.sklearn.log_model(
                pipeline,
                name=fit_model_name(name),
                signature=signature,
                input_example=to_features(sample.head(5), feature_types(config)),
                serialization_format="skops",
                skops_trusted_types=sorted(needs.types & set(all_names(config.trusted_types))),
                pip_requirements=needs.requirements,
                code_paths=needs.copy_code(Path(folder)),
                tags=masked_tags({}),
                pyfunc_predict_fn="predict_proba" if classifies else "predict",
            )
    except mlflow.exceptions.MlflowException as error:
        raise ModelError(
            why_not_stored(pipeline, config.trusted_types)
            or f"The model can't be stored: {first_line(error)}"
        ) from error
    path = fetch_model_file(mlflow.get_logged_model(logged.model_id).artifact_location)
    return StoredModel(logged.model_id, file_digest(path), path.stat().st_size)


def fetch_model_file(location: str) -> Path:
    """Local path of the model file of a version."""
    return _download(location, MODEL_FILE)


def read_requirements(location: str) -> list[str]:
    """The packages of a logged model, as `name==version`."""
    return _download(location, "requirements.txt").read_text(encoding="utf-8").split()


def read_features(location: str) -> dict[str, ColumnType]:
    """The features that a logged model was trained on, from its signature.

    Strings are categories; all but times are numbers else.
    """
    model = mlflow.models.Model.load(str(_download(location, "MLmodel")))
    assert model.signature is not None
    kinds = {"string": ColumnType.categorical, "datetime": ColumnType.datetime}
    return {
        column["name"]: kinds.get(column["type"], ColumnType.numeric)
        for column in model.signature.inputs.to_dict()
    }
