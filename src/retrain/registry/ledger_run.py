"""The run of MLflow that holds the ledger of a registered model: created once, then found."""

from __future__ import annotations

import time

from retrain.errors import StoreError
from retrain.lazy import mlflow
from retrain.registry.store import LEDGER, Store, end_run, ensure_experiment
from retrain.registry.write_once import deleted_run


def find_ledger_run(store: Store) -> str:
    """Id of the run that holds the ledger. Two of them would split the history.

    Experiment names are unique, so exactly one process creates the experiment, and that one makes
    the run.
    """
    name = store.registered_model + LEDGER
    existing = store.client.get_experiment_by_name(name)
    if existing is not None and existing.lifecycle_stage != "active":
        raise StoreError(
            f"The experiment `{name}`, which holds the ledger, was deleted in MLflow. "
            "Nothing was changed.",
            hint="Restore it with `mlflow experiments restore --experiment-id "
            f"{existing.experiment_id}` (MLFLOW_TRACKING_URI must hold the store's address; "
            "`sqlite:///mlflow.db` for the project's own), then run the command again.",
        )
    experiment, created = ensure_experiment(store, name)
    for attempt in range(50):
        found = _find(store, experiment)
        if found is not None:
            return found
        # Whoever created the experiment and made no run for ten seconds has died.
        if created or attempt == 48:
            _refuse_second_history(store)
            name = f"ledger of {store.registered_model}"
            end_run(store, store.client.create_run(experiment, run_name=name))
            created = False
        else:
            time.sleep(0.2)
    raise StoreError(
        f"The ledger of `{store.registered_model}` can't be created.",
        hint="Check what you may write in the tracking store.",
    )


def _refuse_second_history(store: Store) -> None:
    """Without a ledger any model would pass for the first champion: not where the registry has one
    already."""
    name = store.registered_model
    try:
        version = store.client.get_model_version_by_alias(name, "champion").version
    except mlflow.exceptions.MlflowException:
        return
    raise StoreError(
        f"Version {version} of `{name}` has the alias `champion`, but there is no ledger that made "
        "it so: the ledger was deleted for good (`mlflow gc`), or the model belongs to something "
        "else. Nothing was changed.",
        hint="Restore the tracking store from a backup, choose another `tracking.registered_model` "
        "in conf/tracking/, or, to begin a new history, remove the alias in the MLflow UI.",
    )


def _find(store: Store, experiment: str) -> str | None:
    """Raises StoreError when the ledger was deleted: without it, any model would pass for the first
    champion."""
    order, every = (
        ["attributes.start_time ASC", "attributes.run_id ASC"],
        mlflow.entities.ViewType.ALL,
    )
    runs = store.client.search_runs([experiment], "", every, max_results=1, order_by=order)
    if not runs:
        return None
    if runs[0].info.lifecycle_stage != "active":
        raise deleted_run(runs[0].info.run_id)
    end_run(store, runs[0])
    return str(runs[0].info.run_id)
