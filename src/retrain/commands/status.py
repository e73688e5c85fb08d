"""`retrain status`: snapshot, champion, last verdict and what to do next, on one screen."""

from __future__ import annotations

import argparse

from retrain import records
from retrain.config import Config
from retrain.data.manifest import Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.errors import DataError, RetrainError
from retrain.project import DECISION, SNAPSHOT
from retrain.promotion.ledger import Entry
from retrain.records import DecisionRecord
from retrain.tracking.store import open_store, store_may_exist


def run(config: Config, options: argparse.Namespace) -> None:
    try:
        manifest = SnapshotStore(SNAPSHOT).manifest()
    except DataError:
        manifest = None
    entries = read_ledger(config)
    for label, text in screen(config, manifest, entries):
        print(f"{label:<14}{text}")


def read_ledger(config: Config) -> list[Entry]:
    """The whole ledger; empty, without importing MLflow, when nothing was ever tracked."""
    if not store_may_exist(config.tracking):
        return []
    from retrain.promotion.ledger import Ledger

    return Ledger.open(open_store(config)).entries()


def screen(config: Config, manifest: Manifest | None, entries: list[Entry]) -> list[tuple[str, str]]:
    """Label and text of each line."""
    from retrain.promotion.ledger import current_champion

    lines = []
    if manifest is None:
        lines.append(("Snapshot", "none yet"))
    else:
        batches = manifest.batches
        rows = sum(batch.rows for batch in batches)
        quarantined = sum(batch.quarantined_rows for batch in batches)
        text = f"{manifest.digest[:8]}, {len(batches)} batches, {batches[0].period} to {batches[-1].period}"
        lines.append(("Snapshot", f"{text}, {rows:,} labelled rows ({quarantined:,} quarantined)"))
    champion = current_champion(entries)
    if champion is None:
        lines.append(("Champion", f"none yet for `{config.tracking.registered_model}`"))
    else:
        since = f"since {champion.time}, ledger entry {champion.seq}"
        lines.append(("Champion", f"{config.tracking.registered_model} version {champion.champion}, {since}"))
        lines.append(
            (
                "",
                f"trained on rows before {(champion.trained_until or '?')[:16].replace('T', ' ')}, for batch {champion.newest_batch}",
            )
        )
    if entries:
        last = entries[-1]
        lines.append(
            ("Last verdict", f"{last.verdict} for version {last.challenger} on batch {last.newest_batch}, {last.time}")
        )
        lines.append(("", last.reason))
    lines.append(("Next", _next(config, manifest, entries)))
    return lines


def _next(config: Config, manifest: Manifest | None, entries: list[Entry]) -> str:
    if manifest is None or not entries:
        return "`dvc repro` trains and judges the first champion"
    if entries[-1].snapshot != manifest.digest and not _declined(manifest):
        return "`dvc repro` judges a challenger on this snapshot"
    if config.data.as_of is not None:
        return f"a new batch: set `as_of` (now {config.data.as_of}) in conf/data/, then `dvc repro`"
    return "a new batch: put it to the source, then `dvc repro`"


def _declined(manifest: Manifest) -> bool:
    """Whether the policy has said no to this very snapshot."""
    try:
        decision = records.load(DECISION, DecisionRecord, "monitor")
    except RetrainError:
        return False
    return decision.snapshot == manifest.digest and not decision.retrain
