"""Versions and aliases of the registered model. The ledger decides who is champion; the aliases follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrain.errors import ModelError, StoreError
from retrain.modeling.model_files import load_model
from retrain.modeling.training import Training
from retrain.promotion.ledger import Ledger, current_champion
from retrain.tracking.runs import fetch_model_file
from retrain.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from sklearn.pipeline import Pipeline

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


def register(store: Store, model_id: str, run_id: str, tags: Mapping[str, str]) -> int:
    """A new version for a model that a run has logged. Its tags are set in the same breath, so it is never without."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(store.registered_model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = store.client.get_logged_model(model_id).artifact_location
    created = store.client.create_model_version(
        store.registered_model, source, run_id=run_id, tags=dict(tags), model_id=model_id
    )
    return int(created.version)


def version_tags(training: Training, role: str, snapshot: str, sha256: str) -> dict[str, str]:
    """What every version says about itself: its part, and the rows it was trained on."""
    return {
        "role": role,
        "trained_from": training.window.start.isoformat(),
        "trained_until": training.window.end.isoformat(),
        "batches": ", ".join(training.batches),
        "training_rows": str(training.rows),
        "snapshot": snapshot,
        "model_sha256": sha256,
    }


def find_version(store: Store, run_id: str, role: str) -> ModelVersion | None:
    """The version that a run registered in a part (challenger or refit), None if it didn't."""
    for version in store.client.search_model_versions(f"name = '{store.registered_model}' and run_id = '{run_id}'"):
        if version.tags.get("role") == role:
            return version
    return None


def get_version(store: Store, version: int) -> ModelVersion:
    """Raises StoreError when the registry has no such version."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version(store.registered_model, str(version))
    except MlflowException as error:
        raise StoreError(
            f"The registry has no version {version} of `{store.registered_model}`, though the ledger names it. "
            f"Restore the tracking store from a backup, or start over under another `tracking.registered_model`."
        ) from error


def load_version(store: Store, version: int, trusted_types: list[str]) -> Pipeline:
    """The Pipeline of a version, checked against the registry's digest and the list of trusted types.

    Raises ModelError, with the way out, when its files are gone, changed or not trusted.
    """
    from mlflow.exceptions import MlflowException

    found = get_version(store, version)
    try:
        return load_model(fetch_model_file(found.source), trusted_types, found.tags.get("model_sha256"))
    except (MlflowException, OSError, ModelError) as error:
        raise ModelError(
            f"Version {version} of `{store.registered_model}` can't be loaded: {str(error).splitlines()[0]} "
            f"Champion and ledger stay as they were. Restore its files from a backup (they belong under {found.source}), "
            "or start over with a first champion under another `tracking.registered_model` in conf/tracking/."
        ) from error


def set_alias(store: Store, alias: str, version: int) -> None:
    store.client.set_registered_model_alias(store.registered_model, alias, str(version))


def follow_ledger(store: Store, ledger: Ledger) -> int | None:
    """Let the aliases `champion` and `previous` say what the ledger says; returns the champion's version.

    Read again after writing: a process that stalled between ledger and alias would otherwise overwrite a newer move.
    Also mends what a crash between the two left behind.
    """
    while True:
        entry = current_champion(ledger.entries())
        if entry is None:
            return None
        get_version(store, entry.champion)
        aliases = _aliases(store)
        if aliases.get(CHAMPION) != entry.champion:
            set_alias(store, CHAMPION, entry.champion)
        if entry.previous is not None and aliases.get(PREVIOUS) != entry.previous and _exists(store, entry.previous):
            set_alias(store, PREVIOUS, entry.previous)
        if current_champion(ledger.entries()) == entry:
            return entry.champion


def _exists(store: Store, version: int) -> bool:
    """Whether the registry still has a version: someone may have tidied up."""
    query = f"name = '{store.registered_model}' and version_number = {version}"
    return bool(store.client.search_model_versions(query))


def _aliases(store: Store) -> dict[str, int]:
    model = store.client.get_registered_model(store.registered_model)
    return {alias: int(version) for alias, version in model.aliases.items()}
