"""`retrain move-store`: the local store, with ledger and models, into a shared database."""

from __future__ import annotations

import argparse
import dataclasses
import os

from retrain.config import Config
from retrain.errors import StoreError
from retrain.lazy import mlflow
from retrain.registry.ledger import Ledger
from retrain.registry.moving import copy_database, copy_files
from retrain.registry.store import open_store, store_exists
from retrain.workspace import store_root


def run(config: Config, options: argparse.Namespace) -> None:
    """Copies; the local store stays as it is. Raises StoreError where there is none, or the target
    holds something under the same name."""
    target = os.environ.get(options.to, "")
    if config.tracking.uri_from_env is not None or not store_exists(config.tracking):
        raise StoreError(
            "There is no local store here to copy (`tracking: local`).",
            hint="Run this where mlflow.db lies, before you choose `tracking: server`.",
        )
    if not target:
        raise StoreError(
            f"The environment variable {options.to} is empty.",
            hint="Set it to the address of the database to copy to, such as "
            "postgresql+psycopg2://USER:PASSWORD@HOST/mlflow.",
        )
    store = open_store(config)
    ledger = Ledger.open(store)
    texts = ledger.texts()
    files = store_root() / "mlruns"
    address = (options.artifacts_as or options.artifacts or str(files)).rstrip("/")
    if options.artifacts:
        copy_files(files, options.artifacts)
    local = f"sqlite:///{store_root() / 'mlflow.db'}"
    count = copy_database(local, target, str(files), address)
    arrived = Ledger(dataclasses.replace(store, client=mlflow.MlflowClient(target)), ledger.run_id)
    if arrived.texts() != texts:
        raise StoreError("The ledger did not arrive whole.", hint="Copy to an empty database.")
    print(
        f"{count:,} rows have arrived, the ledger with {len(arrived.entries())} entries among "
        f"them. Artifacts: {address}\n"
        "Next: choose `tracking: server` in conf/config.yaml, set MLFLOW_TRACKING_URI, then\n"
        "  retrain config && dvc commit -f && retrain history --verify\n"
        "and put mlflow.db and the folders in mlruns/ away: nobody may go on with both."
    )
