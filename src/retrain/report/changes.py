"""What has changed since the champion was trained: batches, columns, config and code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrain.config import Config
from retrain.data.manifest import CONTENT_DIGITS, Batch
from retrain.data.profiles import OTHER, BatchProfile, ColumnProfile
from retrain.data.snapshot import SnapshotStore
from retrain.lazy import yaml
from retrain.masking import mask
from retrain.registry import versions
from retrain.registry.entries import Entry, training_of
from retrain.registry.runs import CONFIG, config_text, read_artifact
from retrain.registry.store import Store
from retrain.types import ChallengerRecord, DecisionRecord
from retrain.workspace import SNAPSHOT, code_since

MOST_KEYS, MOST_COLUMNS, MOST_LINES = 40, 12, 300
NOTABLE = 0.005  # of the rows: a smaller change of nulls or levels is not shown
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class ColumnChange:
    """A column in the newest batch beside the one that it is held against.

    `new_levels`: up to five of those that only the newest has, and their share of its rows.
    """

    name: str
    nulls_before: float
    nulls_now: float
    new_levels: tuple[str, ...] = ()
    new_share: float = 0.0
    gone: int = 0

    @property
    def size(self) -> float:
        return max(abs(self.nulls_now - self.nulls_before), self.new_share)


@dataclass(frozen=True)
class Changes:
    """What is new since the incumbent was trained; without one, the batches alone.

    Attributes
    ----------
    batches
        Those that it has not seen, or not as they are now.
    columns
        Nulls and levels of the newest batch, the largest changes first.
    config
        Key, value then, value now.
    code
        The lines of git's diff, None where git does not know the commit.
    unknown
        What could not be found out, a sentence each.
    """

    batches: tuple[Batch, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    config: tuple[tuple[str, str, str], ...] = ()
    code: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    against: int | None = None  # the version

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """Name of each changed file, lines added and lines taken away."""
        found: list[tuple[str, int, int]] = []
        for line in self.code:
            if line.startswith("diff --git "):
                found.append((line.rpartition(" b/")[2].rstrip('"'), 0, 0))
            elif found and line[:1] in "+-" and not line.startswith(("+++", "---")):
                name, added, removed = found[-1]
                found[-1] = name, added + (line[0] == "+"), removed + (line[0] == "-")
        return found


def data_changes(decision: DecisionRecord, trained: ChallengerRecord) -> Changes:
    """Of batches and columns: no store is asked."""
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    seen = dict(trained.incumbent.contents) if trained.incumbent else {}
    batches = tuple(
        batch
        for batch in manifest.batches
        if seen.get(batch.period) != batch.content[:CONTENT_DIGITS]
    )
    if not trained.retrained:
        batches = manifest.batches[-1:]
    columns: tuple[ColumnChange, ...] = ()
    newest, reference = (
        manifest.get(period) for period in (decision.watched_batch, decision.reference_batch)
    )
    if newest is not None and reference is not None:
        columns = column_changes(snapshot.profile(newest), snapshot.profile(reference))
    against = trained.incumbent.version if trained.incumbent else None
    return Changes(batches, columns, against=against)


def column_changes(newest: BatchProfile, reference: BatchProfile) -> tuple[ColumnChange, ...]:
    """Columns whose nulls or levels differ notably, the largest change first."""
    changes = [
        _column_change(name, column, reference.features[name])
        for name, column in newest.features.items()
        if name in reference.features
    ]
    notable = [change for change in changes if change.size > NOTABLE]
    return tuple(sorted(notable, key=lambda change: (-change.size, change.name))[:MOST_COLUMNS])


def _column_change(name: str, now: ColumnProfile, before: ColumnProfile) -> ColumnChange:
    fresh = {level: rows for level, rows in now.levels.items() if level not in before.levels}
    if OTHER in before.levels or OTHER in now.levels:  # rare levels are not counted one by one
        fresh = {}
    gone = 0 if OTHER in now.levels else len(set(before.levels) - set(now.levels) - {OTHER})
    return ColumnChange(
        name,
        before.null_share,
        now.null_share,
        tuple(sorted(fresh, key=lambda level: (-fresh[level], level))[:5]),
        sum(fresh.values()) / now.rows if now.rows else 0.0,
        gone,
    )


def recipe_changes(
    config: Config, store: Store, entries: Sequence[Entry], incumbent: int
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """Config keys and code that differ from those which trained a version, and what of that is
    not known."""
    version = versions.get_version(store, incumbent)
    entry = training_of(entries, str(version.run_id))
    if entry is None:
        return (), (), ("The ledger does not say what trained the champion.",)
    unknown = []
    keys: tuple[tuple[str, str, str], ...] = ()
    before = read_artifact(store.client.get_run(str(version.run_id)).info.artifact_uri, CONFIG)
    if hashlib.sha256(before).hexdigest() == entry.run_config:
        keys = config_changes(before.decode(), config_text(config))
    else:
        unknown.append("The champion's config in the store is not what the ledger recorded.")
    code = code_since(entry.trained_commit) if _COMMIT.fullmatch(entry.trained_commit) else None
    if code is None:
        unknown.append("git does not know the commit that trained the champion.")
    if entry.run_patch:
        unknown.append("The champion was trained with code that was not committed.")
    return keys, tuple(mask(code or "").splitlines()[:MOST_LINES]), tuple(unknown)


def config_changes(before: str, now: str) -> tuple[tuple[str, str, str], ...]:
    """Key, value then and value now of what differs between two configs in YAML."""
    old, new = (dict(_flat(yaml.safe_load(text), "")) for text in (before, now))
    return tuple(
        (key, old.get(key, "(none)"), new.get(key, "(none)"))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not key.startswith("code.")  # digests: see `code`
    )[:MOST_KEYS]


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(node)
