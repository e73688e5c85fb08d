"""The append-only record of every verdict and every move of the champion.

It is one MLflow run for each registered model, shared by everyone who shares the store. Entry n is
the param `seq-<n>`: MLflow lets a param be written once, so of several writers exactly one gets
each number, on SQLite, on Postgres and through a server (see `write_once`). The alias `champion` is
its cache, since MLflow's aliases are unconditional overwrites.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from retrain.errors import PromotionError, StoreError
from retrain.gate.alpha_spending import Look, find_look, plan_look
from retrain.lazy import pydantic
from retrain.masking import mask
from retrain.registry.ledger_run import find_ledger_run
from retrain.registry.store import Store
from retrain.registry.write_once import deleted_run, whole_text, write_once
from retrain.types import Record

# What an entry can be: the gate's verdict, a move that was refused, manual approval of a candidate,
# a version that overrides the gate, and a way back.
VERDICT, REFUSAL, APPROVAL = "verdict", "refusal", "approval"
OVERRIDE, ROLLBACK = "override", "rollback"
DECAY = "decay"  # how much worse the incumbent had become when the challenger was trained
_KEY = "seq-{:06d}"
_LOOK_KEY = "look-{:06d}"
_MOST_ATTEMPTS = 100  # each lost to another writer, who has then written an entry


@dataclass(frozen=True)
class Entry(Record):
    """One line of history. `champion` serves from this entry on; it moved if not `previous`.

    `challenger` earned the champion its place: itself, or the version that it is the refit of.
    """

    kind: str  # one of those above
    verdict: str  # the gate's; empty where a person decided
    reason: str
    champion: int | None
    previous: int | None
    trained_until: str | None  # of the champion
    challenger: int
    challenger_trained_until: str
    incumbent: int | None
    comparison: str  # digest
    snapshot: str
    newest_batch: str
    git_commit: str | None
    run_id: str | None
    recipe: str = ""  # digest of snapshot and config that the challenger was made of
    evaluation_start: str = ""
    evaluation_end: str = ""
    predictions: str = ""  # digest
    look: int = 1
    gate: str = ""  # digest of its checks
    candidate: int | None = None  # the version that waits for approval
    config: str = ""  # digest of the config under which the verdict was carried out
    # What trained the challenger, as the run holds it: the commit, and the sha256 of config.yaml
    # (empty in entries of earlier versions of this project) and of code.patch (empty without).
    trained_commit: str = ""
    run_config: str = ""
    run_patch: str = ""
    models: dict[str, str] = field(default_factory=dict)  # sha256 of the model file by version
    checks: dict[str, str] = field(default_factory=dict)  # outcome by name
    figures: dict[str, float] = field(default_factory=dict)
    who: str = ""
    time: str = ""
    id: str = ""
    seq: Annotated[int, pydantic.Field(exclude=True)] = 0

    @property
    def moved(self) -> bool:
        return self.champion != self.previous


Written = TypeVar("Written", bound=Record)


class Ledger:
    """Reads and appends. Nothing is ever changed or taken back."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id

    @classmethod
    def open(cls, store: Store) -> Ledger:
        """The ledger of the store's registered model, created at first use."""
        return cls(store, find_ledger_run(store))

    def entries(self) -> list[Entry]:
        """The whole history, oldest first.

        Raises StoreError when it was deleted, or an entry is missing or unreadable.
        """
        found = _read(self._params(), _KEY, Entry, self.run_id)
        return [dataclasses.replace(entry, seq=seq) for seq, entry in enumerate(found)]

    def looks(self) -> list[Look]:
        """Every verdict that anybody was about to see, oldest first. Raises as `entries` does."""
        return _read(self._params(), _LOOK_KEY, Look, self.run_id)

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = lambda look: "") -> Look:
        """The look of these predictions under this gate, recorded unless it is there already.

        It is written before anybody sees a verdict, which may depend on its number. Two who look at
        the same time get one number each, since each place in the list has one writer.
        """
        for _ in _attempts():
            looks = self.looks()
            found = find_look(looks, wanted)
            if found is not None:
                return found
            planned = plan_look(self.entries(), looks, wanted)
            stamped = dataclasses.replace(planned, verdict=verdict(planned), **_stamp())
            if self._write(_LOOK_KEY.format(len(looks)), stamped):
                return stamped
        raise AssertionError

    def _params(self) -> Mapping[str, str]:
        run = self.store.client.get_run(self.run_id)
        if run.info.lifecycle_stage != "active":
            raise deleted_run(self.run_id)
        return run.data.params

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Write entry number `expected_length`. False when another writer already has.

        Raises StoreError for all else that can go wrong, so that trying again after False ends.
        """
        figures = {name: float(f"{value:.6g}") for name, value in entry.figures.items()}
        stamped = dataclasses.replace(entry, reason=mask(entry.reason), figures=figures, **_stamp())
        return self._write(_KEY.format(expected_length), stamped)

    def _write(self, key: str, record: Record) -> bool:
        # In ASCII a character is a byte, and one that every database takes.
        text = json.dumps(record.content(), sort_keys=True)
        return write_once(self.store.client, self.run_id, key, text)

    def extend(self, plan: Callable[[list[Entry]], Entry]) -> Entry:
        """Append what `plan` makes of the history, planned again when another writer came first.

        Returns the entry as written.
        """
        for _ in _attempts():
            entries = self.entries()
            if self.append(plan(entries), len(entries)):
                return self.entries()[len(entries)]
        raise AssertionError


def model_digest_of(entries: Sequence[Entry], version: int) -> str | None:
    """The sha256 of a version's model file by its first entry, None where there is none."""
    digests = (entry.models.get(str(version)) for entry in entries)
    return next((digest for digest in digests if digest is not None), None)


def trained_until_of(entries: Sequence[Entry], version: int) -> str | None:
    """Where a version's training rows end by its first entry, None where there is none."""
    for entry in entries:
        if entry.challenger == version:
            return entry.challenger_trained_until
        if entry.champion == version:
            return entry.trained_until
    return None


def training_of(entries: Sequence[Entry], run_id: str) -> Entry | None:
    """The first entry that names what trained the versions of a run; None if there is none."""
    return next((entry for entry in entries if entry.run_id == run_id and entry.run_config), None)


def current_champion(entries: Sequence[Entry]) -> Entry | None:
    """The entry that put the serving champion in place, None before the first promotion."""
    return next((entry for entry in reversed(entries) if entry.moved), None)


def deployment_history(entries: Sequence[Entry]) -> list[Entry]:
    """The moves that put the champion and those before it in place, newest last.

    A rollback takes away everything after the version that it restores, so that the next one goes
    further back.
    """
    line: list[Entry] = []
    for entry in entries:
        if not entry.moved:
            continue
        if entry.kind == ROLLBACK:
            # To the last time that it served, so that what served before that stays reachable.
            served = [earlier.champion for earlier in line]
            places = [place for place, version in enumerate(served) if version == entry.champion]
            del line[places[-1] if places else len(line) - 1 :]
        line.append(entry)
    return line


def rolled_back(entries: Sequence[Entry], recipe: str) -> Entry | None:
    """The rollback that took away a champion of this recipe.

    None if there was none or a person brought it back.
    """
    recipes: dict[int | None, str] = {}
    found = None
    for entry in entries:
        if entry.kind == ROLLBACK and recipes.get(entry.previous) == recipe:
            found = entry
        if entry.moved:
            recipes[entry.champion] = entry.recipe
            if entry.kind != VERDICT and entry.recipe == recipe:
                found = None
    return found


def pending_approval(entries: Sequence[Entry]) -> Entry | None:
    """The verdict whose version waits for approval: the newest, unless another or a move came
    after."""
    newest = next((entry for entry in reversed(entries) if entry.kind != REFUSAL), None)
    return newest if newest is not None and newest.candidate is not None else None


def find_incumbent(entries: Sequence[Entry], evaluation_start: str) -> int | None:
    """The version to compare with on rows from `evaluation_start` on. None before the first.

    It is the champion. When it was refitted on this very window, the challenger that earned its
    promotion stands in: same recipe, without the window. So a changed recipe on an unchanged
    snapshot has to match what serves. Raises PromotionError when both have seen rows of the window:
    an older version would be too easy to beat.
    """
    champion = current_champion(entries)
    if champion is None:
        return None
    for version, until in _trained_until(champion):
        if until <= evaluation_start:
            return version
    raise PromotionError(
        f"The champion, version {champion.champion}, was trained on rows of this evaluation "
        f"window, which starts at {evaluation_start[:16].replace('T', ' ')}: it was promoted on a "
        "newer snapshot or a shorter window. Nothing can be compared with it fairly.",
        hint="Set `data.as_of` and `evaluation` back to theirs, or let a new batch arrive; "
        "then `dvc repro`.",
    )


def find_parent(entries: Sequence[Entry], evaluation_start: str) -> int | None:
    """The version to continue from, None before the first.

    Of those that served, and their challengers, the newest that was trained on no row from
    `evaluation_start` on, with rows in between.
    """
    for entry in reversed(deployment_history(entries)):
        for version, until in _trained_until(entry):
            if until < evaluation_start:
                return version
    return None


def _trained_until(entry: Entry) -> Iterator[tuple[int, str]]:
    """An entry's champion and the challenger that it is the refit of, with their training's end."""
    if entry.champion is not None and entry.trained_until is not None:
        yield entry.champion, entry.trained_until
    yield entry.challenger, entry.challenger_trained_until


def _attempts() -> Iterator[int]:
    """Waits between attempts to write. Raises StoreError after the last."""
    for attempt in range(_MOST_ATTEMPTS):
        yield attempt
        time.sleep(random.uniform(0, 0.02 * min(attempt, 10)))
    raise StoreError(
        f"Others wrote to the ledger {_MOST_ATTEMPTS} times while this command tried to. "
        "Nothing was changed; run it again."
    )


def _read(params: Mapping[str, str], key: str, kind: type[Written], run_id: str) -> list[Written]:
    """The records under the keys of one kind, in order.

    Raises StoreError when one is missing, or can't be read by this version of the project.
    """
    name = "Look" if key == _LOOK_KEY else "Ledger entry"
    pattern = re.compile(key.partition("{")[0] + r"(\d{6,})")
    numbers = sorted(int(found[1]) for found in map(pattern.fullmatch, params) if found)
    if numbers != list(range(len(numbers))):
        missing = min(set(range(len(numbers))) - set(numbers))
        raise StoreError(
            f"{name} {missing} is missing, though there are {len(numbers)} and the last is "
            f"{numbers[-1]}: run {run_id} was changed by hand. Nothing was changed.",
            hint="Restore the store from a backup.",
        )
    records = []
    for number in numbers:
        try:
            records.append(kind.read(json.loads(whole_text(params, key.format(number)))))
        except ValueError as error:
            raise StoreError(
                f"{name} {number} can't be read ({' '.join(str(error).split())[:200]}): "
                "it was written by a newer version of this project, or by hand.",
                hint="Update the project, then run the command again.",
            ) from error
    return records


def _stamp() -> dict[str, Any]:
    """Who writes, when, and what sets this text apart: equal values would both be accepted."""
    return {
        "who": _who(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": uuid.uuid4().hex,
    }


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"
