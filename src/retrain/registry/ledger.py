"""The append-only record of every verdict and every move of the champion.

It is one MLflow run for each registered model, shared by everyone who shares the store. Entry n is the param `seq-<n>`:
MLflow lets a param be written once, so of several writers exactly one gets each number, on SQLite, on Postgres and
through a server (see `write_once`). The alias `champion` is its cache, since MLflow's aliases are unconditional overwrites.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from retrain.errors import PromotionError, StoreError
from retrain.gate.alpha_spending import Look, find_look, plan_look
from retrain.masking import mask
from retrain.registry.ledger_run import find_ledger_run
from retrain.registry.store import Store
from retrain.registry.write_once import deleted_run, whole_text, write_once
from retrain.types import ModelRecord

# What an entry can be: the gate's verdict, a move that was refused, a person's yes to a waiting candidate, a person's
# choice of a version over the gate's head, and a way back.
VERDICT, REFUSAL, APPROVAL, OVERRIDE, ROLLBACK = (
    "verdict",
    "refusal",
    "approval",
    "override",
    "rollback",
)
DECAY = "decay"  # the figure that says how much worse the incumbent had become when a challenger was trained
_KEY = "seq-{:06d}"
_LOOK_KEY = "look-{:06d}"
_MOST_ATTEMPTS = 100  # each lost to another writer, who has then written an entry
_OVERTAKEN = f"Others wrote to the ledger {_MOST_ATTEMPTS} times while this command tried to. Nothing was changed; run it again."


@dataclass(frozen=True)
class Entry:
    """One line of history. `champion` serves from this entry on; it moved if it differs from `previous`.

    `challenger` is the version that earned the champion its place: itself, or the one that it is the refit of.
    """

    kind: str  # one of those above
    verdict: str  # what the gate said; empty where a person decided
    reason: str
    champion: int | None
    previous: int | None
    trained_until: str | None  # of the champion
    challenger: int
    challenger_trained_until: str
    incumbent: int | None
    comparison: str  # digest of what was judged
    snapshot: str
    newest_batch: str
    git_commit: str | None
    run_id: str | None
    recipe: str = ""  # digest of snapshot and config that the challenger was made of
    evaluation_start: str = ""
    evaluation_end: str = ""
    predictions: str = ""  # digest
    look: int = 1
    gate: str = ""  # digest of what was asked of the predictions
    candidate: int | None = None  # the version that waits for approval
    config: str = ""  # digest of the config under which the verdict was carried out
    # What trained the challenger, as the run holds it: the commit, and the sha256 of config.yaml and of code.patch.
    # `run_config` is empty in entries of earlier versions of this project, `run_patch` also where all was committed.
    trained_commit: str = ""
    run_config: str = ""
    run_patch: str = ""
    models: dict[str, str] = field(default_factory=dict)  # sha256 of the model file by version
    checks: dict[str, str] = field(default_factory=dict)  # outcome by name
    figures: dict[str, float] = field(default_factory=dict)
    who: str = ""
    time: str = ""
    id: str = ""
    seq: int = 0

    @property
    def moved(self) -> bool:
        return self.champion != self.previous


Written = TypeVar("Written", Entry, Look)


class Ledger:
    """Reads and appends. Nothing is ever changed or taken back."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id

    @classmethod
    def open(cls, store: Store) -> Ledger:
        """The ledger of the store's registered model, created at first use."""
        return cls(store, find_ledger_run(store))

    def entries(self) -> list[Entry]:
        """The whole history, oldest first. Raises StoreError when it was deleted, or an entry is missing or unreadable."""
        params = self._params()
        texts = _numbered(params, _KEY, self.run_id)
        return [
            _read(text, f"Ledger entry {number}", Entry, seq=number)
            for number, text in enumerate(texts)
        ]

    def looks(self) -> list[Look]:
        """Every verdict that anybody was about to see, oldest first. Raises as `entries` does."""
        texts = _numbered(self._params(), _LOOK_KEY, self.run_id)
        return [_read(text, f"Look {number}", Look) for number, text in enumerate(texts)]

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = lambda look: "") -> Look:
        """The look of these predictions under this gate, written down unless it is there already; returns it with its number.

        It is written before anybody sees a verdict, which may depend on the number: `verdict` is told the look. Two who look at
        the same time get one number each, since each place in the list has one writer.
        """
        for attempt in range(_MOST_ATTEMPTS):
            looks = self.looks()
            found = find_look(looks, wanted)
            if found is not None:
                return found
            planned = plan_look(self.entries(), looks, wanted)
            stamped = dataclasses.replace(planned, verdict=verdict(planned), **_stamp())
            text = json.dumps(dataclasses.asdict(stamped), sort_keys=True)
            if write_once(self.store.client, self.run_id, _LOOK_KEY.format(len(looks)), text):
                return stamped
            time.sleep(random.uniform(0, 0.02 * min(attempt, 10)))
        raise StoreError(_OVERTAKEN)

    def _params(self) -> Mapping[str, str]:
        run = self.store.client.get_run(self.run_id)
        if run.info.lifecycle_stage != "active":
            raise StoreError(deleted_run(self.run_id))
        return run.data.params

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Write entry number `expected_length`. False when another writer already has: read again, then decide again.

        Raises StoreError for everything else that can go wrong, so that trying again after False always ends.
        """
        figures = {name: float(f"{value:.6g}") for name, value in entry.figures.items()}
        stamped = dataclasses.replace(entry, reason=mask(entry.reason), figures=figures, **_stamp())
        content = dataclasses.asdict(stamped)
        del content["seq"]
        # In ASCII a character is a byte, and one that every database takes.
        text = json.dumps(content, sort_keys=True)
        return write_once(self.store.client, self.run_id, _KEY.format(expected_length), text)

    def extend(self, plan: Callable[[list[Entry]], Entry]) -> Entry:
        """Append what `plan` makes of the history, planned again when another writer came first; returns it as written.

        A plan may also return an entry that is there already: then nothing is written.
        """
        for attempt in range(_MOST_ATTEMPTS):
            entries = self.entries()
            planned = plan(entries)
            if planned in entries:
                return planned
            if self.append(planned, len(entries)):
                return self.entries()[len(entries)]
            time.sleep(random.uniform(0, 0.02 * min(attempt, 10)))
        raise StoreError(_OVERTAKEN)


def model_digest_of(entries: Sequence[Entry], version: int) -> str | None:
    """The sha256 of a version's model file by its first entry, None for one that the ledger has no digest of."""
    return next(
        (entry.models[str(version)] for entry in entries if str(version) in entry.models), None
    )


def trained_until_of(entries: Sequence[Entry], version: int) -> str | None:
    """Where a version's training rows end by its first entry, None for one that the ledger doesn't know."""
    for entry in entries:
        if entry.challenger == version:
            return entry.challenger_trained_until
        if entry.champion == version:
            return entry.trained_until
    return None


def training_of(entries: Sequence[Entry], run_id: str) -> Entry | None:
    """The first entry that says what trained the versions of a run; None if there is none."""
    return next((entry for entry in entries if entry.run_id == run_id and entry.run_config), None)


def current_champion(entries: Sequence[Entry]) -> Entry | None:
    """The entry that put the serving champion in place, None before the first promotion."""
    return next((entry for entry in reversed(entries) if entry.moved), None)


def deployment_history(entries: Sequence[Entry]) -> list[Entry]:
    """The moves that put the champion and those before it in place, newest last, without what was rolled back.

    A rollback takes away everything after the version that it restores, so that the next one goes further back.
    """
    line: list[Entry] = []
    for entry in entries:
        if not entry.moved:
            continue
        if entry.kind == ROLLBACK:
            # A version may have served twice: back to the last time, so that what served before that stays reachable.
            places = [
                place for place, earlier in enumerate(line) if earlier.champion == entry.champion
            ]
            del line[places[-1] if places else len(line) - 1 :]
        line.append(entry)
    return line


def rolled_back(entries: Sequence[Entry], recipe: str) -> Entry | None:
    """The rollback that took away a champion of this recipe, None if there was none or a person brought it back."""
    recipes: dict[int, str] = {}
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
    """The verdict whose version waits for approval: the newest, unless another verdict or a move came after it."""
    newest = next((entry for entry in reversed(entries) if entry.kind != REFUSAL), None)
    return newest if newest is not None and newest.candidate is not None else None


def find_incumbent(entries: Sequence[Entry], evaluation_start: str) -> ModelRecord | None:
    """The version to compare with on rows from `evaluation_start` on, none of which it was trained on. None before the first.

    It is the champion. When it was refitted on this very window, the challenger that earned its promotion stands in: same
    recipe, without the window. So a changed recipe on an unchanged snapshot has to match what serves.
    Raises PromotionError when both have seen rows of the window: an older version would be too easy to beat.
    """
    champion = current_champion(entries)
    if champion is None:
        return None
    if champion.trained_until is not None and champion.trained_until <= evaluation_start:
        return ModelRecord(champion.champion, "", champion.trained_until)
    if champion.challenger_trained_until <= evaluation_start:
        return ModelRecord(champion.challenger, "", champion.challenger_trained_until)
    raise PromotionError(
        f"The champion, version {champion.champion}, was trained on rows of this evaluation window, which starts at "
        f"{evaluation_start[:16].replace('T', ' ')}: it was promoted on a newer snapshot or a shorter window. Nothing can be compared "
        "with it fairly. Set `data.as_of` and `evaluation` back to theirs, or let a new batch arrive; then `dvc repro`."
    )


def find_parent(entries: Sequence[Entry], evaluation_start: str) -> int | None:
    """The version to continue from: of those that served, and the challengers that stood for them, the newest one that was
    trained on no row from `evaluation_start` on, with rows in between. None before the first."""
    for entry in reversed(deployment_history(entries)):
        for version, until in (
            (entry.champion, entry.trained_until),
            (entry.challenger, entry.challenger_trained_until),
        ):
            if until is not None and until < evaluation_start:
                return version
    return None


def _numbered(params: Mapping[str, str], key: str, run_id: str) -> list[str]:
    """The texts under the keys of one kind, in order. Raises StoreError when one is missing."""
    pattern = re.compile(key.partition("{")[0] + r"(\d{6,})")
    numbers = sorted(int(found[1]) for found in map(pattern.fullmatch, params) if found)
    if numbers != list(range(len(numbers))):
        missing = min(set(range(len(numbers))) - set(numbers))
        raise StoreError(
            f"{'Look' if key == _LOOK_KEY else 'Ledger entry'} {missing} is missing, though there are {len(numbers)} and the last is {numbers[-1]}: "
            f"run {run_id} was changed by hand. Restore the store from a backup; nothing was changed."
        )
    return [whole_text(params, key.format(number)) for number in numbers]


def _stamp() -> dict[str, str]:
    """Who writes, when, and what sets this text apart: equal values would both be accepted."""
    return {
        "who": _who(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": uuid.uuid4().hex,
    }


def _read(text: str, name: str, kind: type[Written], **more: int) -> Written:
    """What this or an earlier version of the project has written. Raises StoreError for what can't be read."""
    try:
        return kind(**json.loads(text), **more)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{name} can't be read ({error}): it was written by a newer version of this project, or by hand. "
            "Update the project, then run the command again."
        ) from error


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"
