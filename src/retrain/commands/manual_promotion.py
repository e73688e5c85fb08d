"""What all commands share by which a person, not the gate, decides who serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from retrain.config import Config
from retrain.data.snapshot import SnapshotStore
from retrain.errors import ModelError, PromotionError, RetrainError
from retrain.models.metrics import row_loss_for
from retrain.registry import versions
from retrain.registry.ledger import Entry, Ledger, current_champion
from retrain.registry.store import Store
from retrain.registry.transitions import VersionInfo
from retrain.workspace import PROMOTION, SNAPSHOT, invalidated

log = logging.getLogger("retrain")
SAMPLE_ROWS = 1000


def find_origin(store: Store, version: int, entries: Sequence[Entry]) -> VersionInfo:
    """What the registry knows about a version. Raises PromotionError for one that can't be compared with later."""
    found = versions.require(store, version)
    model = versions.checked_record(found, entries)
    if not model.trained_until or not model.contents:
        raise PromotionError(
            f"Version {version} has no record of the rows that it was trained on, so no challenger could ever be compared with it "
            "fairly. Only versions that `dvc repro` has registered can serve."
        )
    original = found.tags.get("refit_of")
    unrefitted = (
        versions.checked_record(versions.get_version(store, int(original)), entries)
        if original
        else model
    )
    run = store.client.get_run(found.run_id) if found.run_id else None
    commit = run.data.tags.get("git_commit") if run else None
    return VersionInfo(
        model,
        unrefitted,
        found.tags.get("snapshot", ""),
        found.tags.get("recipe", ""),
        found.run_id,
        commit,
    )


def try_out(config: Config, store: Store, version: int, entries: Sequence[Entry]) -> None:
    """Load a version and score the newest labelled rows with it, before anything depends on it.

    Raises ModelError or DataError when that fails. The champion's score is shown beside it, if it can be had.
    """
    from retrain.models.scoring import score_rows

    snapshot = SnapshotStore(SNAPSHOT)
    rows = snapshot.read([snapshot.manifest().labelled[-1].period]).tail(SAMPLE_ROWS)

    first = rows[config.data.time_column].min().isoformat()

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
    if champion is not None and champion.champion != version:
        try:
            log.info(
                "The champion, version %d: %s on the same rows",
                champion.champion,
                score(champion.champion),
            )
        except (ModelError, RetrainError) as error:  # it may be why it has to go
            log.warning("The champion, version %d, can't score them: %s", champion.champion, error)


def carry_out(
    store: Store, ledger: Ledger, started: datetime, plan: Callable[[Sequence[Entry]], Entry]
) -> tuple[Entry, int | None]:
    """Append what `plan` makes of the ledger, and let the aliases follow. Returns the entry and the champion before it.

    Raises PromotionError when the champion has moved since the command was `started`: the person decided about another one.
    """
    before: int | None = None

    def decide(entries: Sequence[Entry]) -> Entry:
        nonlocal before
        serving = current_champion(entries)
        if serving is not None and datetime.fromisoformat(serving.time) > started:
            raise PromotionError(
                f"The champion has moved to version {serving.champion} (ledger entry {serving.seq}, {serving.time}, by {serving.who}) "
                "since this command was started. Nothing was changed. Look at `retrain history`, then decide again."
            )
        before = serving.champion if serving else None
        return plan(entries)

    # Killed between the two, `dvc repro` would have nothing to do, and the alias would stay behind.
    with invalidated(PROMOTION):
        entry = ledger.extend(decide)
        versions.follow_ledger(store, ledger)
    return entry, before


def confirm(config: Config, entry: Entry, before: int | None) -> None:
    """One line on standard output: what has changed."""
    instead = f" in place of version {before}" if before else ""
    name = config.tracking.registered_model
    print(
        f"Version {entry.champion} of {name} is champion now{instead} ({entry.kind}, ledger entry {entry.seq})."
    )
