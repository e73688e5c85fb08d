"""What the pages of versions in MLflow say after a rollback, an override or an approval."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrain.config import Config
from retrain.errors import first_line
from retrain.lazy import mlflow
from retrain.registry.entries import APPROVAL, OVERRIDE, ROLLBACK, Entry, current_champion
from retrain.registry.experiments import runs_page
from retrain.registry.names import LONGEST_TAG
from retrain.registry.store import LEDGER, Store
from retrain.report.formatting import escape_markdown

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("retrain")
ROLLED_BACK, DECISION = "rolled_back", "decision"  # tags
LONGEST_DESCRIPTION = 4900  # Postgres fails above 5,000
_SERVES = {
    ROLLBACK: "Serves again since {day}: {who} rolled version {previous} back",
    OVERRIDE: "Serves since {day}: {who} overrode the gate",
    APPROVAL: "Serves since {day}: {who} approved it",
}


def describe_model(store: Store, config: Config) -> None:
    """What the registered model's page says. What a person has written there stays."""
    client, name = store.client, store.registered_model
    ledger = client.get_experiment_by_name(name + LEDGER)
    runs = client.get_experiment_by_name(store.experiment)
    target = escape_markdown(config.data.target_column)
    text = (
        f"Predicts {target} ({config.data.task.value}), retrained as labelled data arrives.\n\n"
        "The alias `champion` is the version that serves, `previous` the one before, `challenger` "
        "the newest that was trained, `candidate` one that waits for approval. A challenger that "
        "passes the gate is refitted with the evaluation rows included: that refit serves. Each "
        "version's description says how it was compared and what came of it.\n\n"
    )
    if runs and ledger:
        text += (
            f"[Retrainings]({runs_page(runs.experiment_id)}), "
            f"[ledger](#/experiments/{ledger.experiment_id}/runs?workflowType=machine_learning). "
        )
    text += "`retrain history` lists who served when, `retrain rollback` goes back."
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, text[:LONGEST_DESCRIPTION])


def note_move(store: Store, entries: Sequence[Entry], champion: ModelVersion) -> None:
    """Let both pages say who has moved the champion and why, if a person has.

    Once: the text names the ledger's entry. What goes wrong here is a warning and stops nothing.
    """
    entry = current_champion(entries)
    if entry is None or entry.kind not in _SERVES:
        return
    reason = f"{' '.join(entry.reason.split())} (ledger entry {entry.seq})"
    shown = escape_markdown(reason)
    facts = {"day": entry.time[:10], "who": entry.who, "previous": entry.previous}
    try:
        if _describe(store, champion, f"{_SERVES[entry.kind].format(**facts)}: {shown}"):
            _tag(store, champion, DECISION, f"{entry.kind}: {reason}")
            if ROLLED_BACK in champion.tags:
                store.client.delete_model_version_tag(
                    store.registered_model, champion.version, ROLLED_BACK
                )
        if entry.kind != ROLLBACK or entry.previous is None:
            return
        before = store.client.get_model_version(store.registered_model, str(entry.previous))
        text = (
            f"Rolled back on {entry.time[:10]} by {entry.who}, "
            f"version {entry.champion} serves instead: {shown}"
        )
        if _describe(store, before, text):
            _tag(store, before, ROLLED_BACK, f"{entry.time[:10]}, {entry.who}: {reason}")
    except mlflow.exceptions.MlflowException as error:
        log.warning(
            "The pages of the versions in MLflow don't say yet that the champion was moved: %s",
            first_line(error),
        )


def _describe(store: Store, version: ModelVersion, text: str) -> bool:
    """Put a sentence before a version's description; False when it is there already."""
    description = version.description or ""
    if text in description:
        return False
    whole = f"{text}\n\n{description}"[:LONGEST_DESCRIPTION]
    store.client.update_model_version(store.registered_model, version.version, whole)
    return True


def _tag(store: Store, version: ModelVersion, name: str, value: str) -> None:
    store.client.set_model_version_tag(
        store.registered_model, version.version, name, value[:LONGEST_TAG]
    )
