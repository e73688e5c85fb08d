"""The snapshot: one folder of Parquet a batch and a manifest that says what is in it and vouches
for its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from retrain.columns import own_column
from retrain.config import DataConfig, Task
from retrain.data.manifest import (
    MANIFEST,
    MOST_MARKS,
    PROFILE,
    TIMES,
    Batch,
    Manifest,
    read_manifest,
)
from retrain.data.profiles import BatchProfile, from_json, profile_batch, sample_rows
from retrain.data.schema import EARLIER_REASON, REASON, CheckedBatch
from retrain.errors import DataError, RetrainError
from retrain.workspace import atomic_write, write_json

LABELLED, UNLABELLED, QUARANTINED = "part.parquet", "unlabelled.parquet", "quarantine.parquet"
_LARGEST_EXACT = 2.0**53
SAMPLE = "sample.parquet"


def content_digest(frame: pl.DataFrame) -> str:
    """Sha256 of a frame's rows, whatever their order, that of the columns, and the types that hold
    the same values.

    What a later file brings, such as the first fraction or letter in a column, changes the type of
    a whole table, and must not make its earlier batches look corrected.
    """
    return typed_digest(frame.with_columns([_by_value(values) for values in frame]))


def _by_value(values: pl.Series) -> pl.Series:
    """A column in a type that depends on its values alone: whole numbers where all are."""
    known = values.drop_nulls()
    if values.dtype == pl.Boolean or values.dtype.is_integer():
        return values if values.dtype == pl.UInt64 else values.cast(pl.Int64)
    if values.dtype.is_float():
        known = known.drop_nans()
        whole = (known == known.floor()).all() and (known.abs() < _LARGEST_EXACT).all()
        return values.fill_nan(None).cast(pl.Int64 if whole else pl.Float64)
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us"))
    whole = r"^(0|-?[1-9]\d{0,17})$"
    if (
        values.dtype == pl.String
        and known.head(1).str.contains(whole).all()
        and known.str.contains(whole).all()
    ):
        return values.cast(pl.Int64)
    return values


def typed_digest(frame: pl.DataFrame) -> str:
    """Sha256 of a frame's rows with the types that they have: the content of batches that were
    written before types were of no account."""
    columns = sorted(frame.columns)
    ordered = frame.select(columns).sort(columns, nulls_last=True)
    return hashlib.sha256(ordered.write_csv().encode()).hexdigest()


class SnapshotStore:
    """Reads and writes `data/snapshot`. Writing is all or nothing: batches are staged beside it and
    moved in at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder.with_name(f".{folder.name}.staging")
        self.updated: dict[str, BatchProfile] = {}

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
                raise DataError(f"The snapshot has no batch {period}. Run `dvc repro snapshot`.")
            path = self._path(period, LABELLED)
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                content = b""
            if hashlib.sha256(content).hexdigest() != batch.files[LABELLED]:
                raise DataError(
                    f"{path} is missing or damaged: its bytes are not those that the manifest "
                    f"recorded. Delete {self.folder} "
                    "and run `dvc repro -f snapshot` to read the batches from their source again; "
                    "no model was changed."
                )
            found = pl.read_parquet_schema(io.BytesIO(content))
            wanted = [name for name in found if columns is None or name in columns]
            frames.append(pl.read_parquet(io.BytesIO(content), columns=wanted))
        return pl.concat(frames, how="diagonal_relaxed")

    def everything(self, batch: Batch) -> pl.DataFrame:
        """All rows of a batch, also unlabelled and quarantined ones; not checked against the
        manifest."""
        names = [name for name in (LABELLED, UNLABELLED, QUARANTINED) if name in batch.files]
        frames = {
            name: pl.read_parquet(self._path(batch.period, name), glob=False) for name in names
        }
        if QUARANTINED in frames:
            quarantined = frames[QUARANTINED]
            frames[QUARANTINED] = quarantined.drop(
                REASON if REASON in quarantined.columns else EARLIER_REASON
            )
        return pl.concat(frames.values(), how="diagonal_relaxed")

    def intact(self, batch: Batch) -> bool:
        """Whether the batch's files are there. Their bytes are checked where they are read."""
        return PROFILE in batch.files and all(
            self._path(batch.period, name).is_file() for name in batch.files
        )

    def profile(self, batch: Batch) -> BatchProfile:
        """What a batch looks like, without reading its rows. Raises DataError when it is
        damaged."""
        if batch.period in self.updated:
            return self.updated[batch.period]
        staged = self.staging / f"batch={batch.period}" / PROFILE
        path = staged if staged.is_file() else self._path(batch.period, PROFILE)
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({error}). Restore it with `dvc checkout --force`, or delete "
                f"{self.folder} and run "
                "`dvc repro -f snapshot`."
            ) from None

    def unchanged(self, batch: Batch) -> bool:
        """Whether the profile is the one that the manifest knows: that on disk may be a newer one,
        of a process that died."""
        content = self._path(batch.period, PROFILE).read_bytes()
        return hashlib.sha256(content).hexdigest() == batch.files[PROFILE]

    def sample(self, batch: Batch) -> pl.DataFrame:
        """Some rows spread evenly over a batch, with time, features and target."""
        return pl.read_parquet(self._path(batch.period, SAMPLE), glob=False)

    def stage(
        self,
        period: str,
        revision: int,
        content: str,
        checked: CheckedBatch,
        data: DataConfig,
    ) -> Batch:
        """Write a batch beside the snapshot and describe it. Raises RetrainError when it can't be
        written."""
        folder = self.staging / f"batch={period}"
        parts = {
            LABELLED: checked.labelled,
            UNLABELLED: checked.unlabelled,
            QUARANTINED: checked.quarantined,
        }
        files = {}
        for name, frame in parts.items():
            if name == LABELLED or len(frame):
                with atomic_write(folder / name) as temporary:
                    _write_parquet(frame, temporary)
                files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        profile = profile_batch(checked.labelled, checked.unlabelled, data)
        with atomic_write(folder / PROFILE) as temporary:
            temporary.write_text(profile.to_json(), encoding="utf-8")
        with atomic_write(folder / SAMPLE) as temporary:
            _write_parquet(sample_rows(checked.labelled, checked.unlabelled, data), temporary)
        for name in (PROFILE, SAMPLE):
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        labelled, time = checked.labelled, data.time_column
        target = labelled[data.target_column]
        newest = [frame[time].max() for frame in parts.values()]
        counts = (
            {}
            if data.task is Task.regression
            else dict(
                target.cast(pl.String)
                .value_counts(name=own_column("count"))
                .sort(target.name)
                .iter_rows()
            )
        )
        return Batch(
            period=period,
            revision=revision,
            rows=len(labelled),
            unlabelled_rows=len(checked.unlabelled),
            quarantined_rows=len(checked.quarantined),
            target_mean=None
            if data.task is Task.multiclass or labelled.is_empty()
            else float(target.mean()),
            first_time=labelled[time].min(),
            last_time=labelled[time].max(),
            content=content,
            files=files,
            classes=counts,
            until=max((moment for moment in newest if moment is not None), default=None),
            marks=time_marks(labelled[time]),
        )

    def with_marks(self, batch: Batch, time_column: str) -> Batch:
        """A batch that an earlier version of the project has described, with the times of its
        rows."""
        if batch.marks or not batch.rows:
            return batch
        try:
            times = pl.read_parquet(self._path(batch.period, LABELLED), columns=[time_column])[
                time_column
            ]
        except (
            OSError,
            pl.exceptions.PolarsError,
        ):  # whoever reads its rows will say that it is damaged
            return batch
        return dataclasses.replace(batch, marks=time_marks(times))

    def put_profile(self, batch: Batch, profile: BatchProfile) -> Batch:
        """Another profile of a batch, as when it has been held against others; returns the entry
        that vouches for it. Written when the update is committed."""
        self.updated[batch.period] = profile
        digest = hashlib.sha256(profile.to_json().encode()).hexdigest()
        return dataclasses.replace(batch, files=batch.files | {PROFILE: digest})

    def commit(self, manifest: Manifest) -> None:
        """Move staged batches in, write the manifest, and only then remove what it no longer names.

        A process that dies in between leaves a manifest that disagrees with some file; the next
        update sees that the batch's content is not what the source holds, and writes it again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for staged in sorted(self.staging.glob("batch=*")):
            final = self.folder / staged.name
            if final.exists():
                shutil.rmtree(final)
            staged.rename(final)
        self.staging.mkdir(parents=True, exist_ok=True)
        for period, profile in self.updated.items():
            staged = self.staging / PROFILE
            staged.write_text(profile.to_json(), encoding="utf-8")
            staged.replace(self._path(period, PROFILE))
        entries = [dataclasses.asdict(batch) for batch in manifest.batches]
        for entry in entries:
            for key in TIMES:
                entry[key] = entry[key].isoformat() if entry[key] else None
            entry["marks"] = [mark.isoformat() for mark in entry["marks"]]
        content = {
            "contract": manifest.schema,
            "label_delay": manifest.label_delay,
            "batches": entries,
        }
        write_json(self.folder / MANIFEST, content | {"digest": manifest.digest})
        keep = {f"batch={batch.period}" for batch in manifest.batches}
        for folder in self.folder.glob("batch=*"):
            if folder.name not in keep:
                shutil.rmtree(folder)
        self.discard()

    def discard(self) -> None:
        """Forget what was staged."""
        self.updated = {}
        shutil.rmtree(self.staging, ignore_errors=True)

    def _path(self, period: str, name: str) -> Path:
        return self.folder / f"batch={period}" / name


def time_marks(times: pl.Series) -> tuple[datetime, ...]:
    """When rows happened: the times of up to MOST_MARKS of them at even steps, first and last
    included."""
    ordered = times.sort()
    count = min(len(ordered), MOST_MARKS)
    places = [round(number * (len(ordered) - 1) / max(1, count - 1)) for number in range(count)]
    return tuple(ordered.gather(places).to_list())


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    try:
        frame.write_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise RetrainError(
            f"Could not write a batch of the snapshot: {error}. The snapshot stays as it was."
        ) from error
