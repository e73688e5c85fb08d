"""What a snapshot holds, without looking into it: reading the manifest needs no data library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from retrain.errors import DataError

MANIFEST = "manifest.json"
PROFILE = "summary.json"  # of a batch, in its folder
TIMES = ("first_time", "last_time", "until")
MOST_MARKS = 100
_RENAMED = {
    "suspicions": "anomalies",
    "beside": "compared_with",
    "released": "accepted",
    "ordered": "held_by_hand",
    "accepted": "confirmed_by",
}
CONTENT_DIGITS = 16  # of a batch's content digest, where it is recorded with a model


@dataclass(frozen=True)
class Batch:
    """A manifest entry. First and last time are those of the labelled rows, None when there are
    none."""

    period: str
    revision: int
    rows: int
    unlabelled_rows: int
    quarantined_rows: int
    target_mean: (
        float | None
    )  # of the labelled rows: the share of positives, or the mean; None with several classes
    first_time: datetime | None
    last_time: datetime | None
    content: str  # sha256 of the rows as they arrived
    files: dict[str, str]  # name -> sha256 of its bytes
    classes: dict[str, int] = field(default_factory=dict)  # labelled rows of each class
    until: datetime | None = None  # the newest time of any row
    anomalies: list[str] = field(default_factory=list)  # why it looks broken
    compared_with: str = ""  # stands for the sound batches before it that it was compared with
    accepted: bool = False  # by a person: it isn't broken
    # When its labelled rows happened: the times of up to MOST_MARKS of them at even steps, first
    # and last included.
    marks: tuple[datetime, ...] = ()
    held_by_hand: bool = False  # a person has put it on hold, whatever it looks like
    # The period of the last of the later batches that agree with it; it takes part from then on.
    confirmed_by: str = ""
    # Whether it and those on hold before it agree, and a digest of what that was found from.
    agreement: str = ""

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

    @property
    def digest(self) -> str:
        """32 hex digits that stand for the rows of every batch and the rules that sorted them."""
        lines = [self.schema, *(f"{batch.period} {batch.content}" for batch in self.batches)]
        lines += [f"held back {batch.period}" for batch in self.batches if batch.on_hold]
        lines += [f"label delay {self.label_delay}"] if self.label_delay else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @property
    def labelled(self) -> tuple[Batch, ...]:
        """The batches that have labelled rows, all of whose labels have had the time to arrive, and
        are not on hold."""
        return tuple(
            batch
            for batch in self.batches
            if batch.rows and not batch.on_hold and not self._waits(batch)
        )

    @property
    def waiting(self) -> tuple[Batch, ...]:
        """The batches whose labels may still be on their way."""
        return tuple(batch for batch in self.batches if self._waits(batch))

    def _waits(self, batch: Batch) -> bool:
        times = [other.until for other in self.batches if other.until is not None]
        if not self.label_delay or batch.until is None:
            return False
        return batch.until + timedelta(seconds=self.label_delay) > max(times)

    def get(self, period: str) -> Batch | None:
        return next((batch for batch in self.batches if batch.period == period), None)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the snapshot in `folder`. Raises DataError when there is none, or it is
    damaged."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(
            content["contract"],
            tuple(_batch_from_json(entry) for entry in content["batches"]),
            content["label_delay"],
        )
    except FileNotFoundError:
        raise DataError(
            f"There is no snapshot yet ({path} is missing). Run `dvc repro snapshot` to make it."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Restore it with `dvc checkout --force`, or run `dvc "
            "repro -f snapshot`."
        ) from None


def _batch_from_json(entry: dict[str, Any]) -> Batch:
    if "suspicions" in entry:  # written by version 0.1
        entry = {_RENAMED.get(key, key): value for key, value in entry.items()}
    times = {key: datetime.fromisoformat(entry[key]) if entry[key] else None for key in TIMES}
    marks = tuple(datetime.fromisoformat(mark) for mark in entry.get("marks", ()))
    return Batch(**(entry | times | {"marks": marks}))
