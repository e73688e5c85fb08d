"""Versions and aliases of the registered model. The ledger decides who is champion; the aliases
follow it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from retrain.config import Config
from retrain.errors import ModelError, PromotionError, StoreError
from retrain.lazy import mlflow
from retrain.models.digests import model_digest
from retrain.models.model_files import load_model
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model
from retrain.registry.entries import (
    Entry,
    current_champion,
    model_digest_of,
    pending_approval,
    trained_until_of,
)
from retrain.registry.ledger import Ledger
from retrain.registry.pages import note_move
from retrain.registry.runs import TRAINED_IN, StoredModel, fetch_model_file, read_features
from retrain.registry.store import Store, exists_already, is_missing
from retrain.registry.version_tags import RECORD_TAG, read_tags, to_tags
from retrain.types import ModelRecord

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# For when the champion can't be had any more.
WAYS_BACK = (
    "If it is the champion, let another version serve: "
    '`retrain rollback --reason "..."` goes back to the one before it, '
    "`retrain rollback --to VERSION` to any (`retrain history` and the MLflow UI list them)."
)
_SET_BACK = (
    f"set the tag back to the ledger's value (`{RECORD_TAG}.0`; in earlier versions of this "
    "project, a tag of that name)"
)
CHAMPION, PREVIOUS, CHALLENGER, CANDIDATE = "champion", "previous", "challenger", "candidate"


def register(store: Store, stored: StoredModel, run_id: str, record: ModelRecord) -> ModelRecord:
    """A new version for a model that a run has logged, with its tags from the start."""
    try:
        store.client.create_registered_model(store.registered_model)
    except mlflow.exceptions.MlflowException as error:
        if not exists_already(error):
            raise
    record = dataclasses.replace(record, sha256=stored.sha256)
    created = store.client.create_model_version(
        store.registered_model,
        store.client.get_logged_model(stored.model_id).artifact_location,
        run_id=run_id,
        tags=to_tags(record),
        model_id=stored.model_id,
    )
    # As MLflow's own way to register does: the page of models then links the version.
    link = json.dumps([{"name": store.registered_model, "version": created.version}])
    store.client.set_logged_model_tags(stored.model_id, {"mlflow.modelVersions": link})
    return dataclasses.replace(record, version=int(created.version))


def find_refit(store: Store, challenger: int) -> ModelRecord | None:
    """The version that is the refit of another, None if there is none."""
    query = f"name = '{store.registered_model}' and tags.refit_of = '{challenger}'"
    return next(map(model_record, store.client.search_model_versions(query)), None)


def training_run(store: Store, version: ModelVersion) -> str | None:
    """The run that holds code and config of a version: of a refit, that of its challenger."""
    if not version.run_id:
        return None
    own = store.client.get_run(version.run_id)
    return str(own.data.tags.get(TRAINED_IN, version.run_id))


def model_record(version: ModelVersion) -> ModelRecord:
    """What a version's tags say about it."""
    return read_tags(int(version.version), version.tags)


def checked_record(version: ModelVersion, entries: Sequence[Entry]) -> ModelRecord:
    """What a version's tags say. Raises PromotionError when the ledger says otherwise."""
    record, known = model_record(version), trained_until_of(entries, int(version.version))
    if known is not None and record.trained_until != known:
        raise PromotionError(
            f"The tags of version {record.version} say that it was trained until "
            f"{record.trained_until or 'an unknown time'}, the ledger {known}: "
            "somebody has changed the tags.",
            hint=f"{_SET_BACK[0].upper()}{_SET_BACK[1:]}.",
        )
    return record


def get_version(store: Store, version: int) -> ModelVersion:
    """Raises StoreError when the registry has no such version."""
    try:
        return store.client.get_model_version(store.registered_model, str(version))
    except mlflow.exceptions.MlflowException as error:
        if not is_missing(error):
            raise
        raise _missing(store, version) from error


def _missing(store: Store, version: int) -> StoreError:
    """The registry lacks a version that the ledger names."""
    name = store.registered_model
    found = store.client.search_model_versions(f"name = '{name}'")
    left = sorted(int(other.version) for other in found)
    if not left:
        return StoreError(
            f"The registry has no version {version} of `{name}`, nor any other, though the ledger "
            "names it: the model was deleted in MLflow. Nothing was changed.",
            hint="Restore the tracking store from a backup, or start over under another "
            "`tracking.registered_model` in conf/tracking/.",
        )
    return StoreError(
        f"The registry has no version {version} of `{name}`, though the ledger names it: "
        "it was deleted in MLflow. Nothing was changed.",
        hint=f"{WAYS_BACK} There are {', '.join(map(str, left[-8:]))}. "
        "Or restore the tracking store from a backup.",
    )


def load_version(
    store: Store, version: int, trusted_types: list[str], entries: Sequence[Entry]
) -> Model:
    """The model of a version, checked against its digest and the list of trusted types.

    The digest is the ledger's. Of a version that it has none of, the tag's: then the ledger is
    older than this check, or the version has not been compared yet. Raises ModelError when its
    files are gone, changed or not trusted.
    """
    found = get_version(store, version)
    source = found.source or ""
    try:
        return _load(source, recorded_digest(found, entries), tuple(trusted_types))
    except (mlflow.exceptions.MlflowException, OSError, ModelError) as error:
        raise ModelError(
            f"Version {version} of `{store.registered_model}` can't be loaded: "
            f"{str(error).splitlines()[0]} Champion and ledger stay as they were.",
            hint=f"{_hint_of(error)}{WAYS_BACK} Or restore its files from a backup (they belong "
            f"under {source}), or start over with a first champion under another "
            "`tracking.registered_model` in conf/tracking/.",
        ) from error


def _hint_of(error: Exception) -> str:
    hint = error.hint if isinstance(error, ModelError) else None
    return f"{hint[0].upper()}{hint[1:]}. " if hint else ""


def recorded_digest(version: ModelVersion, entries: Sequence[Entry]) -> str:
    """The sha256 that the version's model file must have.

    Raises ModelError when it was changed, or there is none.
    """
    recorded = model_digest_of(entries, int(version.version))
    tagged = model_record(version).sha256
    if recorded is not None and tagged != recorded:
        raise ModelError(
            f"Its tags say that the model file has sha256 {tagged or '(nothing)'}, and the ledger "
            f"says {recorded}: somebody has changed them, and perhaps the model.",
            hint=_SET_BACK,
        )
    if not tagged:
        raise ModelError("Neither the ledger nor a tag says what its file must be.")
    return str(tagged)


@functools.lru_cache(maxsize=4)  # one that is monitored is an incumbent in the same process
def _load(source: str, sha256: str, trusted_types: tuple[str, ...]) -> Model:
    return Model(load_model(fetch_model_file(source), trusted_types, sha256), read_features(source))


def load_parent(
    config: Config, store: Store, version: int, entries: Sequence[Entry]
) -> ParentModel:
    """A version to continue from, with the reason why it can't be, if so.

    Raises ModelError when it can't be loaded.
    """
    record = checked_record(get_version(store, version), entries)
    refusal = None
    if record.model_digest != model_digest(config):
        refusal = f"features, encoding or estimator are not those of version {version}"
    model = load_version(store, version, config.trusted_types, entries)
    until = datetime.fromisoformat(record.trained_until)
    return ParentModel(model, until, record, (version, *record.continued_from), refusal)


def set_alias(store: Store, alias: str, version: int) -> None:
    store.client.set_registered_model_alias(store.registered_model, alias, str(version))


def follow_ledger(store: Store, ledger: Ledger) -> int | None:
    """Let the aliases `champion`, `previous` and `candidate` say what the ledger says.

    Returns the champion's version. Read again after writing: a process that stalled between ledger
    and alias would otherwise overwrite a newer move. Also mends what a crash between the two left.
    """
    while True:
        entries = ledger.entries()
        if not entries:
            return None
        entry, pending = current_champion(entries), pending_approval(entries)
        wanted = {CANDIDATE: pending.candidate if pending else None}
        champion = None
        if entry is not None and entry.champion is not None:
            champion = get_version(store, entry.champion)
            _refuse_another(champion, entries)
            wanted |= {CHAMPION: entry.champion, PREVIOUS: entry.previous}
        _set_aliases(store, wanted)
        if champion is not None:
            note_move(store, entries, champion)
        if len(ledger.entries()) == len(entries):
            return entry.champion if entry else None


def _set_aliases(store: Store, wanted: dict[str, int | None]) -> None:
    aliases = _aliases(store)
    for alias, version in wanted.items():
        if version is None or aliases.get(alias) == version:
            continue
        if find_number(store, version):  # someone may have tidied up the previous one
            set_alias(store, alias, version)
    if wanted[CANDIDATE] is None and CANDIDATE in aliases:
        store.client.delete_registered_model_alias(store.registered_model, CANDIDATE)


def _refuse_another(champion: ModelVersion, entries: Sequence[Entry]) -> None:
    """Numbers start again when a model was deleted and another registered under its name."""
    recorded = model_digest_of(entries, int(champion.version))
    tagged = model_record(champion).sha256
    if recorded is not None and tagged != recorded:
        raise StoreError(
            f"Version {champion.version} of `{champion.name}` is not the one that the ledger "
            f"names: it says that the model file has sha256 {recorded}, and the tags "
            f"{tagged or '(nothing)'}. The tags were changed, or the model "
            "deleted and another registered under its name. Nothing was changed.",
            hint=f"{_SET_BACK[0].upper()}{_SET_BACK[1:]}, go back to another version "
            '(`retrain rollback --reason "..."`), or restore the store from a backup.',
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
            f"There is no version {version} of `{store.registered_model}`.",
            hint="`retrain history` and the MLflow UI list those that there are.",
        )
    return found


def _aliases(store: Store) -> dict[str, int]:
    try:
        model = store.client.get_registered_model(store.registered_model)
    except mlflow.exceptions.MlflowException as error:
        if not is_missing(error):
            raise
        raise StoreError(
            f"The registry has no model `{store.registered_model}`, though there is a ledger for "
            "it: it was deleted in MLflow. Nothing was changed.",
            hint="Restore the tracking store from a backup, or start over under another "
            "`tracking.registered_model`.",
        ) from error
    return {alias: int(version) for alias, version in model.aliases.items()}
