"""`retrain approve`: manual approval of the version that passed the gate and waits as alias `candidate`."""

from __future__ import annotations

import argparse

from retrain.commands.manual_promotion import carry_out, confirm, try_out
from retrain.config import Config
from retrain.registry import versions
from retrain.registry.ledger import Ledger
from retrain.registry.store import open_store
from retrain.registry.transitions import plan_approval, waiting_candidate


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises PromotionError when no version waits, or another than the one named."""
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    candidate = waiting_candidate(entries, options.version).candidate
    trained_until = versions.checked_record(
        versions.get_version(store, candidate), entries
    ).trained_until
    try_out(config, store, candidate, entries)
    entry, before = carry_out(
        store,
        ledger,
        options.started,
        lambda seen: plan_approval(seen, candidate, trained_until, options.reason),
    )
    confirm(config, entry, before)
