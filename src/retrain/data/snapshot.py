"""The snapshot: one folder of Parquet a batch and a manifest that says what is in it and vouches
for its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from retrain.columns import own_column
from retrain.config import DataConfig, Task
from retrain.data.manifest import MANIFEST, MOST_MARKS, PROFILE, Batch, Manifest, read_manifest
from retrain.data.profiles import BatchProfile, from_json, profile_batch, sample_rows
from retrain.data.scalars import as_float
from retrain.data.schema import REASON, CheckedBatch
from retrain.errors import DataError, RetrainError
from retrain.workspace import atomic_write, write_json, write_text

LABELLED, UNLABELLED, QUARANTINED = "part.parquet", "unlabelled.parquet", "quarantine.parquet"
ROWS = (LABELLED, UNLABELLED, QUARANTINED)
EARLIER_REASON = "quarantine_reason"  # in snapshots of earlier versions
SAMPLE = "sample.parquet"
DIGEST_ROWS = 100_000  # turned into text at a time
_LARGEST_EXACT = 2.0**53


def content_digest(frame: pl.DataFrame) -> str:
    """Sha256 of a frame's rows, whatever their order, that of the columns, and the types that hold
    the same values.

    What a later file brings, such as the first fraction or letter in a column, changes the type of
    a whole table, and must not make its earlier batches look corrected.
    """
    return typed_digest(frame.select(_by_value(values) for values in frame))


def typed_digest(frame: pl.DataFrame) -> str:
    """Sha256 of a frame's rows with the types that they have: the content of batches that were
    written before types were of no account."""
    columns = sorted(frame.columns)
    ordered = frame.select(columns).sort(columns, nulls_last=True)
    digest = hashlib.sha256(ordered.head(0).write_csv().encode())
    for part in ordered.iter_slices(DIGEST_ROWS):  # the text of a large batch is larger than it
        digest.update(part.write_csv(include_header=False).encode())
    return digest.hexdigest()


def _by_value(values: pl.Series) -> pl.Series:
    """A column in a type that depends on its values alone: whole numbers where all are."""
    kind = values.dtype
    if kind == pl.Boolean or kind.is_integer():
        return values if kind == pl.UInt64 else values.cast(pl.Int64)
    if kind.is_float():
        known = values.drop_nulls().drop_nans()
        whole = (known == known.floor()).all() and (known.abs() < _LARGEST_EXACT).all()
        return values.fill_nan(None).cast(pl.Int64 if whole else pl.Float64)
    if kind == pl.Date:
        return values.cast(pl.Datetime("us"))
    if kind == pl.String:
        known, number = values.drop_nulls(), r"^(0|-?[1-9]\d{0,17})$"
        if all(part.str.contains(number).all() for part in (known.head(1), known)):
            return values.cast(pl.Int64)
    return values


class SnapshotStore:
    """Reads and writes `data/snapshot`. Writing is all or nothing: batches are staged beside it and
    moved in at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder.with_name(f".{folder.name}.staging")
        self.profiles: dict[str, BatchProfile] = {}  # to be written

    def manifest(self) -> Manifest:
        """Raises DataError when there is no snapshot, or its manifest is damaged."""
        return read_manifest(self.folder)

    def read(self, periods: Sequence[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Labelled rows of some batches, in the order given, with those of `columns` that there are
        (default: all).

        DVC does not notice a damaged cache file, so the bytes are checked against the manifest;
        raises DataError.
        """
        manifest = self.manifest()
        frames = []
        for period in periods:
            batch = manifest.get(period)
            if batch is None:
                raise DataError(
                    f"The snapshot has no batch {period}", hint="run `dvc repro snapshot`"
                )
            path = self._path(period, LABELLED)
            content = path.read_bytes() if path.is_file() else b""
            if _sha256(content) != batch.files[LABELLED]:
                raise DataError(
                    f"{path} is missing or damaged: its bytes are not those that the manifest "
                    "recorded; no model was changed",
                    hint=f"delete {self.folder} and run `dvc repro -f snapshot` to read the "
                    "batches from their source again",
                )
            found = pl.read_parquet_schema(io.BytesIO(content))
            wanted = [name for name in found if columns is None or name in columns]
            frames.append(pl.read_parquet(io.BytesIO(content), columns=wanted))
        return pl.concat(frames, how="diagonal_relaxed")

    def everything(self, batch: Batch) -> pl.DataFrame:
        """All rows of a batch that are still there, also unlabelled and quarantined ones; not
        checked against the manifest."""
        paths = {name: self._path(batch.period, name) for name in ROWS}
        frames = {
            name: pl.read_parquet(path, glob=False)
            for name, path in paths.items()
            if path.is_file()
        }
        if (broken := frames.get(QUARANTINED)) is not None:
            reason = REASON if REASON in broken.columns else EARLIER_REASON
            frames[QUARANTINED] = broken.drop(reason)
        return pl.concat([pl.DataFrame(), *frames.values()], how="diagonal_relaxed")

    def intact(self, batch: Batch) -> bool:
        """Whether the batch's files are there. Their bytes are checked where they are read."""
        return PROFILE in batch.files and all(
            self._path(batch.period, name).is_file() for name in batch.files
        )

    def with_marks(self, batch: Batch, time_column: str) -> Batch:
        """A batch that an earlier version of the engine has described, with the times of its
        rows."""
        if batch.marks or not batch.rows:
            return batch
        try:
            rows = pl.read_parquet(self._path(batch.period, LABELLED), columns=[time_column])
        except (OSError, pl.exceptions.PolarsError):  # whoever reads its rows says that
            return batch
        return dataclasses.replace(batch, marks=time_marks(rows[time_column]))

    def profile(self, batch: Batch) -> BatchProfile:
        """What a batch looks like, without reading its rows. Raises DataError when it is
        damaged."""
        if batch.period in self.profiles:
            return self.profiles[batch.period]
        path = self._path(batch.period, PROFILE)
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({str(error).splitlines()[0]})",
                hint=f"restore it with `dvc checkout --force`, or delete {self.folder} and run "
                "`dvc repro -f snapshot`",
            ) from None

    def unchanged(self, batch: Batch) -> bool:
        """Whether the profile is the one that the manifest knows: that on disk may be a newer one,
        of a process that died."""
        content = self._path(batch.period, PROFILE).read_bytes()
        return _sha256(content) == batch.files[PROFILE]

    def sample(self, batch: Batch) -> pl.DataFrame:
        """Some rows spread evenly over a batch, with time, features and target."""
        return pl.read_parquet(self._path(batch.period, SAMPLE), glob=False)

    def stage(
        self, period: str, revision: int, content: str, checked: CheckedBatch, data: DataConfig
    ) -> Batch:
        """Write a batch beside the snapshot and describe it. Raises RetrainError when it can't be
        written."""
        folder = self.staging / f"batch={period}"
        labelled, unlabelled = checked.labelled, checked.unlabelled
        parts = {LABELLED: labelled, UNLABELLED: unlabelled, QUARANTINED: checked.quarantined}
        files = {
            name: _write(folder / name, frame.write_parquet)
            for name, frame in parts.items()
            if name == LABELLED or len(frame)
        }
        self.profiles[period] = profile_batch(labelled, unlabelled, data)
        files[PROFILE] = _profile_digest(self.profiles[period])
        sample = sample_rows(labelled, unlabelled, data)
        files[SAMPLE] = _write(folder / SAMPLE, sample.write_parquet)
        target, times = labelled[data.target_column], labelled[data.time_column]
        marks = time_marks(times)
        newest: list[Any] = [frame[data.time_column].max() for frame in parts.values()]
        counts = target.cast(pl.String).value_counts(name=own_column("count")).sort(target.name)
        no_mean = data.task is Task.multiclass or labelled.is_empty()
        return Batch(
            period=period,
            revision=revision,
            rows=len(labelled),
            unlabelled_rows=len(unlabelled),
            quarantined_rows=len(checked.quarantined),
            target_mean=None if no_mean else as_float(target.mean()),
            first_time=marks[0] if marks else None,
            last_time=marks[-1] if marks else None,
            content=content,
            files=files,
            classes={} if data.task is Task.regression else dict(counts.iter_rows()),
            until=max((moment for moment in newest if moment is not None), default=None),
            marks=marks,
        )

    def put_profile(self, batch: Batch, profile: BatchProfile) -> Batch:
        """Another profile of a batch, as when it has been compared with others; returns the entry
        that vouches for it. Written when the update is committed."""
        self.profiles[batch.period] = profile
        files = batch.files | {PROFILE: _profile_digest(profile)}
        return dataclasses.replace(batch, files=files)

    def commit(self, manifest: Manifest) -> None:
        """Move staged batches in, write the manifest, and only then remove what it no longer names.

        A process that dies in between leaves a manifest that disagrees with some file; the next
        update sees that the batch's content is not what the source holds, and writes it again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for staged in sorted(self.staging.glob("batch=*")):
            final = self.folder / staged.name
            shutil.rmtree(final, ignore_errors=True)
            staged.rename(final)
        for period, profile in self.profiles.items():
            write_text(self._path(period, PROFILE), profile.to_json())
        write_json(self.folder / MANIFEST, manifest.to_json())
        keep = {f"batch={batch.period}" for batch in manifest.batches}
        for folder in self.folder.glob("batch=*"):
            if folder.name not in keep:
                shutil.rmtree(folder)
        self.discard()

    def discard(self) -> None:
        """Forget what was staged."""
        self.profiles = {}
        shutil.rmtree(self.staging, ignore_errors=True)

    def _path(self, period: str, name: str) -> Path:
        return self.folder / f"batch={period}" / name


def time_marks(times: pl.Series) -> tuple[datetime, ...]:
    """When rows happened: the times of up to MOST_MARKS of them at even steps, first and last
    included."""
    count = min(len(times), MOST_MARKS)
    places = [round(number * (len(times) - 1) / max(1, count - 1)) for number in range(count)]
    return tuple(times.sort().gather(places).to_list())


def _write(path: Path, write: Callable[[Path], None]) -> str:
    """Sha256 of the file that is written."""
    try:
        with atomic_write(path) as temporary:
            write(temporary)
    except pl.exceptions.PolarsError as error:
        raise RetrainError(
            f"Could not write a batch of the snapshot: {error}. The snapshot stays as it was."
        ) from error
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _profile_digest(profile: BatchProfile) -> str:
    return _sha256(profile.to_json().encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
