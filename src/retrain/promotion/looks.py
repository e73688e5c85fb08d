"""Repeated looks at the same evaluation rows: how many there were, and at which level each of them may be tested.

Whoever tries challenger after challenger on one window gets one through by luck in the end. So the k-th is tested at a
level such that the levels of all looks, however many, add up to no more than the one that was configured
(alpha spending in the sense of Foster and Stine 2008, "Alpha-investing", JRSS B 70, without earning any back).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrain.promotion.ledger import Entry

# Most windows are looked at once: the first look keeps most of the level.
FIRST_LOOK_SHARE = 0.8


def spent_level(alpha: float, look: int) -> float:
    """The level of look 1, 2, 3, ...: 0.8 alpha, then 0.2 alpha / (k (k - 1)). All of them together: alpha."""
    if look == 1:
        return FIRST_LOOK_SHARE * alpha
    return (1 - FIRST_LOOK_SHARE) * alpha / (look * (look - 1))


def look_number(entries: Sequence[Entry], start: str, end: str, predictions: str) -> int:
    """Which look at the window [start, end) a comparison is, from 1. Times are ISO 8601.

    Earlier comparisons count whose windows share more than half of this one's time. The very same predictions (by
    digest) are not a new look: they keep the number that they had.
    """
    seen: list[str] = []
    for entry in entries:
        if entry.predictions and entry.predictions not in seen and _shared(entry, start, end) > 0.5:
            seen.append(entry.predictions)
    return seen.index(predictions) + 1 if predictions in seen else len(seen) + 1


def _shared(entry: Entry, start: str, end: str) -> float:
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    begin, close = datetime.fromisoformat(entry.evaluation_start), datetime.fromisoformat(entry.evaluation_end)
    return (min(last, close) - max(first, begin)) / (last - first)
