"""Digests that tie each record of the ledger to all before it, and the ledger to git."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from retrain.errors import RetrainError, StoreError
from retrain.types import PromotionRecord
from retrain.workspace import PROMOTION


class Chained(Protocol):
    """A record with the digest of those before it."""

    @property
    def before(self) -> str:
        """Empty in records of earlier versions of this project."""


def digest_of(texts: Iterable[str]) -> str:
    """The digest of records as they are stored: of the last one and that of those before it."""
    digest = hashlib.sha256().hexdigest()
    for text in texts:
        digest = hashlib.sha256((digest + text).encode()).hexdigest()
    return digest


def chained_from(records: Sequence[Chained]) -> int:
    """The number of the first record that carries the digest of those before it."""
    return next((n for n, record in enumerate(records) if record.before), len(records))


def first_break(records: Sequence[Chained], texts: Sequence[str]) -> int | None:
    """The number of the first record that does not follow from those before it, None if all do."""
    digest, first = digest_of([]), chained_from(records)
    for number, text in enumerate(texts):
        if number >= first and records[number].before != digest:
            return number
        digest = hashlib.sha256((digest + text).encode()).hexdigest()
    return None


def check_results(registered_model: str, texts: Sequence[str]) -> int | None:
    """Whether these entries are the ones that the pipeline's results, in git, were made with.

    Returns the number of the newest entry that they vouch for, None where they name none. Raises
    StoreError where the ledger was rewritten as a whole, or its end is missing.
    """
    try:
        promoted = PromotionRecord.load(PROMOTION, "promote")
    except RetrainError:
        return None
    newest = promoted.ledger_entry
    if (
        newest is None
        or not promoted.ledger_digest
        or promoted.registered_model != registered_model
    ):
        return None
    if newest >= len(texts):
        raise StoreError(
            f"{PROMOTION} is of ledger entry {newest}, and the ledger has {len(texts)}: its end is "
            "missing, or this is an older copy of the store.",
            hint="Bring the newer store here, or restore it from a backup.",
        )
    if digest_of(texts[: newest + 1]) != promoted.ledger_digest:
        raise StoreError(
            f"{PROMOTION} names another digest of ledger entries 0 to {newest} than they have: "
            "they were rewritten, or the results here belong to another ledger.",
            hint=f"`git log {PROMOTION}` says who changed the file; restore the store from a "
            "backup.",
        )
    return newest
