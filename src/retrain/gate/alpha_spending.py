"""Repeated looks at the same evaluation rows: how many there were, and at which level each of them
may be tested.

Whoever tries challenger after challenger on one window gets one through by luck in the end. So the
k-th is tested at a level such that the levels of all looks, however many, add up to no more than
the one that was configured (alpha spending in the sense of Foster and Stine 2008,
"Alpha-investing", JRSS B 70, without earning any back).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from retrain.record import Record
from retrain.types import ChallengerRecord

if TYPE_CHECKING:
    from retrain.registry.entries import Entry


@dataclass(frozen=True)
class Look(Record):
    """A verdict that somebody was about to see, whether or not a promotion followed. Kept beside
    the ledger's entries."""

    predictions: str
    gate: str
    evaluation_start: str
    evaluation_end: str
    challenger: int
    incumbent: int | None
    snapshot: str
    newest_batch: str
    look: int = 0  # which one it is
    unseen: float = 1.0  # share of the window that no look at an earlier one has seen
    # empty where the pipeline was going to ask its own gate: then the ledger's entry says it
    verdict: str = ""
    who: str = ""
    time: str = ""
    id: str = ""
    before: str = ""  # digest of all looks before it; empty in those of earlier versions


# Most windows are looked at once: the first look keeps most of the level.
FIRST_LOOK_SHARE = 0.8
# Windows that reach back over earlier batches overlap. With level * unseen^(2/3) those within one
# window's length promote a challenger that
# lies on the margin in at most alpha of the cases, whatever the overlap
# (`tests/gate/test_alpha_spending.py` simulates it).
UNSEEN_POWER = 2 / 3


def alpha_at(alpha: float, look: int, unseen: float = 1.0) -> float:
    """The level of look 1, 2, 3, ... at a window: 0.8 alpha, then 0.2 alpha / (k (k - 1)). All of
    them together: alpha.

    Parameters
    ----------
    alpha
        The error that all looks at a window together may use up.
    look
        Which look at the newest rows of the window, from 1.
    unseen
        Share of the window, in time, that no look at an earlier window has seen; the level shrinks
        with it.
    """
    alpha *= unseen**UNSEEN_POWER
    if look == 1:
        return FIRST_LOOK_SHARE * alpha
    return (1 - FIRST_LOOK_SHARE) * alpha / (look * (look - 1))


def look_number(
    entries: Sequence[Entry],
    start: str,
    end: str,
    predictions: str,
    gate: str = "",
    looks: Sequence[Look] = (),
) -> int:
    """Which look at the window [start, end) a comparison is, from 1. Times are ISO 8601.

    Earlier comparisons count whose windows share more than half of this one's time, its newest rows
    included: where a batch has arrived since, `unseen_share` says what is left to learn. The very
    same predictions under the very same gate (by digest) are not a new look: they keep the number
    that they had; under another gate they are one. Entries of earlier versions of this project
    don't know their gate: it was the first one that those predictions meet now.
    """
    seen: list[tuple[str, str]] = []

    def see(key: tuple[str, str]) -> None:
        if key in seen or (not key[1] and any(known == key[0] for known, _ in seen)):
            return
        if (key[0], "") in seen:
            seen[seen.index((key[0], ""))] = key
        else:
            seen.append(key)

    # Every look is written before its verdict: the entries add only those of earlier versions,
    # which come first.
    of_now = [entry for entry in entries if entry.gate]
    judgements: list[Entry | Look] = [
        *(entry for entry in entries if not entry.gate),
        *looks,
        *of_now,
    ]
    for judged in judgements:
        if (
            judged.predictions
            and judged.evaluation_end >= end
            and _shared(judged, start, end) > 0.5
        ):
            see((judged.predictions, judged.gate))
    see((predictions, gate))
    return next(
        number
        for number, key in enumerate(seen, 1)
        if key[0] == predictions and gate in ("", key[1])
    )


def unseen_share(ends: Iterable[datetime], start: datetime, end: datetime) -> float:
    """The share of the window [start, end), in time, after the newest of the earlier windows' ends
    that lie before its own."""
    earlier = [moment for moment in ends if start < moment < end]
    return (end - max(earlier)) / (end - start) if earlier else 1.0


def to_look(trained: ChallengerRecord, gate: str) -> Look:
    """The look that a verdict of a gate, by digest, on stored predictions is."""
    assert trained.challenger is not None
    return Look(
        predictions=trained.predictions[:16],
        gate=gate,
        evaluation_start=trained.evaluation_start,
        evaluation_end=trained.evaluation_end,
        challenger=trained.registered.version,
        incumbent=trained.incumbent.version if trained.incumbent else None,
        snapshot=trained.snapshot,
        newest_batch=trained.newest_batch,
    )


def find_look(looks: Sequence[Look], wanted: Look) -> Look | None:
    """The look that these predictions and this gate had already."""
    return next(
        (
            look
            for look in looks
            if (look.predictions, look.gate) == (wanted.predictions, wanted.gate)
        ),
        None,
    )


def plan_look(entries: Sequence[Entry], looks: Sequence[Look], wanted: Look) -> Look:
    """The look to write: numbered by those before it."""
    window = wanted.evaluation_start, wanted.evaluation_end
    number = look_number(entries, *window, wanted.predictions, wanted.gate, looks)
    judgements: list[Entry | Look] = [*entries, *looks]
    ends = [
        datetime.fromisoformat(judged.evaluation_end) for judged in judgements if judged.predictions
    ]
    return dataclasses.replace(
        wanted, look=number, unseen=unseen_share(ends, *map(datetime.fromisoformat, window))
    )


def _shared(judged: Entry | Look, start: str, end: str) -> float:
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    begin, close = (
        datetime.fromisoformat(judged.evaluation_start),
        datetime.fromisoformat(judged.evaluation_end),
    )
    return (min(last, close) - max(first, begin)) / (last - first)
