"""Which batches are on hold: those that look broken, until a person accepts them, or enough later
batches agree with them.

All of it is a function of the batches that a snapshot holds and of `monitoring` in the config, not
of the order of events.
"""

from __future__ import annotations

import bisect
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from retrain.config import MonitoringConfig
from retrain.data.anomalies import COMPARED, RULES, detect_anomalies
from retrain.data.manifest import PROFILE, Batch
from retrain.data.profiles import BatchProfile
from retrain.data.shift import FEWEST_ROWS, PREDECESSORS, measure_shift, without_shift
from retrain.errors import RetrainError
from retrain.masking import mask

YEAR = timedelta(days=365.25)
AGREED, NOT_AGREED = "+", "-"
SEASON_BATCHES = 3  # those nearest to a year before a batch
KEPT = 2 * COMPARED  # profiles in memory
log = logging.getLogger("retrain")


class Profiles(Protocol):
    """Where batches are profiled, and how far each lies from those before it is written down."""

    def profile(self, batch: Batch) -> BatchProfile: ...

    def unchanged(self, batch: Batch) -> bool:
        """Whether the profile is the one that the batch's entry vouches for."""

    def put_profile(self, batch: Batch, profile: BatchProfile) -> Batch:
        """Keep a profile; returns the entry that vouches for it."""


@dataclass(frozen=True)
class Past:
    """What a batch is compared with: the newest sound ones before it, oldest first; those of the
    same season a year ago; and those since things last changed for good, if they did."""

    batches: tuple[Batch, ...]
    season: tuple[Batch, ...] = ()
    regime: tuple[Batch, ...] = ()

    @property
    def digest(self) -> str:
        """Stands for these batches. A profile says how far its batch lay from those before it, and
        so on back to the first."""
        batches, season = (
            [
                f"{batch.period} {batch.files[PROFILE]}{' accepted' if batch.anomalies else ''}"
                for batch in part
            ]
            for part in (self.batches, self.season)
        )
        return _digest(RULES, *batches, "season", *season)


def decide_holds(
    batches: Sequence[Batch], profiles: Profiles, monitoring: MonitoringConfig
) -> tuple[Batch, ...]:
    """The batches, oldest first, with what makes each look broken, and whether it is on hold."""
    comparison = _Comparison(profiles)
    decided: list[Batch] = []
    sound: list[Batch] = []
    for batch in batches:
        newest = replace(
            batch,
            confirmed_by="",
            agreement="",
            accepted=not monitoring.hold_anomalies or batch.period in monitoring.accept,
            held_by_hand=batch.period in monitoring.hold,
        )
        newest = comparison.look(newest, find_past(newest, sound))
        window = _waiting([*decided, newest], monitoring.accept_after)
        if window:
            note = comparison.agreement(window, find_past(window[0], sound), batch.agreement)
            newest = replace(newest, agreement=note)
        decided.append(newest)
        if newest.agreement.endswith(AGREED):
            agreed = {member.period for member in window}
            decided = [
                replace(other, confirmed_by=batch.period) if other.period in agreed else other
                for other in decided
            ]
            sound = [other for other in decided if _is_sound(other)]
        elif _is_sound(newest):
            sound.append(newest)
    return tuple(decided)


def _waiting(decided: Sequence[Batch], accept_after: int | None) -> list[Batch]:
    """The newest batches on hold, as many as may accept each other: with no sound one between them.
    Empty if there are fewer."""
    newest = decided[-1]
    if accept_after is None or not newest.on_hold or newest.held_by_hand or is_small(newest):
        return []
    window: list[Batch] = []
    for batch in reversed(decided):
        if is_small(batch) or batch.held_by_hand or not (batch.rows or batch.on_hold):
            continue  # says nothing, or is not asked
        if not batch.on_hold:
            break
        window.append(batch)
        if len(window) == accept_after + 1:
            return window[::-1]
    return []


class _Comparison:
    """Batches beside those before them. Nothing is compared again as long as all are the same."""

    def __init__(self, profiles: Profiles) -> None:
        self.profiles = profiles
        self.known: dict[str, BatchProfile] = {}  # the one used last stands last

    def look(self, batch: Batch, past: Past) -> Batch:
        """A batch with what makes it look broken beside the sound ones before it."""
        compared = _digest(f"{past.digest} {batch.content}")
        if batch.compared_with == compared and self.profiles.unchanged(batch):
            return batch
        profile = self.profiles.profile(batch)
        try:
            earlier, season, regime = map(self._read, (past.batches, past.season, past.regime))
            profile = replace(profile, shift=measure_shift(profile, earlier, season, regime))
            anomalies = detect_anomalies(profile, earlier, season)
        except RetrainError:
            raise
        except Exception as error:
            # No batch may be so odd that nothing can be done about it: it waits for a person, who
            # can accept it.
            log.debug("Where it broke:", exc_info=True)
            what = " ".join(mask(str(error)).split())[:200]
            anomalies = [
                f"it can't be compared with earlier batches ({type(error).__name__}: {what})"
            ]
        batch = self.profiles.put_profile(batch, profile)
        return replace(batch, anomalies=anomalies, compared_with=compared)

    def agreement(self, window: Sequence[Batch], past: Past, noted: str) -> str:
        """A note whether each of the window's batches looks sound beside the others of them, by the
        yardstick of the past. `noted` is what an earlier update found."""
        members = (f"{batch.content} {batch.compared_with}" for batch in window)
        key = _digest(past.digest, *members)
        if noted[:-1] == key:
            return noted
        return key + (AGREED if self._agree(window, past) else NOT_AGREED)

    def _agree(self, window: Sequence[Batch], past: Past) -> bool:
        earlier, season = self._read(past.batches), self._read(past.season)
        members = [self.profiles.profile(batch) for batch in window]
        for member in members:
            others = [without_shift(other) for other in members if other is not member]
            known = [*earlier, *others]
            shift = measure_shift(member, known, season, others)
            if detect_anomalies(replace(member, shift=shift), known, season):
                return False
        return True

    def _read(self, batches: Sequence[Batch]) -> list[BatchProfile]:
        """Profiles, each read once. How the target followed the features where a change was
        accepted is no yardstick for what comes later: everything would pass."""
        found = []
        for batch in batches:
            profile = self.known.pop(batch.period, None) or self.profiles.profile(batch)
            self.known[batch.period] = profile
            found.append(without_shift(profile, relation_only=True) if batch.anomalies else profile)
        while len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        return found


def find_past(batch: Batch, sound: Sequence[Batch]) -> Past:
    """What a batch is compared with, of the sound ones before it, oldest first."""
    newest = sound[-COMPARED:]
    changed = [number for number, other in enumerate(newest) if other.anomalies]
    start = changed[-1] if changed else len(newest)
    while start - 1 in changed:
        start -= 1
    recent = newest[-PREDECESSORS:]
    season = [other for other in _year_before(batch, sound) if other not in recent]
    return Past(tuple(newest), tuple(season), tuple(newest[start:]))


def _year_before(batch: Batch, sound: Sequence[Batch]) -> list[Batch]:
    """The batches nearest to a year before one, oldest first; none further off than its own length,
    or a week."""
    if batch.until is None:
        return []
    wanted = batch.until - YEAR
    length = max(batch.until - (batch.first_time or batch.until), timedelta(days=8))

    def end(other: Batch) -> datetime:
        return other.until or datetime.min

    place = bisect.bisect_left(sound, wanted, key=end)
    around = sound[max(0, place - SEASON_BATCHES) : place + SEASON_BATCHES]
    nearest = sorted(around, key=lambda other: abs(end(other) - wanted))[:SEASON_BATCHES]
    return sorted((other for other in nearest if abs(end(other) - wanted) <= length), key=end)


def _is_sound(batch: Batch) -> bool:
    """Whether others may be compared with it."""
    return bool(batch.rows) and not batch.on_hold and not is_small(batch)


def is_small(batch: Batch) -> bool:
    """Whether a batch has too few rows to be judged, or for others to be judged by it."""
    return batch.rows + batch.unlabelled_rows < FEWEST_ROWS


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
