"""What a snapshot holds, without looking into it: reading the manifest needs no data library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from retrain.errors import DataError

MANIFEST = "manifest.json"
CONTENT_DIGITS = 16  # of a batch's content digest, where it is recorded with a model


@dataclass(frozen=True)
class Batch:
    """A manifest entry. Times are those of the labelled rows, None when there are none."""

    period: str
    revision: int
    rows: int
    unlabelled_rows: int
    quarantined_rows: int
    positives: int
    first_time: datetime | None
    last_time: datetime | None
    content: str  # sha256 of the rows as they arrived
    files: dict[str, str]  # name -> sha256 of its bytes


@dataclass(frozen=True)
class Manifest:
    """Batches of a snapshot, oldest first, and the digest of the contract that they were checked under."""

    contract: str
    batches: tuple[Batch, ...]

    @property
    def digest(self) -> str:
        """32 hex digits that stand for the rows of every batch and the rules that sorted them."""
        lines = [self.contract, *(f"{batch.period} {batch.content}" for batch in self.batches)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    @property
    def labelled(self) -> tuple[Batch, ...]:
        """The batches that have at least one labelled row."""
        return tuple(batch for batch in self.batches if batch.rows)

    def get(self, period: str) -> Batch | None:
        return next((batch for batch in self.batches if batch.period == period), None)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the snapshot in `folder`. Raises DataError when there is none, or it is damaged."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(content["contract"], tuple(_batch_from_json(entry) for entry in content["batches"]))
    except FileNotFoundError:
        raise DataError(f"There is no snapshot yet ({path} is missing). Run `dvc repro snapshot` to make it.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Restore it with `dvc checkout --force`, or run `dvc repro -f snapshot`."
        ) from None


def _batch_from_json(entry: dict) -> Batch:
    times = {key: datetime.fromisoformat(entry[key]) if entry[key] else None for key in ("first_time", "last_time")}
    return Batch(**(entry | times))
