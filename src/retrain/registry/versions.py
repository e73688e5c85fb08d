"""Versions and aliases of the registered model. The ledger decides who is champion; the aliases follow it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from retrain.config import Config
from retrain.errors import ModelError, PromotionError, StoreError
from retrain.models.digests import model_digest
from retrain.models.model_files import load_model
from retrain.models.scoring import Model
from retrain.models.strategy import ParentModel
from retrain.models.training import FittedModel
from retrain.registry.ledger import (
    Entry,
    Ledger,
    current_champion,
    model_digest_of,
    pending_approval,
    trained_until_of,
)
from retrain.registry.pages import note_move
from retrain.registry.runs import fetch_model_file, read_features
from retrain.registry.store import Store
from retrain.types import ModelRecord

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# For when the champion can't be had any more.
WAYS_BACK = (
    'If it is the champion, let another version serve: `retrain rollback --reason "..."` goes back to the one before it, '
    "`retrain rollback --to VERSION` to any (`retrain history` and the MLflow UI list them)."
)
CHAMPION, PREVIOUS, CHALLENGER, CANDIDATE = "champion", "previous", "challenger", "candidate"


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


def version_tags(
    training: FittedModel, role: str, snapshot: str, sha256: str, recipe: str, model_digest: str
) -> dict[str, str]:
    """What every version says about itself: its part, the rows it was trained on, and the versions it was continued from."""
    return {
        "role": role,
        "trained_from": training.window.start.isoformat(),
        "trained_until": training.window.end.isoformat(),
        "batches": ", ".join(training.contents),
        "batch_contents": ", ".join(training.contents.values()),
        "training_rows": str(training.rows),
        "snapshot": snapshot,
        "model_sha256": sha256,
        "recipe": recipe,
        "model_digest": model_digest,
        "continued_from": ", ".join(map(str, training.lineage)),
        "strategy_choice": training.choice,
    }


def find_version(store: Store, run_id: str, role: str) -> ModelVersion | None:
    """The version that a run registered in a part (challenger or refit), None if it didn't."""
    for version in store.client.search_model_versions(
        f"name = '{store.registered_model}' and run_id = '{run_id}'"
    ):
        if version.tags.get("role") == role:
            return version
    return None


def model_record(version: ModelVersion) -> ModelRecord:
    """What a version's tags say about its training rows; empty where somebody else registered it."""
    tags = version.tags
    batches = [period for period in tags.get("batches", "").split(", ") if period]
    contents = [digest for digest in tags.get("batch_contents", "").split(", ") if digest]
    return ModelRecord(
        int(version.version),
        tags.get("trained_from", ""),
        tags.get("trained_until", ""),
        batches,
        dict(zip(batches, contents, strict=False)),
        tags.get("model_sha256", ""),
    )


def checked_record(version: ModelVersion, entries: Sequence[Entry]) -> ModelRecord:
    """What a version's tags say. Raises PromotionError when the ledger says otherwise: somebody has changed them.

    A model that had seen the rows that are to judge it would be praised for its memory.
    """
    record, known = model_record(version), trained_until_of(entries, int(version.version))
    if known is not None and record.trained_until != known:
        raise PromotionError(
            f"The tags of version {record.version} say that it was trained until {record.trained_until or 'an unknown time'}, the "
            f"ledger {known}: somebody has changed the tags. Set `trained_until` back to the ledger's in the MLflow UI."
        )
    return record


def get_version(store: Store, version: int) -> ModelVersion:
    """Raises StoreError when the registry has no such version."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version(store.registered_model, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise StoreError(_missing(store, version)) from error


def _missing(store: Store, version: int) -> str:
    """What to do about a version that the ledger names and the registry lacks."""
    name = store.registered_model
    left = sorted(
        int(found.version) for found in store.client.search_model_versions(f"name = '{name}'")
    )
    if not left:
        return (
            f"The registry has no version {version} of `{name}`, nor any other, though the ledger names it: the model was deleted in "
            "MLflow. Nothing was changed. Restore the tracking store from a backup, or start over under another "
            "`tracking.registered_model` in conf/tracking/."
        )
    return (
        f"The registry has no version {version} of `{name}`, though the ledger names it: it was deleted in MLflow. Nothing was "
        f"changed. {WAYS_BACK} There are {', '.join(map(str, left[-8:]))}. Or restore the tracking store from a backup."
    )


def load_version(
    store: Store, version: int, trusted_types: list[str], entries: Sequence[Entry]
) -> Model:
    """The model of a version, checked against its digest and the list of trusted types.

    The digest is the ledger's. Of a version that it has none of, the tag's: then the ledger is older than this check, or
    the version has not been judged yet. Raises ModelError, with the way out, when its files are gone, changed or not trusted.
    """
    from mlflow.exceptions import MlflowException

    found = get_version(store, version)
    try:
        return _load(found.source, recorded_digest(found, entries), tuple(trusted_types))
    except (MlflowException, OSError, ModelError) as error:
        raise ModelError(
            f"Version {version} of `{store.registered_model}` can't be loaded: {str(error).splitlines()[0]} "
            f"Champion and ledger stay as they were. {WAYS_BACK} Or restore its files from a backup (they belong under "
            f"{found.source}), or start over with a first champion under another `tracking.registered_model` in conf/tracking/."
        ) from error


def recorded_digest(version: ModelVersion, entries: Sequence[Entry]) -> str:
    """The sha256 that the version's model file must have. Raises ModelError when it was changed, or there is none."""
    recorded = model_digest_of(entries, int(version.version))
    tagged = version.tags.get("model_sha256")
    if recorded is not None and tagged != recorded:
        raise ModelError(
            f"The tag `model_sha256` is {tagged or 'gone'}, and the ledger says {recorded}: somebody has changed it, and "
            "perhaps the model. Set the tag back to the ledger's in the MLflow UI."
        )
    if not tagged:
        raise ModelError("Neither the ledger nor a tag `model_sha256` says what its file must be.")
    return tagged


@functools.lru_cache(
    maxsize=4
)  # one that is watched is compared with, and perhaps continued, in the same process
def _load(source: str, sha256: str | None, trusted_types: tuple[str, ...]) -> Model:
    return Model(load_model(fetch_model_file(source), trusted_types, sha256), read_features(source))


def load_parent(
    config: Config, store: Store, version: int, entries: Sequence[Entry]
) -> ParentModel:
    """A version to continue from, with the reason why it can't be, if so. Raises ModelError when it can't be loaded."""
    found = get_version(store, version)
    record = checked_record(found, entries)
    refusal = None
    if found.tags.get("model_digest") != model_digest(config):
        refusal = f"features, encoding or estimator are not those of version {version}"
    earlier = [int(number) for number in found.tags.get("continued_from", "").split(", ") if number]
    model = load_version(store, version, config.trusted_types, entries)
    until = datetime.fromisoformat(record.trained_until)
    return ParentModel(model, until, record, (version, *earlier), refusal)


def set_alias(store: Store, alias: str, version: int) -> None:
    store.client.set_registered_model_alias(store.registered_model, alias, str(version))


def follow_ledger(store: Store, ledger: Ledger) -> int | None:
    """Let the aliases `champion`, `previous` and `candidate` say what the ledger says; returns the champion's version.

    Read again after writing: a process that stalled between ledger and alias would otherwise overwrite a newer move.
    Also mends what a crash between the two left behind.
    """
    while True:
        entries = ledger.entries()
        if not entries:
            return None
        entry, pending = current_champion(entries), pending_approval(entries)
        wanted = {CANDIDATE: pending.candidate if pending else None}
        if entry is not None:
            champion = get_version(store, entry.champion)
            _refuse_another(champion, entries)
            wanted |= {CHAMPION: entry.champion, PREVIOUS: entry.previous}
        aliases = _aliases(store)
        for alias, version in wanted.items():
            # Someone may have tidied up the previous one.
            if (
                version is not None
                and aliases.get(alias) != version
                and find_number(store, version)
            ):
                set_alias(store, alias, version)
        if wanted[CANDIDATE] is None and CANDIDATE in aliases:
            store.client.delete_registered_model_alias(store.registered_model, CANDIDATE)
        if entry is not None:
            note_move(store, entries, champion)
        if len(ledger.entries()) == len(entries):
            return entry.champion if entry else None


def _refuse_another(champion: ModelVersion, entries: Sequence[Entry]) -> None:
    """Numbers start again when a model was deleted and another registered under its name."""
    recorded = model_digest_of(entries, int(champion.version))
    if recorded is not None and champion.tags.get("model_sha256") != recorded:
        raise StoreError(
            f"Version {champion.version} of `{champion.name}` is not the one that the ledger names: it says that the model file has "
            f"sha256 {recorded}, and the tag `model_sha256` is {champion.tags.get('model_sha256', 'gone')}. The tag was changed, or "
            "the model deleted and another registered under its name. Nothing was changed. Set the tag back in the MLflow UI, "
            'go back to another version (`retrain rollback --reason "..."`), or restore the store from a backup.'
        )


def find_number(store: Store, version: int) -> ModelVersion | None:
    """A version by number, None if the registry has none."""
    query = f"name = '{store.registered_model}' and version_number = {version}"
    return next(iter(store.client.search_model_versions(query)), None)


def require(store: Store, version: int) -> ModelVersion:
    """A version that a person named. Raises StoreError when there is none."""
    found = find_number(store, version)
    if found is None:
        raise StoreError(
            f"There is no version {version} of `{store.registered_model}`. `retrain history` and the MLflow UI list those that there are."
        )
    return found


def _aliases(store: Store) -> dict[str, int]:
    from mlflow.exceptions import MlflowException

    try:
        model = store.client.get_registered_model(store.registered_model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise StoreError(
            f"The registry has no model `{store.registered_model}`, though there is a ledger for it: it was deleted in MLflow. Nothing "
            "was changed. Restore the tracking store from a backup, or start over under another `tracking.registered_model`."
        ) from error
    return {alias: int(version) for alias, version in model.aliases.items()}
