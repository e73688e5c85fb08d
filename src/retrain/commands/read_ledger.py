"""The ledger for commands that only read it, also where there is none."""

from __future__ import annotations

import logging

from retrain.config import Config
from retrain.errors import StoreError
from retrain.gate.alpha_spending import Look
from retrain.registry.entries import Entry
from retrain.registry.ledger import Ledger
from retrain.registry.store import open_store, store_exists
from retrain.registry.versions import follow_ledger
from retrain.results import promoted_champion
from retrain.workspace import PROMOTION

log = logging.getLogger("retrain")


def first_or_lost(config: Config) -> str:
    """What to do where the ledger is empty: nothing was ever promoted, or the store that knew is
    not here."""
    champion = promoted_champion(config.tracking.registered_model)
    if champion is None:
        return "`dvc repro` trains the first one."
    return (
        f"{PROMOTION} names version {champion}, which this tracking store does not know: it was "
        "deleted, or is another one. "
        "`retrain status` says what to do."
    )


def read_ledger(config: Config) -> list[Entry]:
    """The whole ledger; empty, without importing MLflow, when nothing was ever tracked. Mends what
    a crash left of the aliases."""
    if not store_exists(config.tracking):
        return []
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    try:
        follow_ledger(store, ledger)
    # somebody has deleted the champion's version: who asks must still see what there was
    except StoreError as error:
        log.warning("%s", error)
    return entries


def read_looks(config: Config) -> list[Look]:
    """Every verdict that anybody was about to see; empty, without importing MLflow, when nothing
    was ever tracked."""
    if not store_exists(config.tracking):
        return []
    return Ledger.open(open_store(config)).looks()
