"""What a snapshot holds, without looking into it: reading the manifest needs no data library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from retrain.errors import DataError
from retrain.lazy import pydantic
from retrain.renamed import BATCH_FIELDS

MANIFEST = "manifest.json"
PROFILE = "summary.json"  # of a batch, in its folder
MOST_MARKS = 100
CONTENT_DIGITS = 16  # of a batch's content digest, where it is recorded with a model


@dataclass(frozen=True)
class Batch:
    """A batch of a snapshot, an entry of the manifest.

    Attributes
    ----------
    period, revision
        Its key, and the number of corrections, from 1.
    rows, unlabelled_rows, quarantined_rows
        Labelled rows, those whose label is not known yet, and those that break the schema.
    target_mean
        Of the labelled rows the share of positives, or the mean; None with several classes.
    first_time, last_time
        Those of the labelled rows, None when there are none.
    content
        Sha256 of the rows as they arrived.
    files
        Sha256 of each file's bytes, by name.
    classes
        Labelled rows of each class.
    until
        The newest time of any row.
    anomalies
        Why it looks broken, a clause each.
    compared_with
        Stands for the sound batches before it that it was compared with.
    accepted, held_by_hand
        Whether a person has found it sound, or put it on hold, whatever it looks like.
    marks
        When its labelled rows happened: the times of up to MOST_MARKS of them at even steps, first
        and last included.
    confirmed_by
        The period of the last of the later batches that agree with it; it takes part from then on.
    agreement
        Whether it and those on hold before it agree, and a digest of what that was found from.
    """

    period: str
    revision: int
    rows: int
    unlabelled_rows: int
    quarantined_rows: int
    target_mean: float | None
    first_time: datetime | None
    last_time: datetime | None
    content: str
    files: dict[str, str]
    classes: dict[str, int] = field(default_factory=dict)
    until: datetime | None = None
    anomalies: list[str] = field(default_factory=list)
    compared_with: str = ""
    accepted: bool = False
    marks: tuple[datetime, ...] = ()
    held_by_hand: bool = False
    confirmed_by: str = ""
    agreement: str = ""

    @property
    def span(self) -> tuple[datetime, datetime]:
        """First and last time of the labelled rows, of which there must be some."""
        assert self.first_time is not None and self.last_time is not None
        return self.first_time, self.last_time

    @property
    def on_hold(self) -> bool:
        """Whether it takes no part in training and evaluation."""
        cleared = self.accepted or bool(self.confirmed_by)
        return self.held_by_hand or (bool(self.anomalies) and not cleared)

    @property
    def takes_part(self) -> bool:
        """Whether it has rows, labelled or not, and is not on hold."""
        return not self.on_hold and self.rows + self.unlabelled_rows > 0

    @property
    def why_on_hold(self) -> str:
        """The reasons, clauses after one another."""
        listed = ["it is listed under `monitoring.hold`"] if self.held_by_hand else []
        return "; ".join(listed + self.anomalies)


@dataclass(frozen=True)
class Manifest:
    """Batches of a snapshot, oldest first, and the digest of the schema that they were checked
    under.

    Labels arrive `label_delay` seconds after their row: younger batches are not counted as labelled
    yet.
    """

    schema: str
    batches: tuple[Batch, ...]
    label_delay: float = 0.0

    @cached_property
    def digest(self) -> str:
        """32 hex digits that stand for the rows of every batch and the rules that sorted them."""
        lines = [self.schema, *(f"{batch.period} {batch.content}" for batch in self.batches)]
        lines += [f"held back {batch.period}" for batch in self.batches if batch.on_hold]
        lines += [f"label delay {self.label_delay}"] if self.label_delay else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @cached_property
    def labelled(self) -> tuple[Batch, ...]:
        """The batches that have labelled rows, all of whose labels have had the time to arrive, and
        are not on hold."""
        late = {batch.period for batch in self.waiting}
        return tuple(
            batch
            for batch in self.batches
            if batch.rows and not batch.on_hold and batch.period not in late
        )

    @cached_property
    def waiting(self) -> tuple[Batch, ...]:
        """The batches whose labels may still be on their way."""
        times = [batch.until for batch in self.batches if batch.until is not None]
        if not self.label_delay or not times:
            return ()
        arrived = max(times) - timedelta(seconds=self.label_delay)
        return tuple(batch for batch in self.batches if batch.until and batch.until > arrived)

    def get(self, period: str) -> Batch | None:
        return next((batch for batch in self.batches if batch.period == period), None)

    def to_json(self) -> dict[str, Any]:
        """As it is stored, times in ISO 8601."""
        batches = pydantic.TypeAdapter(tuple[Batch, ...]).dump_python(self.batches, mode="json")
        known = {"contract": self.schema, "label_delay": self.label_delay, "batches": batches}
        return known | {"digest": self.digest}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the snapshot in `folder`. Raises DataError when there is none, or it is
    damaged."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["batches"]
        if any("suspicions" in entry for entry in entries):  # written by version 0.1
            entries = [
                {BATCH_FIELDS.get(key, key): value for key, value in entry.items()}
                for entry in entries
            ]
        batches = pydantic.TypeAdapter(tuple[Batch, ...]).validate_python(entries)
        return Manifest(content["contract"], batches, content["label_delay"])
    except FileNotFoundError:
        raise DataError(
            f"There is no snapshot yet ({path} is missing)", hint="run `dvc repro snapshot`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({str(error).splitlines()[0]})",
            hint="restore it with `dvc checkout --force`, or run `dvc repro -f snapshot`",
        ) from None
