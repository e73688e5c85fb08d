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
from retrain.data.source_code import source_code
from retrain.data.sources import Source
from retrain.errors import DataError
from retrain.workspace import write_json

_OLD, _NEW = own_column("old"), own_column("new")  # digests of rows


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
    revised: tuple[str, ...]
    removed: tuple[str, ...]
    row_changes: dict[str, RowChanges]  # of each revised batch
    read: tuple[str, ...]  # every batch that had to be read from the source


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
        return _update(data, source, store, index_path, monitoring or MonitoringConfig())
    finally:
        store.discard()


def _update(
    data: DataConfig,
    source: Source,
    store: SnapshotStore,
    index_path: Path,
    monitoring: MonitoringConfig,
) -> SnapshotChange:
    schema = Schema(data)
    wanted = select_periods(source.periods(), data)
    old = _previous(store)
    same_rules = old.schema == schema.digest
    index = _SourceIndex(index_path, data, source)
    batches: list[Batch] = []
    added, revised, read = [], [], []
    row_changes: dict[str, RowChanges] = {}
    for period in wanted:
        before = old.get(period.key)
        stamp = source.fingerprint(period.key)
        usable = before is not None and same_rules and store.intact(before)
        if usable and index.content(period.key, stamp) == before.content:
            batches.append(store.with_marks(before, data.time_column))
            continue
        arrived = source.read(period.key)
        read.append(period.key)
        if arrived.is_empty() and before is None:
            log.warning("Batch %s has no rows: it is left out until it has.", period.key)
            continue
        content = _content(arrived, schema, before)
        index.set(period.key, stamp, content)
        if usable and content == before.content:
            batches.append(store.with_marks(before, data.time_column))
            continue
        changed = before is not None and content != before.content
        revision = 1 if before is None else before.revision + changed
        checked = schema.check(arrived, period)
        batches.append(store.stage(period.key, revision, content, checked, data))
        if changed and store.intact(before):
            row_changes[period.key] = count_changes(
                store.everything(before), checked.everything, data.key_columns
            )
        if before is None:
            added.append(period.key)
        elif changed:
            revised.append(period.key)
    if not batches:
        raise DataError(
            f"No batch of `{data.name}` has a row (`data.source`). Put the first one there, then "
            "`dvc repro`."
        )
    decided = decide_holds(batches, store, monitoring)
    manifest = Manifest(schema.digest, decided, parse_delay(data.label_delay))
    store.commit(manifest)
    index.save()
    kept = {batch.period for batch in batches}
    removed = tuple(batch.period for batch in old.batches if batch.period not in kept)
    return SnapshotChange(manifest, tuple(added), tuple(revised), removed, row_changes, tuple(read))


def _content(arrived: pl.DataFrame, schema: Schema, before: Batch | None) -> str:
    """The digest of the rows that a batch has at its source, also of cells that couldn't be
    read."""
    names = [name for name in schema.columns if name in arrived.columns]
    if PROBLEM in arrived.columns and arrived[PROBLEM].null_count() < len(arrived):
        names.append(
            PROBLEM
        )  # only where it says something: a bad cell in one batch corrects no other
    rows = arrived.select(arrived[name] for name in names)
    content = content_digest(rows)
    if before is not None and content != before.content and typed_digest(rows) == before.content:
        return before.content  # it was written before types were of no account
    return content


def count_changes(before: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str]) -> RowChanges:
    """Rows by key, compared on the columns that both have. With another key all of them are
    others."""
    keys = list(keys)
    if not {*keys} <= {*before.columns} & {*after.columns}:
        return RowChanges(len(after), len(before), 0)
    for name in keys:
        if before.schema[name] != after.schema[name]:  # such as 17 once, and 17 beside K17 now
            before, after = (
                frame.with_columns(frame[name].cast(pl.String)) for frame in (before, after)
            )
    shared = [name for name in before.columns if name in after.columns]
    marked = after.select(shared).with_columns(
        pl.concat_str(pl.all().cast(pl.String).fill_null("\0"), separator="\1").hash().alias(_NEW)
    )
    marked_before = before.select(shared).with_columns(
        pl.concat_str(pl.all().cast(pl.String).fill_null("\0"), separator="\1").hash().alias(_OLD)
    )
    both = marked_before.select(*keys, _OLD).join(
        marked.select(*keys, _NEW), on=keys, how="inner", nulls_equal=True
    )
    return RowChanges(
        len(after) - len(both),
        len(before) - len(both),
        both.filter(pl.col(_OLD) != pl.col(_NEW)).height,
    )


def select_periods(keys: Sequence[str], data: DataConfig) -> list[Period]:
    """Periods up to and including `as_of`, oldest first. Raises DataError when none is left."""
    arrived = sorted(parse_period(key, data.period) for key in keys)
    if not arrived:
        raise DataError(
            f"The source of `{data.name}` holds no batch (`data.source`). Put the first one there, "
            "then `dvc repro`."
        )
    if data.as_of is None:
        return arrived
    cut_off = parse_period(data.as_of, data.period)
    wanted = [period for period in arrived if period <= cut_off]
    if not wanted:
        raise DataError(
            f"`data.as_of` is {data.as_of}, before the first batch, {arrived[0].key}: the snapshot "
            "would be empty. "
            f"Set it between {arrived[0].key} and {arrived[-1].key}; then `dvc repro`."
        )
    return wanted


def _previous(store: SnapshotStore) -> Manifest:
    try:
        return store.manifest()
    except DataError:
        return Manifest("", ())


class _SourceIndex:
    """Which content was behind which stamp of the source. Only spares reading: deleting the file is
    harmless."""

    def __init__(self, path: Path, data: DataConfig, source: Source) -> None:
        self.path = path
        # Other code may make other rows of the same files.
        self.source = json.dumps(data.source, sort_keys=True) + source_code(source, data.source)
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.entries = known["entries"] if known.get("source") == self.source else {}

    def content(self, period: str, stamp: str) -> str | None:
        known = self.entries.get(period)
        return known[1] if known and known[0] == stamp else None

    def set(self, period: str, stamp: str, content: str) -> None:
        self.entries[period] = [stamp, content]

    def save(self) -> None:
        write_json(self.path, {"source": self.source, "entries": self.entries})
