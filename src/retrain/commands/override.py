"""`retrain promote VERSION --reason "..."`: a person overrides the gate: this version serves. Recorded as an override."""

from __future__ import annotations

import argparse

from retrain.commands.manual_promotion import carry_out, confirm, find_origin, try_out
from retrain.config import Config
from retrain.registry.ledger import OVERRIDE, Ledger
from retrain.registry.store import open_store
from retrain.registry.transitions import plan_choice


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises PromotionError when the version serves already, or the champion has moved in the meantime."""
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    origin = find_origin(store, options.version, entries)
    plan_choice(entries, OVERRIDE, origin, options.reason)  # fails early
    try_out(config, store, options.version, entries)
    entry, before = carry_out(
        store,
        ledger,
        options.started,
        lambda seen: plan_choice(seen, OVERRIDE, origin, options.reason),
    )
    confirm(config, entry, before)
