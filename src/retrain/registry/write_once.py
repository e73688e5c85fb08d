"""Texts of any length as write-once params of an MLflow run, which is how the ledger gets its
entries.

MLflow lets a param be written once: of several writers of a key exactly one wins. Its values end at
6,000 characters: what is longer is cut with a warning or refused, as the store likes. So a long
text goes into params of its own first, whose keys no other writer has, and the key that is raced
for gets a short value that names them. A writer that loses or dies leaves parts that nothing refers
to.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping

from retrain.errors import StoreError, first_line
from retrain.lazy import mlflow

# Characters in one value. The second is for stores that take less than MLflow's own 6,000.
SIZES = (5000, 400)
_MOST_PARAMS = 100  # that MLflow takes in one call
_CAUSES = {
    "readonly": "It is read-only for you: mend the permissions of the database.",
    "read-only": "It is read-only for you: mend the permissions of the database.",
    "permission": "You may not write there: ask for write access.",
    "disk is full": "Make room on the disk.",
}


def write_once(client: mlflow.MlflowClient, run_id: str, key: str, text: str) -> bool:
    """Whether `key` holds this text now: False when another writer was first.

    `text` must be unlike any other writer's. Raises StoreError, with the cause, when the store
    takes the text from nobody.
    """
    for size in SIZES:
        value = None
        try:
            value = text if len(text) <= size else _write_parts(client, run_id, text, size)
            if value is None:  # cut by the store
                continue
            client.log_param(run_id, key, value)
        except mlflow.exceptions.MlflowException as error:
            # The answer alone doesn't tell: INVALID_PARAMETER_VALUE stands for a key that is taken,
            # a deleted run, and a value that is too long; and a request may have been carried out
            # although its answer was lost.
            found = _read_params(client, run_id, error).get(key)
            if found is not None:
                return found in (text, value)
            # What is too long is not always called so (Postgres: BAD_REQUEST): a second try.
            if len(text) <= SIZES[-1] or size == SIZES[-1]:
                raise _not_written(error) from error
        else:
            return True
    raise StoreError(
        f"The tracking store cuts values of {SIZES[-1]} characters, and the ledger needs them "
        "whole. Nothing was written.",
        hint="Use a store that keeps MLflow's limit of 6,000.",
    )


def whole_text(params: Mapping[str, str], key: str) -> str:
    """The text under a key, put together from its parts. Raises StoreError when a part is missing
    or was changed."""
    text = params[key]
    if not text.startswith('{"parts"'):
        return text
    try:
        head = json.loads(text)
        whole = "".join(params[_part(head["parts"], number)] for number in range(head["count"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"Ledger entry `{key}` lacks a part ({error}).",
            hint="Restore the store from a backup.",
        ) from error
    if _digest(whole) != head["sha256"]:
        raise StoreError(
            f"The parts of ledger entry `{key}` were changed.",
            hint="Restore the store from a backup.",
        )
    return whole


def _write_parts(client: mlflow.MlflowClient, run_id: str, text: str, size: int) -> str | None:
    """The text as params of its own; returns the value that names them, None when the store has cut
    them."""
    name = uuid.uuid4().hex
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    params = [
        mlflow.entities.Param(_part(name, number), piece) for number, piece in enumerate(pieces)
    ]
    for start in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + _MOST_PARAMS])
    stored = client.get_run(run_id).data.params
    if any(stored.get(param.key) != param.value for param in params):
        return None
    return json.dumps({"parts": name, "count": len(pieces), "sha256": _digest(text)})


def _part(name: str, number: int) -> str:
    return f"part-{name}-{number:04d}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_params(
    client: mlflow.MlflowClient, run_id: str, first: mlflow.exceptions.MlflowException
) -> Mapping[str, str]:
    """What the run holds after a write has failed.

    Raises StoreError when it was deleted, or can't be read either.
    """
    try:
        run = client.get_run(run_id)
    except mlflow.exceptions.MlflowException:
        raise StoreError(
            f"The ledger could not be written: {_reason(first)} Whether the entry arrived is not "
            "known: when the store answers again, `retrain history` shows it.",
            hint="Run the command again then.",
        ) from first
    if run.info.lifecycle_stage != "active":
        raise deleted_run(run_id) from first
    return run.data.params


def deleted_run(run_id: str) -> StoreError:
    return StoreError(
        "The run that holds the ledger was deleted in MLflow. Nothing was changed.",
        hint=f"Restore it with `mlflow runs restore --run-id {run_id}` (MLFLOW_TRACKING_URI must "
        "hold the store's address; `sqlite:///mlflow.db` for the project's own) or in the MLflow "
        "UI (runs, state: deleted); then run the command again.",
    )


def _not_written(error: mlflow.exceptions.MlflowException) -> StoreError:
    reason = _reason(error)
    way_out = next(
        (text for word, text in _CAUSES.items() if word in reason.lower()),
        "Mend the cause, then run the command again.",
    )
    return StoreError(
        f"The ledger could not be written: {reason} Nothing was changed.", hint=way_out
    )


def _reason(error: Exception) -> str:
    return first_line(error).rstrip(".") + "."
