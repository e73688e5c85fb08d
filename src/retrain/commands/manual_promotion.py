"""A person, not the gate, decides who serves: `retrain approve`, `retrain rollback`, `retrain
promote VERSION`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import cast

from retrain.commands.read_ledger import first_or_lost
from retrain.config import Config
from retrain.data.snapshot import SnapshotStore
from retrain.errors import ModelError, PromotionError, RetrainError
from retrain.models.metrics import row_loss_for
from retrain.models.scoring import score_rows
from retrain.registry import versions
from retrain.registry.entries import OVERRIDE, ROLLBACK, Entry, current_champion
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store, open_store
from retrain.registry.transitions import (
    VersionInfo,
    plan_approval,
    plan_choice,
    rollback_target,
    waiting_candidate,
)
from retrain.workspace import PROMOTION, SNAPSHOT, invalidated

log = logging.getLogger("retrain")
SAMPLE_ROWS = 1000


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises PromotionError when that version can't serve, or the champion moves meanwhile;
    ModelError when it does not work."""
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    plan = _plan(config, store, entries, options)
    version = plan(entries).champion  # fails early
    assert version is not None
    try_out(config, store, version, entries)
    entry, before = carry_out(store, ledger, options.started, plan)
    instead = f" in place of version {before}" if before else ""
    print(
        f"Version {version} of {config.tracking.registered_model} is champion now{instead} "
        f"({entry.kind}, ledger entry {entry.seq})."
    )
    if entry.kind == ROLLBACK:
        print(
            f"The recipe of version {before} is not promoted again on its snapshot, unless a "
            "person does it."
        )


def _plan(
    config: Config, store: Store, entries: Sequence[Entry], options: argparse.Namespace
) -> Callable[[Sequence[Entry]], Entry]:
    """What makes of a ledger the entry for this choice."""
    if options.verb == "approve":
        candidate = waiting_candidate(entries, options.version).candidate
        assert candidate is not None
        model = versions.checked_record(versions.get_version(store, candidate), entries)
        return lambda seen: plan_approval(seen, candidate, model.trained_until, options.reason)
    kind, version = OVERRIDE, options.version
    if options.verb == "rollback":
        if current_champion(entries) is None:
            raise PromotionError(
                f"There is no champion, so nothing can be rolled back. {first_or_lost(config)}"
            )
        kind, version = ROLLBACK, options.to or rollback_target(entries)
    origin = find_origin(store, version, entries)
    return lambda seen: plan_choice(seen, kind, origin, options.reason)


def find_origin(store: Store, version: int, entries: Sequence[Entry]) -> VersionInfo:
    """What the registry knows about a version. Raises PromotionError for one that can't be compared
    with later."""
    found = versions.require(store, version)
    model = versions.checked_record(found, entries)
    if not model.trained_until or not model.contents:
        raise PromotionError(
            f"Version {version} has no record of the rows that it was trained on, so no challenger "
            "could ever be compared with it "
            "fairly. Only versions that `dvc repro` has registered can serve."
        )
    unrefitted = model
    if model.refit_of is not None:
        original = versions.get_version(store, model.refit_of)
        unrefitted = versions.checked_record(original, entries)
    run_id = versions.training_run(store, found)
    run = store.client.get_run(run_id) if run_id else None
    commit = run.data.tags.get("git_commit") if run else None
    return VersionInfo(model, unrefitted, run_id, commit)


def try_out(config: Config, store: Store, version: int, entries: Sequence[Entry]) -> None:
    """Load a version and score the newest labelled rows with it, before anything depends on it.

    Raises ModelError or DataError when that fails. The champion's score is shown beside it, if it
    can be had.
    """
    snapshot = SnapshotStore(SNAPSHOT)
    rows = snapshot.read([snapshot.manifest().labelled[-1].period]).tail(SAMPLE_ROWS)

    first = cast(datetime, rows[config.data.time_column].min()).isoformat()

    def score(number: int) -> str:
        model = versions.load_version(store, number, config.trusted_types, entries)
        value = score_rows({"version": model}, rows, config).loss("version", config)
        until = versions.checked_record(versions.require(store, number), entries).trained_until
        seen = (
            "was trained on some of them"
            if not until or until > first
            else "was trained on none of them"
        )
        return f"{value:.4f} ({seen})"

    loss = row_loss_for(config.data.metric, config.data.task)
    champion = current_champion(entries)
    log.info(
        "Version %d loads and scores the newest %d rows: %s %s",
        version,
        len(rows),
        loss,
        score(version),
    )
    serving = champion.champion if champion is not None else None
    if serving is not None and serving != version:
        try:
            log.info(
                "The champion, version %d: %s on the same rows",
                serving,
                score(serving),
            )
        except (ModelError, RetrainError) as error:  # it may be why it has to go
            log.warning("The champion, version %d, can't score them: %s", serving, error)


def carry_out(
    store: Store, ledger: Ledger, started: datetime, plan: Callable[[Sequence[Entry]], Entry]
) -> tuple[Entry, int | None]:
    """Append what `plan` makes of the ledger, and let the aliases follow. Returns the entry and the
    champion before it.

    Raises PromotionError when the champion has moved since the command was `started`: the person
    decided about another one.
    """
    before: int | None = None

    def decide(entries: Sequence[Entry]) -> Entry:
        nonlocal before
        serving = current_champion(entries)
        if serving is not None and datetime.fromisoformat(serving.time) > started:
            raise PromotionError(
                f"The champion has moved to version {serving.champion} (ledger entry "
                f"{serving.seq}, {serving.time}, by {serving.who}) since this command was "
                "started. Nothing was changed.",
                hint="look at `retrain history`, then decide again",
            )
        before = serving.champion if serving else None
        return plan(entries)

    # Killed between the two, `dvc repro` would have nothing to do, and the alias would stay behind.
    with invalidated(PROMOTION):
        entry = ledger.extend(decide)
        versions.follow_ledger(store, ledger)
    return entry, before
