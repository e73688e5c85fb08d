"""`retrain rollback --reason "..."`: back to the version that last served, after seeing that it works."""

from __future__ import annotations

import argparse

from retrain.commands.manual_promotion import carry_out, confirm, find_origin, try_out
from retrain.commands.status import first_or_lost
from retrain.config import Config
from retrain.errors import PromotionError
from retrain.registry.ledger import ROLLBACK, Ledger, current_champion
from retrain.registry.store import open_store
from retrain.registry.transitions import plan_choice, rollback_target


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises PromotionError when there is nothing to go back to, ModelError when that version doesn't work."""
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    champion = current_champion(entries)
    if champion is None:
        raise PromotionError(
            f"There is no champion, so nothing can be rolled back. {first_or_lost(config)}"
        )
    origin = find_origin(
        store, options.to if options.to is not None else rollback_target(entries), entries
    )
    plan_choice(entries, ROLLBACK, origin, options.reason)  # fails early
    try_out(config, store, origin.model.version, entries)
    entry, before = carry_out(
        store,
        ledger,
        options.started,
        lambda seen: plan_choice(seen, ROLLBACK, origin, options.reason),
    )
    confirm(config, entry, before)
    print(
        f"The recipe of version {before} is not promoted again on its snapshot, unless a person does it."
    )
