"""Bring the snapshot to what its source holds as of a cut-off, at the cost of the new batches
only."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retrain.columns import own_column
from retrain.config import DataConfig, MonitoringConfig
from retrain.data.holds import decide_holds
from retrain.data.manifest import Batch, Manifest
from retrain.data.periods import Period, parse_delay, parse_period
from retrain.data.reading.parts import PROBLEM
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore, content_digest, typed_digest
from retrain.data.source import Source
from retrain.errors import DataError
from retrain.own_code import code_digests, engine_digest
from retrain.workspace import write_json

# What all sources run.
READING = (
    "data/reading",
    "data/source.py",
    "data/sources.py",
    "data/sparse_columns.py",
    "data/table_source.py",
)
_DIGEST = own_column("digest")  # of a row
log = logging.getLogger("retrain")


@dataclass(frozen=True)
class RowChanges:
    """How a revised batch differs from what was there, by key: rows that came, went, and whose
    values are others."""

    added: int
    removed: int
    changed: int

    def __str__(self) -> str:
        if not (self.added or self.removed or self.changed):
            return "the same rows with other columns"
        return f"{self.added:,} rows added, {self.removed:,} removed, {self.changed:,} changed"


@dataclass(frozen=True)
class SnapshotChange:
    """What an update did, by period key."""

    manifest: Manifest
    added: tuple[str, ...]
    removed: tuple[str, ...]
    row_changes: dict[str, RowChanges]  # of each revised batch
    read: tuple[str, ...]  # every batch that had to be read from the source

    @property
    def revised(self) -> tuple[str, ...]:
        return tuple(self.row_changes)


def update_snapshot(
    data: DataConfig,
    source: Source,
    store: SnapshotStore,
    index_path: Path,
    monitoring: MonitoringConfig | None = None,
) -> SnapshotChange:
    """Add new batches, replace revised ones (same period, other content), remove those after
    `as_of`.

    Raises DataError for an empty source, an `as_of` before the first batch, or a batch that breaks
    the schema; the snapshot then stays as it was.
    """
    store.discard()
    try:
        update = _Update(data, source, store, index_path)
        found = [update.bring(period) for period in select_periods(source.periods(), data)]
        batches = [batch for batch in found if batch is not None]
        if not batches:
            raise DataError(
                f"No batch of `{data.name}` has a row (`data.source`)",
                hint="put the first one there, then `dvc repro`",
            )
        decided = decide_holds(batches, store, monitoring or MonitoringConfig())
        manifest = Manifest(update.schema.digest, decided, parse_delay(data.label_delay))
        store.commit(manifest)
        update.save_index()
    finally:
        store.discard()
    old = [batch.period for batch in update.old.batches]
    return SnapshotChange(
        manifest,
        tuple(period for period in update.read if period not in old and manifest.get(period)),
        tuple(period for period in old if manifest.get(period) is None),
        update.row_changes,
        tuple(update.read),
    )


class _Update:
    """The batches of a source beside those of the snapshot as it was.

    An index says which content was behind which stamp of the source. It only spares reading:
    deleting the file is harmless.
    """

    def __init__(
        self, data: DataConfig, source: Source, store: SnapshotStore, index_path: Path
    ) -> None:
        self.data, self.source, self.store, self.index_path = data, source, store, index_path
        self.schema = Schema(data)
        self.read: list[str] = []
        self.row_changes: dict[str, RowChanges] = {}
        try:
            self.old = store.manifest()
        except DataError:
            self.old = Manifest("", ())
        # Other code may make other rows of the same files.
        own = code_digests({"data": {"source": data.source}}, Path.cwd())["data"]
        self.code = json.dumps(data.source, sort_keys=True) + own + engine_digest(READING)
        try:
            known = json.loads(index_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.index = known["entries"] if known.get("source") == self.code else {}

    def save_index(self) -> None:
        write_json(self.index_path, {"source": self.code, "entries": self.index})

    def bring(self, period: Period) -> Batch | None:
        """A batch as it is now: the entry that there was, or a new one, whose rows are staged. None
        for one that has no rows yet."""
        before, stamp = self.old.get(period.key), self.source.fingerprint(period.key)
        same_rules = self.old.schema == self.schema.digest
        usable = before if before and same_rules and self.store.intact(before) else None
        if usable and self.index.get(period.key) == [stamp, usable.content]:
            return self.store.with_marks(usable, self.data.time_column)
        arrived = self.source.read(period.key)
        self.read.append(period.key)
        if arrived.is_empty() and before is None:
            log.warning("Batch %s has no rows: it is left out until it has.", period.key)
            return None
        content = self._content(arrived, before)
        self.index[period.key] = [stamp, content]
        if usable and content == usable.content:
            return self.store.with_marks(usable, self.data.time_column)
        checked = self.schema.check(arrived, period)
        revision = before.revision if before else 1
        if before and content != before.content:
            revision += 1
            self.row_changes[period.key] = count_changes(
                self.store.everything(before), checked.everything, self.data.key_columns
            )
        return self.store.stage(period.key, revision, content, checked, self.data)

    def _content(self, arrived: pl.DataFrame, before: Batch | None) -> str:
        """The digest of the rows that a batch has at its source, also of cells that couldn't be
        read."""
        names = [name for name in self.schema.columns if name in arrived.columns]
        # A bad cell in one batch corrects no other.
        if PROBLEM in arrived.columns and arrived[PROBLEM].null_count() < len(arrived):
            names.append(PROBLEM)
        rows = arrived.select(arrived[name] for name in names)
        content = content_digest(rows)
        if before and content != before.content and typed_digest(rows) == before.content:
            return before.content  # it was written before types were of no account
        return content


def count_changes(before: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str]) -> RowChanges:
    """Rows by key, compared on the columns that both have. With another key all of them are
    others."""
    shared = [name for name in before.columns if name in after.columns]
    if not {*keys} <= {*shared}:
        return RowChanges(len(after), len(before), 0)
    old, new = (
        frame.select(pl.col(shared).cast(pl.String).fill_null("\0")).select(
            *keys, pl.concat_str(pl.all(), separator="\1").hash().alias(_DIGEST)
        )
        for frame in (before, after)
    )
    both = old.join(new, on=list(keys))
    changed = both.filter(pl.col(_DIGEST) != pl.col(f"{_DIGEST}_right"))
    return RowChanges(len(new) - len(both), len(old) - len(both), len(changed))


def select_periods(keys: Sequence[str], data: DataConfig) -> list[Period]:
    """Periods up to and including `as_of`, oldest first. Raises DataError when none is left."""
    arrived = sorted(parse_period(key, data.period) for key in keys)
    if not arrived:
        raise DataError(
            f"The source of `{data.name}` holds no batch (`data.source`)",
            hint="put the first one there, then `dvc repro`",
        )
    cut_off = arrived[-1] if data.as_of is None else parse_period(data.as_of, data.period)
    wanted = [period for period in arrived if period <= cut_off]
    if not wanted:
        raise DataError(
            f"`data.as_of` is {data.as_of}, before the first batch, {arrived[0].key}: the snapshot "
            "would be empty",
            hint=f"set it between {arrived[0].key} and {arrived[-1].key}; then `dvc repro`",
        )
    return wanted
