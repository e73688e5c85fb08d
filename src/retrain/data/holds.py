"""Which batches are on hold: those that look broken, until a person accepts them, or enough later
batches agree with them.

All of it is a function of the batches that a snapshot holds and of `monitoring` in the config, not
of the order of events.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from retrain.config import MonitoringConfig
from retrain.data.anomalies import (
    COMPARED,
    FEWEST_ROWS,
    PREDECESSORS,
    code_digest,
    detect_anomalies,
    measure_shift,
    without_shift,
)
from retrain.data.manifest import PROFILE, Batch
from retrain.data.profiles import BatchProfile
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


@dataclasses.dataclass(frozen=True)
class Past:
    """What a batch is held against: the newest sound ones before it, oldest first; those of the
    same season a year ago; and those since things last changed for good, if they did."""

    batches: tuple[Batch, ...]
    season: tuple[Batch, ...] = ()
    regime: tuple[Batch, ...] = ()

    @property
    def digest(self) -> str:
        """Stands for these batches. A profile says how far its batch lay from those before it, and
        so on back to the first."""
        names = [
            code_digest(),
            *(_name(batch) for batch in self.batches),
            "season",
            *(_name(batch) for batch in self.season),
        ]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _name(batch: Batch) -> str:
    return f"{batch.period} {batch.files[PROFILE]}{' accepted' if batch.anomalies else ''}"


def decide_holds(
    batches: Sequence[Batch], profiles: Profiles, monitoring: MonitoringConfig
) -> tuple[Batch, ...]:
    """The batches, oldest first, with what makes each look broken, and whether it is on hold."""
    judge = _Judge(profiles, monitoring)
    decided: list[Batch] = []
    sound: list[Batch] = []
    for batch in batches:
        decided.append(judge.look(batch, sound))
        window = judge.waiting(decided)
        if window:
            decided[-1] = judge.compare(window, decided[-1], sound)
            if decided[-1].agreement.endswith(AGREED):
                for number in (decided.index(member) for member in window[:-1]):
                    decided[number] = dataclasses.replace(
                        decided[number], confirmed_by=batch.period
                    )
                decided[-1] = dataclasses.replace(decided[-1], confirmed_by=batch.period)
                sound = [other for other in decided if _is_sound(other)]
                continue
        if _is_sound(decided[-1]):
            sound.append(decided[-1])
    return tuple(decided)


class _Judge:
    def __init__(self, profiles: Profiles, monitoring: MonitoringConfig) -> None:
        self.profiles, self.monitoring = profiles, monitoring
        self.known: dict[str, BatchProfile] = {}
        self.noted = ""  # what an earlier update found about the newest batch's agreement

    def look(self, batch: Batch, sound: Sequence[Batch]) -> Batch:
        """A batch held against the sound ones before it. Done again only when it, or one of them,
        is another."""
        monitoring = self.monitoring
        self.noted = batch.agreement
        batch = dataclasses.replace(
            batch,
            confirmed_by="",
            agreement="",
            accepted=not monitoring.hold_anomalies or batch.period in monitoring.accept,
            held_by_hand=batch.period in monitoring.hold,
        )
        past = find_past(batch, sound)
        compared = hashlib.sha256(f"{past.digest} {batch.content}".encode()).hexdigest()[:16]
        if batch.compared_with == compared and self.profiles.unchanged(batch):
            return batch
        profile = self.profiles.profile(batch)
        try:
            earlier, season, regime = (
                self._read(part) for part in (past.batches, past.season, past.regime)
            )
            profile = dataclasses.replace(
                profile, shift=measure_shift(profile, earlier, season, regime)
            )
            anomalies = detect_anomalies(profile, earlier, season)
        except RetrainError:
            raise
        except Exception as error:
            # No batch may be so odd that nothing can be done about it: it waits for a person, who
            # can accept it.
            log.debug("Where it broke:", exc_info=True)
            what = " ".join(mask(str(error)).split())[:200]
            anomalies = [
                f"it can't be held against earlier batches ({type(error).__name__}: {what})"
            ]
        batch = self.profiles.put_profile(batch, profile)
        self.known.pop(batch.period, None)
        return dataclasses.replace(batch, anomalies=anomalies, compared_with=compared)

    def waiting(self, decided: Sequence[Batch]) -> list[Batch]:
        """The newest batches on hold, as many as may accept each other: with no sound one between
        them. Empty if there are fewer."""
        asked = self.monitoring.accept_after
        if (
            asked is None
            or not decided[-1].on_hold
            or decided[-1].held_by_hand
            or is_small(decided[-1])
        ):
            return []
        window: list[Batch] = []
        for batch in reversed(decided):
            if is_small(batch) or batch.held_by_hand or not (batch.rows or batch.on_hold):
                continue  # says nothing, or is not asked
            if not batch.on_hold:
                break
            window.append(batch)
            if len(window) == asked + 1:
                return window[::-1]
        return []

    def compare(self, window: Sequence[Batch], newest: Batch, sound: Sequence[Batch]) -> Batch:
        """The newest batch, with a note whether each of the window's batches looks sound beside the
        others of them, by the yardstick of the past. Done again only when one of them, or the past,
        is another."""
        past = find_past(window[0], sound)
        names = [past.digest, *(f"{batch.content} {batch.compared_with}" for batch in window)]
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        note = self.noted
        if note[:-1] != key:
            note = key + (AGREED if self._agree(window, past) else NOT_AGREED)
        return dataclasses.replace(newest, agreement=note)

    def _agree(self, window: Sequence[Batch], past: Past) -> bool:
        earlier, season = self._read(past.batches), self._read(past.season)
        members = [self.profiles.profile(batch) for batch in window]
        for number, member in enumerate(members):
            others = [without_shift(other) for other in (*members[:number], *members[number + 1 :])]
            shift = measure_shift(member, [*earlier, *others], season, others)
            if detect_anomalies(
                dataclasses.replace(member, shift=shift), [*earlier, *others], season
            ):
                return False
        return True

    def _read(self, batches: Sequence[Batch]) -> list[BatchProfile]:
        """Profiles, each read once. How the target followed the features where a change was
        accepted is no yardstick for what comes later: everything would pass."""
        for batch in batches:
            if batch.period not in self.known:
                self.known[batch.period] = self.profiles.profile(batch)
            self.known[batch.period] = self.known.pop(batch.period)  # the one used last stands last
        while len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        found = [self.known[batch.period] for batch in batches]
        return [
            without_shift(profile, relation_only=True) if batch.anomalies else profile
            for batch, profile in zip(batches, found, strict=True)
        ]


def find_past(batch: Batch, sound: Sequence[Batch]) -> Past:
    """What a batch is held against, of the sound ones before it, oldest first."""
    newest = sound[-COMPARED:]
    changed = max((number for number, other in enumerate(newest) if other.anomalies), default=None)
    while changed and newest[changed - 1].anomalies:
        changed -= 1
    regime = () if changed is None else tuple(newest[changed:])
    recent = {other.period for other in newest[-PREDECESSORS:]}
    season = [other for other in _year_before(batch, sound) if other.period not in recent]
    return Past(tuple(newest), tuple(season), regime)


def _year_before(batch: Batch, sound: Sequence[Batch]) -> list[Batch]:
    """The batches nearest to a year before one, oldest first; none further off than its own length,
    or a week."""
    if batch.until is None:
        return []
    wanted = batch.until - YEAR
    length = batch.until - batch.first_time if batch.first_time is not None else timedelta(0)
    place = bisect.bisect_left(sound, wanted, key=lambda other: other.until)
    around = sound[max(0, place - SEASON_BATCHES) : place + SEASON_BATCHES]
    near = [
        other for other in around if abs(other.until - wanted) <= max(length, timedelta(days=8))
    ]
    chosen = sorted(near, key=lambda other: abs(other.until - wanted))[:SEASON_BATCHES]
    return sorted(chosen, key=lambda other: other.until)


def _is_sound(batch: Batch) -> bool:
    """Whether others may be held against it."""
    return bool(batch.rows) and not batch.on_hold and not is_small(batch)


def is_small(batch: Batch) -> bool:
    """Whether a batch has too few rows to be judged, or for others to be judged by it."""
    return batch.rows + batch.unlabelled_rows < FEWEST_ROWS
